"""`dpfc export`."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc import DPLeastSquaresClassifier

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model's file in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    X, y = np.eye(30, 4), np.arange(30) % 2
    fitted = DPLeastSquaresClassifier(4.0, classes=["no", "yes"]).fit(X, np.array(["no", "yes"])[y])
    fitted.save("model.safetensors")
    return fitted


def test_the_file_opens_and_gives_what_the_model_gives(dpfc, model, tmp_path):
    done = dpfc("export", "model.safetensors", "--onnx", "model.onnx")
    assert (done.code, done.out, done.err) == (0, "model.onnx\n", "")
    X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    label, probabilities = session.run(None, {"features": X})
    assert abs(probabilities - model.predict_proba(X)).max() <= 1e-5
    assert label.tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model.safetensors", "say what to write"),
        ("model.safetensors --onnx model.safetensors", "--onnx must end in .onnx"),
        ("model.safetensors --onnx nowhere/m.onnx", "does not exist"),
        ("absent --onnx m.onnx", "cannot read a model from absent"),
        ("model.safetensors --onnx m.onnx --backbone pixels", "makes 3072 features"),
        ("model.safetensors --onnx m.onnx --backbone onnx:absent.onnx", "there is no file"),
        ("model.safetensors --onnx m.onnx --backbone onnx:m.onnx", "does not overwrite"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(dpfc, model, tmp_path, words, said):
    before = sorted(tmp_path.iterdir())
    done = dpfc("export", *words.split())
    assert done.code == 1 and said in done.err and len(done.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_there_is_kept_without_force_and_an_input_also_with_it(
    dpfc, model, tmp_path
):
    (tmp_path / "model.onnx").write_bytes(b"mine")
    words = ("export", "model.safetensors", "--onnx", "model.onnx")
    assert "--force" in dpfc(*words).err
    as_backbone = dpfc(*words, "--force", "--backbone", "onnx:model.onnx")
    assert as_backbone.code == 1 and "does not overwrite" in as_backbone.err
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"
    assert dpfc(*words, "--force").code == 0
    assert len((tmp_path / "model.onnx").read_bytes()) > 1000
