import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dpfc.features import Backbone, MissingDependencyError, load_backbone
from dpfc.features.backbones import devices
from dpfc.features.exceptions import OutOfDeviceMemoryError
from dpfc.features.extraction import Embedder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 5


@pytest.fixture
def save(tmp_path):
    """Save a network of one convolution, its maps or their means, and give the file."""

    def save(
        shape=("n", 3, "h", "w"),
        kind=TensorProto.FLOAT,
        *,
        maps=False,
        metadata=None,
        path=tmp_path / "network.onnx",
        change=None,
    ):
        nodes, x = [], "images"
        if shape[-1] == 3:
            nodes.append(helper.make_node("Transpose", [x], ["chw"], perm=[0, 3, 1, 2]))
            x = "chw"
        nodes.append(helper.make_node("Cast", [x], ["cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Conv", ["cast", "kernel"], ["maps"], strides=[4, 4]))
        out, sizes = "maps", ["n", WIDTH, "p", "q"]
        if not maps:
            nodes.append(helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]))
            nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
            out, sizes = "features", ["n", WIDTH]
        kernel = np.random.default_rng(0).normal(size=(WIDTH, 3, 4, 4)).astype(np.float32)
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("images", kind, shape)],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, sizes)],
            [numpy_helper.from_array(kernel, "kernel")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, metadata or {})
        if change:
            change(model)
        onnx.save(model, path)
        return path

    return save


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def run(path, inputs):
    """What ONNX Runtime makes of inputs by itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def normalised(pixels, mean=MEAN, std=STD):
    scaled = (pixels / 255 - np.array(mean)) / np.array(std)
    return scaled.astype(np.float32).transpose(0, 3, 1, 2)


def load(path, **options):
    return load_backbone(f"onnx:{path}", device="cpu", **options)


def test_features_are_those_of_onnx_runtime_behind_imagenets_normalisation(save, pixels):
    path = save()
    backbone = load(path, image_size=32)
    assert isinstance(backbone, Backbone)
    assert (backbone.modality, backbone.n_features, backbone.device) == ("image", WIDTH, "cpu")
    features = backbone.embed(pixels)
    assert features.dtype == np.float32
    assert features.std() > 0.1
    assert np.abs(features - run(path, normalised(pixels))).max() < 1e-5


def test_the_mean_over_maps_is_taken(save, pixels):
    path = save(maps=True)
    expected = run(path, normalised(pixels)).mean((2, 3))
    for pooling in ("auto", "mean"):
        features = load(path, image_size=32, pooling=pooling).embed(pixels)
        assert np.abs(features - expected).max() < 1e-5


def test_8_bit_networks_get_pixels_as_they_are_channels_where_they_want_them(save, pixels):
    path = save(("n", 32, 32, 3), TensorProto.UINT8)
    features = load(path).embed(pixels)
    expected = run(path, pixels)
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()
    assert "8-bit" in load(path).preprocessing["normalisation"]


def test_16_bit_networks_get_16_bit_images(save, pixels):
    path = save(kind=TensorProto.FLOAT16)
    expected = run(path, normalised(pixels).astype(np.float16))
    assert np.abs(load(path, image_size=32).embed(pixels) - expected).max() < 1e-5


def test_the_files_own_normalisation_is_followed(save, pixels):
    path = save(metadata={"mean": "[0.5, 0.5, 0]", "std": "[0.5, 1, 2]"})
    backbone = load(path, image_size=32)
    expected = run(path, normalised(pixels, (0.5, 0.5, 0), (0.5, 1, 2)))
    assert np.abs(backbone.embed(pixels) - expected).max() < 1e-5
    assert "[0.5, 0.5, 0.0]) / [0.5, 1.0, 2.0]" in backbone.preprocessing["normalisation"]


def test_a_fixed_batch_size_is_filled_up(save, pixels):
    path = save((3, 3, 32, 32))
    backbone = load(path)
    assert (backbone.best_batch_size, backbone.image_size) == (3, 32)
    one = np.concatenate([run(path, normalised(pixels[i : i + 3])) for i in range(0, 39, 3)])
    assert np.abs(backbone.embed(pixels[:39]) - one).max() < 1e-5
    assert np.array_equal(backbone.embed(pixels[:1]), backbone.embed(pixels[:39])[:1])


def test_a_row_depends_on_itself_alone(save, pixels):
    backbone = load(save(), image_size=32)
    expected = backbone.embed(pixels)
    for size in (1, 7, 16):
        parts = [backbone.embed(pixels[i : i + size]) for i in range(0, len(pixels), size)]
        assert np.array_equal(np.concatenate(parts), expected)


def test_the_manifest_says_what_was_done_and_hashes_the_file(save):
    path = save()
    backbone = load(path, image_size=64)
    said = json.loads(json.dumps(backbone.preprocessing))
    assert (said["image_size"], said["compute_dtype"]) == (64, "as the file")
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.spec == f"onnx:{path}"
    image = Image.new("RGB", (90, 70), (200, 10, 10))
    assert backbone.preparer(image).shape == (64, 64, 3)


def test_the_size_is_the_files_own_or_224(save):
    assert load(save()).image_size == 224
    assert load(save(("n", 3, 48, "w"))).image_size == 48
    with pytest.raises(ValueError, match="takes images of 48 px only"):
        load(save(("n", 3, 48, 48)), image_size=64)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (("n", 4, 32, 32), TensorProto.FLOAT, "the input must be images"),
        (("n", 3, 32), TensorProto.FLOAT, "cannot load|the input must be images"),
        (("n", 3, 32, 32), TensorProto.INT64, "the input must be images .*int64"),
        (("n", 3, 32, 48), TensorProto.FLOAT, "images must be square, got 32 x 48"),
    ],
)
def test_other_inputs_than_square_images_are_refused(save, shape, kind, message):
    with pytest.raises(ValueError, match=message):
        load(save(shape, kind))


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def second_output(model):
    model.graph.output.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, None))


def whole_numbers(model):
    model.graph.node.append(helper.make_node("Cast", ["features"], ["i"], to=TensorProto.INT64))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("i", TensorProto.INT64, None))


def no_rows(model):
    model.graph.node.append(helper.make_node("ReduceSum", ["features"], ["s"], keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (second_input, "one input and one output, got 2 and 1"),
        (second_output, "one input and one output, got 1 and 2"),
        (whole_numbers, r"the output must be float, got tensor\(int64\)"),
        (no_rows, r"the output must be features \(n, n_features\)"),
    ],
)
def test_other_outputs_than_features_are_refused(save, change, message):
    with pytest.raises(ValueError, match=message):
        load(save(change=change), image_size=32).n_features  # noqa: B018


def moved(tensor, location):
    """Say that a tensor's values lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def a_weight_elsewhere(location):
    return lambda model: moved(model.graph.initializer[0], location)


def a_constant_elsewhere(location):
    def change(model):
        tensor = moved(numpy_helper.from_array(np.zeros((1, 5), np.float32), "c"), location)
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))

    return change


def a_constant_in_a_branch(location):
    def change(model):
        tensor = moved(numpy_helper.from_array(np.zeros((1, 5), np.float32), "c"), location)
        out = [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 5])]
        constant = helper.make_node("Constant", [], ["c"], value=tensor)
        branch = helper.make_graph([constant], "branch", [], out)
        node = helper.make_node("If", ["yes"], ["d"], then_branch=branch, else_branch=branch)
        model.graph.node.append(node)

    return change


@pytest.mark.parametrize("location", ["weights.bin", "../secret.bin", "/etc/passwd"])
@pytest.mark.parametrize(
    "change", [a_weight_elsewhere, a_constant_elsewhere, a_constant_in_a_branch]
)
def test_weights_in_other_files_are_refused_wherever_they_lie(save, change, location):
    with pytest.raises(ValueError, match="the weights lie in other files"):
        load(save(change=change(location)), image_size=32)


def test_weights_that_the_library_saved_beside_the_file_are_refused(save, tmp_path):
    model = onnx.load(save())
    onnx.save(
        model,
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="apart.bin",
        size_threshold=0,
    )
    with pytest.raises(ValueError, match="the weights lie in other files"):
        load(tmp_path / "apart.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mean": "[1, 2]"}, "mean in the metadata must be a JSON list of three"),
        ({"mean": "words"}, "mean in the metadata must be"),
        ({"std": "[1, NaN, 1]"}, "std in the metadata must be"),
        ({"std": '{"a": 1}'}, "std in the metadata must be"),
        ({"std": "[1, 0, 1]"}, "std in the file's metadata must be > 0"),
    ],
)
def test_a_normalisation_that_makes_no_sense_is_refused(save, metadata, message):
    with pytest.raises(ValueError, match=message):
        load(save(metadata=metadata))


@pytest.mark.parametrize("content", [b"", b"words", b"\x80\x04cos\nsystem\n", "cut", "noise"])
def test_a_damaged_file_is_refused(save, content):
    path = save()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-200], "noise": b"\xff" * 300}.get(content, content))
    with pytest.raises(ValueError, match=r"is not an ONNX file|ONNX Runtime cannot load"):
        load(path)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ValueError, match="there is no file"):
            load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "class_token"}, "pooling 'class_token' is not possible"),
        ({"dtype": "bfloat16"}, "dtype is what the file computes in"),
    ],
)
def test_what_a_file_cannot_do_is_refused(save, options, message):
    with pytest.raises(ValueError, match=message):
        load(save(), **options)


def test_cuda_needs_the_other_onnxruntime(save, monkeypatch):
    monkeypatch.setattr(devices, "has_cuda", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="needs onnxruntime-gpu in place of onnxruntime"):
        load_backbone(f"onnx:{save()}", device="cuda")
    assert load_backbone(f"onnx:{save()}", device="auto").device == "cpu"


def test_a_missing_package_names_the_extra(monkeypatch, save):
    path = save()
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[onnx\]"'):
        load(path)


@pytest.mark.parametrize("bad", [np.zeros((1, 3, 32, 32), np.uint8), np.zeros((1, 32, 32, 3)), []])
def test_a_batch_of_another_shape_or_type_is_refused(save, bad):
    with pytest.raises(ValueError, match="batch must be uint8 of shape"):
        load(save(), image_size=32).embed(bad)


def test_a_gpu_whose_memory_is_short_has_its_batches_halved(save, pixels):
    """No GPU is at hand: a session that fails as ONNX Runtime's allocator does stands in."""
    backbone = load(save(), image_size=32)
    expected, real, sizes = backbone.embed(pixels), backbone._session, []

    def short_of_memory(names, inputs):
        (images,) = inputs.values()
        sizes.append(len(images))
        if len(images) > 8:
            raise RuntimeError("[ONNXRuntimeError] : Failed to allocate memory for requested")
        return real.run(names, inputs)

    backbone._session = SimpleNamespace(run=short_of_memory)
    with pytest.raises(ValueError, match="the network fails"):
        backbone.embed(pixels[:16])
    backbone.device = "cuda"
    embedder = Embedder(backbone, 32)
    assert np.abs(embedder(pixels[:32]) - expected[:32]).max() < 1e-5
    assert embedder.limit == 8
    backbone._session = SimpleNamespace(run=lambda *a: short_of_memory(None, {"": [0] * 9}))
    with pytest.raises(OutOfDeviceMemoryError, match="does not fit into the GPU's memory"):
        backbone.embed(pixels[:1])
