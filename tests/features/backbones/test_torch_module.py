import json

import numpy as np
import pytest
import torch
from PIL import Image

from dpfc.features import Backbone, FeatureCache, extract, load_backbone, open_dataset
from dpfc.features.backbones.torch_forward import TorchNetwork
from dpfc.features.exceptions import OutOfDeviceMemoryError

SIDE = 12


def small_pixels(image):
    """Channels first, in [0, 1]."""
    pixels = np.asarray(image.resize((SIDE, SIDE)), np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def network(*more):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.Dropout(0.5), *more]
    module = torch.nn.Sequential(*layers)
    module[1].running_mean += torch.arange(6) / 10
    return module


def images(n=20):
    generator = np.random.default_rng(0)
    return [Image.fromarray(p) for p in generator.integers(0, 256, (n, 30, 40, 3), dtype=np.uint8)]


def load(module, **options):
    return load_backbone(module, **{"prepare": small_pixels, "device": "cpu", **options})


@pytest.fixture
def batch():
    return np.stack([small_pixels(image) for image in images()])


def test_features_are_the_modules_in_evaluation_mode(batch):
    module = network(torch.nn.Flatten(), torch.nn.Linear(600, 7)).train()
    backbone = load(module, name="mine")
    assert isinstance(backbone, Backbone)
    assert (backbone.spec, backbone.modality, backbone.n_features) == ("torch:mine", "image", 7)
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(batch)).numpy()
    features = backbone.embed(batch)
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() < 1e-5
    assert np.array_equal(backbone.embed(batch), features)


def test_the_mean_over_maps_is_taken(batch):
    module = network()
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(batch)).mean((2, 3)).numpy()
    for pooling in ("auto", "mean"):
        assert np.abs(load(module, pooling=pooling).embed(batch) - expected).max() < 1e-5


def test_a_row_depends_on_itself_alone(batch):
    backbone = load(network())
    expected = backbone.embed(batch)
    for size in (1, 7, 16):
        parts = [backbone.embed(batch[i : i + size]) for i in range(0, len(batch), size)]
        assert np.array_equal(np.concatenate(parts), expected)


def test_a_module_that_is_trained_on_leaves_the_backbone_as_it_was(batch):
    module = network()
    backbone = load(module)
    before, digest = backbone.embed(batch), backbone.weights_sha256
    module.train()
    with torch.no_grad():
        module[0].weight.add_(1)
    assert np.array_equal(backbone.embed(batch), before)
    assert backbone.weights_sha256 == digest
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert load(module).weights_sha256 != digest


def test_the_checksum_is_of_all_state_and_of_nothing_else():
    digest = load(network()).weights_sha256
    assert load(network(), name="other").weights_sha256 == digest
    changed = network()
    changed[1].running_var[3] += 1e-6
    assert load(changed).weights_sha256 != digest
    assert load(network().half()).weights_sha256 != digest


def test_a_cache_is_extracted_with_a_module_and_says_so(parquet_path, tmp_path):
    backbone = load(network(), name="mine")
    cache = extract(open_dataset(parquet_path), backbone, tmp_path / "out", dtype="float32")
    prepared = np.stack([small_pixels(item.decode()) for item in open_dataset(parquet_path)])
    assert np.array_equal(cache.load()[0], backbone.embed(prepared))
    manifest = FeatureCache.open(tmp_path / "out").manifest
    assert manifest["backbone"] == {
        "spec": "torch:mine",
        "weights_sha256": backbone.weights_sha256,
    }
    said = json.loads(json.dumps(manifest["preprocessing"]))
    assert said["prepare"].endswith(".small_pixels")
    assert said["input"] == f"float32 [3, {SIDE}, {SIDE}]"


def test_the_preparer_is_the_callers_own_and_brings_no_weights():
    assert load(network()).preparer is small_pixels


class Odd(torch.nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output
        self.register_buffer("weights", torch.zeros(1))

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: {"features": x}, "the module must return a tensor, got dict"),
        (lambda x: x.flatten(1).sum(), "must return one row of features an image"),
        (lambda x: x.flatten(1)[:1], r"one row of features an image, got .* \(1, 432\)"),
        (lambda x: x.flatten(2), "must return one row of features an image"),
    ],
)
def test_a_module_that_gives_no_features_is_refused(batch, output, message):
    with pytest.raises(ValueError, match=message):
        load(Odd(output)).embed(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prepare": None}, "needs prepare=, a callable from an RGB image"),
        ({"prepare": 3}, "needs prepare="),
        ({"image_size": 64}, "image_size is up to prepare"),
        ({"pooling": "pooler"}, "pooling 'pooler' is not possible for a torch.nn.Module"),
        ({"dtype": "float16"}, "dtype 'float16' needs a CUDA GPU"),
    ],
)
def test_what_a_module_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load(network(), **options)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda image: torch.zeros(3), "prepare must return an ndarray, got Tensor"),
        (lambda image: [1, 2], "prepare must return an ndarray, got list"),
        (lambda image: np.zeros(3, np.uint16), "prepare must return an array of uint8"),
        (lambda image: np.array([None]), "prepare must return an array of .* got object"),
    ],
)
def test_a_prepare_that_makes_no_array_is_refused(prepare, message):
    with pytest.raises(ValueError, match=message):
        load(network(), prepare=prepare).n_features  # noqa: B018


def of_its_own_size(image):
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32)


def test_a_prepare_that_makes_arrays_of_several_shapes_is_refused(write_parquet, encode, tmp_path):
    files = [encode(np.zeros((8, 8 + i % 2, 3), np.uint8)) for i in range(30)]
    rows = [{"bytes": file, "path": None} for file in files]
    data = open_dataset(write_parquet(tmp_path / "x.parquet", images=rows))
    backbone = load(network(), prepare=of_its_own_size)
    with pytest.raises(ValueError, match=r"one shape and dtype .* float32 \[3, 8, 8\] and float32"):
        extract(data, backbone, tmp_path / "out")


@pytest.mark.parametrize("bad", [np.zeros((2, 3, SIDE, SIDE)), np.zeros((2, SIDE, SIDE, 3)), []])
def test_a_batch_of_another_shape_or_type_is_refused(bad):
    with pytest.raises(ValueError, match="batch must be float32 of shape"):
        load(network()).embed(bad)


def test_state_that_is_no_tensor_has_no_checksum():
    class Extra(torch.nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match="_extra_state in the module's state is no tensor"):
        load(Extra(2, 2)).weights_sha256  # noqa: B018


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), OutOfDeviceMemoryError),
        (RuntimeError("CUDA error: out of memory"), OutOfDeviceMemoryError),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling x"), OutOfDeviceMemoryError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_a_gpu_that_is_out_of_memory_is_told_from_other_errors(error, expected):
    """The errors are PyTorch's, the GPU is pretended."""

    def fail(x):
        raise error

    with pytest.raises(expected) as caught:
        TorchNetwork(lambda: Odd(fail), "cpu", "auto")(np.zeros((4, 2), np.float32))
    assert type(caught.value) is expected
