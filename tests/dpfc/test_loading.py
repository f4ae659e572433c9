from __future__ import annotations

import errno
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    ModelFileError,
    load_model,
)

LABELS = {
    "ints": [0, 1, 2],
    "negative ints": [-7, 0, 40],
    "strings": ["cat", "dog", "owl"],
    "floats": [-2.0, 0.0, 3.0],
}


def fitted(data, estimator_class=DPFCClassifier, **options):
    X, y = data
    return estimator_class(**{"classes": range(3), "epsilon": 2.0, **options}).fit(X, y)


@pytest.fixture(scope="module")
def model(three_classes):
    return fitted(three_classes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def parts(path):
    """Header and tensors of a model file."""
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write(path, header, tensors):
    path.write_bytes(save(tensors, metadata=header))


@pytest.mark.parametrize("epsilon", [2.0, math.inf])
def test_a_model_survives_a_file(three_classes, estimator_class, epsilon, path):
    X, _ = three_classes
    model = fitted(three_classes, estimator_class, epsilon=epsilon, delta=1e-6)
    model.save(path)
    loaded = load_model(path)
    assert type(loaded) is estimator_class
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    assert loaded.privacy_ == model.privacy_
    assert loaded.privacy_.to_json() == model.privacy_.to_json()
    assert loaded.n_features_in_ == model.n_features_in_
    before = {k: v for k, v in model.get_params().items() if k != "classes"}
    after = {k: v for k, v in loaded.get_params().items() if k != "classes"}
    assert after == before
    assert list(loaded.classes) == list(model.classes_)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_of_every_kind_survive_a_file(three_classes, labels, n_classes, path):
    X, y = three_classes
    labels = np.array(labels[:n_classes])
    kept = y < n_classes
    model = DPFCClassifier(classes=list(labels)).fit(X[kept], labels[y[kept]])
    model.save(path)
    loaded = load_model(path)
    assert loaded.classes_.tolist() == model.classes_.tolist()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_boolean_classes_survive_a_file(two_classes, path):
    X, y = two_classes
    model = DPFCClassifier(classes=[False, True]).fit(X, y == 1)
    model.save(path)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))


def test_string_labels_of_an_object_array_survive_a_file(three_classes, path):
    X, y = three_classes
    names = np.array(["cat", "dog", "owl"], dtype=object)[y]
    with pytest.warns(UserWarning, match="private labels"):
        model = DPFCClassifier().fit(X, names)
    model.save(path)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))


@pytest.mark.parametrize("options", [{"center": False}, {"fit_intercept": False},
                                     {"normalize": False}, {"n_samples": np.int64(90)},
                                     {"l2_clip_norm": np.float64(2.0)}])  # fmt: skip
def test_options_survive_a_file(three_classes, options, path):
    X, _ = three_classes
    model = fitted(three_classes, **options)
    model.save(path)
    loaded = load_model(path)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for name, value in options.items():
        assert getattr(loaded, name) == value


@pytest.mark.filterwarnings("ignore:random_state was given")
def test_a_file_does_not_keep_a_live_generator(three_classes, path):
    model = fitted(three_classes, random_state=np.random.default_rng(0))
    model.save(path)
    loaded = load_model(path)
    assert loaded.random_state is None
    assert not loaded.privacy_.private


def test_feature_names_survive_a_file(three_classes, path):
    pd = pytest.importorskip("pandas")
    X, y = three_classes
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)])
    model = DPFCClassifier(classes=range(3)).fit(frame, y)
    model.save(path)
    assert load_model(path).feature_names_in_.tolist() == list(frame.columns)


def test_a_loaded_model_can_be_saved_and_fitted_again(three_classes, model, path):
    model.save(path)
    loaded = load_model(path)
    loaded.save(path)
    loaded = load_model(path)
    assert loaded.fit(*three_classes).privacy_.private


def test_an_unfitted_model_is_not_saved(path):
    with pytest.raises(ValueError, match="not fitted"):
        DPFCClassifier().save(path)
    assert not path.exists()


def test_a_file_holds_weights_classes_parameters_and_statement_only(model, path):
    model.save(path)
    header, tensors = parts(path)
    assert set(tensors) == {"coef", "intercept", "center", "length_coef"}
    assert set(header) == {"format", "estimator", "parameters", "classes", "privacy"}
    assert json.loads(header["privacy"])["private"] is True


# -- files that are refused ----------------------------------------------------------


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read a model from"):
            load_model(path)


def test_what_is_no_regular_file_is_refused_in_a_sentence(tmp_path):
    fifo, folder, absent = (tmp_path / name for name in ("fifo", "folder", "absent"))
    os.mkfifo(fifo)
    folder.mkdir()
    words = {fifo: "it is a named pipe", folder: "Is a directory", absent: "No such file"}
    for path, reason in words.items():
        with pytest.raises(ModelFileError) as caught:
            load_model(path)
        text = str(caught.value)
        assert text.startswith(f"cannot read a model from {path}: {reason}") and text.endswith(".")
        assert "Errno" not in text and text.count(str(path)) == 1


GARBAGE = {
    "empty": b"",
    "text": b"hello, this is no model",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "huge header": (2**60).to_bytes(8, "little") + b"{}",
    "broken json": (5).to_bytes(8, "little") + b"{{{{{",
    "zip": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(data, path):
    path.write_bytes(data)
    with pytest.raises(ModelFileError):
        load_model(path)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_pickle_is_refused_and_runs_no_code(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_every_truncation_is_refused(model, path):
    model.save(path)
    whole = path.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            load_model(path)


def test_a_foreign_safetensors_file_is_refused(path):
    path.write_bytes(save({"weight": np.zeros((2, 2))}))
    with pytest.raises(ModelFileError, match="not a model file of dpfc"):
        load_model(path)


HEADERS = {
    "another format": {"format": "dpfc-model-999"},
    "no format": {"format": None},
    "unknown estimator": {"estimator": "Bomb"},
    "an estimator by path": {"estimator": "os.system"},
    "no parameters": {"parameters": None},
    "parameters no json": {"parameters": "{"},
    "parameters no mapping": {"parameters": "[1]"},
    "unknown parameter": {"parameters": '{"evil": 1}'},
    "parameter out of range": {"parameters": '{"epsilon": -1.0}'},
    "parameter nan": {"parameters": '{"epsilon": NaN}'},
    "deeply nested json": {"parameters": "[" * 200_000},
    "no classes": {"classes": None},
    "one class": {"classes": "[0]"},
    "four classes": {"classes": "[0, 1, 2, 3]"},
    "classes no list": {"classes": "3"},
    "classes of lists": {"classes": "[[0], [1], [2]]"},
    "repeated classes": {"classes": "[0, 0, 1]"},
    "no statement": {"privacy": None},
    "statement no json": {"privacy": "private"},
    "statement of nothing": {"privacy": "{}"},
    "feature names too many": {"feature_names": '["a", "b"]'},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_is_refused(model, path, change):
    model.save(path)
    header, tensors = parts(path)
    header = {k: v for k, v in {**header, **change}.items() if v is not None}
    write(path, header, tensors)
    with pytest.raises(ModelFileError):
        load_model(path)


TENSORS = {
    "no coef": ("coef", lambda v: None),
    "no intercept": ("intercept", lambda v: None),
    "coef too narrow": ("coef", lambda v: v[:, :-1]),
    "coef too short": ("coef", lambda v: v[:2]),
    "coef flat": ("coef", lambda v: v.ravel()),
    "coef a number": ("coef", lambda v: np.array(1.0)),
    "coef with a third axis": ("coef", lambda v: v[:, :, None]),
    "coef NaN": ("coef", lambda v: v * np.nan),
    "coef infinite": ("coef", lambda v: v / 0.0),
    "coef of ints": ("coef", lambda v: v.astype(np.int64)),
    "coef of float32": ("coef", lambda v: v.astype(np.float32)),
    "intercept too long": ("intercept", lambda v: np.r_[v, 0.0]),
    "intercept a number": ("intercept", lambda v: np.array(0.0)),
    "center too long": ("center", lambda v: np.r_[v, 0.0]),
    "center NaN": ("center", lambda v: v * np.nan),
    "center empty": ("center", lambda v: v[:0]),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name, change", TENSORS.values(), ids=TENSORS)
def test_damaged_weights_are_refused_or_do_no_harm(model, path, name, change, three_classes):
    model.save(path)
    header, tensors = parts(path)
    tensors[name] = change(tensors[name])
    write(path, header, {k: np.ascontiguousarray(v) for k, v in tensors.items() if v is not None})
    try:
        loaded = load_model(path)
    except ModelFileError:
        return
    # A file of another float type may be accepted, if it then predicts.
    assert tensors[name].dtype != np.float64
    assert np.isfinite(loaded.predict_proba(three_classes[0])).all()


# -- files of before -----------------------------------------------------------------

FILES = Path(__file__).parent / "files"
NEW_ROWS = [
    [1.0, -2.0, 0.5, 3.0],
    [0.0, 0.0, 0.0, 0.0],
    [1e3, 1e-3, -7.0, 0.25],
    [-1.0, 2.0, 2.0, -0.125],
]
# What the version that wrote a file made of these rows.
SCORES_BEFORE = {
    "model-2": [
        [0.6653519622390504, -0.8940470123046746, 0.22869505006562446],
        [1.0314210728318907, -0.24297418399066006, -0.7884468888412303],
        [2.192650160718889, -0.8173581580724749, -1.3752920026464142],
        [-3.3268385298189074, 0.953161666119379, 2.373676863699528],
    ],
    "network-1": [
        [6.513622283935547, -5.035853385925293, 1.7030924558639526],
        [-0.060500189661979675, -1.3962645530700684, 0.33675968647003174],
        [1587.9237060546875, -1075.746337890625, -1823.943115234375],
        [-9.67162799835205, -0.21492362022399902, 0.8121839761734009],
    ],
}


@pytest.mark.parametrize("name", SCORES_BEFORE)
def test_a_model_of_before_is_read_with_its_statement_and_predicts_the_same(name, tmp_path):
    model = load_model(FILES / f"{name}.safetensors")
    rows = np.array(NEW_ROWS, dtype=np.float32 if name == "network-1" else np.float64)
    scores = model.decision_function(rows)
    np.testing.assert_allclose(scores, SCORES_BEFORE[name], rtol=1e-5, atol=1e-5)
    assert model.privacy_.schema_version == "1"
    model.privacy_.verify()
    model.save(tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again.decision_function(rows), scores)
    assert again.privacy_.to_json() == model.privacy_.to_json()


# -- writing -------------------------------------------------------------------------


OLD = save({"coef": np.zeros(1)}, metadata={"format": "dpfc-model-1"})


@pytest.mark.parametrize("existing", [None, OLD], ids=["None", "the old model"])
def test_a_full_disk_leaves_nothing_half_written(model, tmp_path, monkeypatch, existing):
    path = tmp_path / "model.safetensors"
    if existing is not None:
        path.write_bytes(existing)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ([] if existing is None else [path.name])
    if existing is not None:
        assert path.read_bytes() == existing


def test_a_missing_folder_is_an_error_that_names_the_path(model, tmp_path):
    with pytest.raises(ModelFileError, match=r"cannot write the model to .*nowhere"):
        model.save(tmp_path / "nowhere" / "model.safetensors")


def test_saving_replaces_the_old_file_and_leaves_no_other(model, path):
    path.write_bytes(OLD)
    model.save(path)
    load_model(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_only_the_four_estimators_can_be_named():
    from dpfc.loading import _MODULES

    known = (DPFCClassifier, DPGradientClassifier, DPLeastSquaresClassifier, DPNewtonClassifier)
    assert set(_MODULES) == {estimator.__name__ for estimator in known}


@pytest.mark.parametrize("network", [False, True])
def test_a_model_replaces_a_model_and_no_other_file(tmp_path, network, two_classes):
    from dpfc import DPSGDClassifier

    make = DPSGDClassifier if network else DPLeastSquaresClassifier
    options = {"module": "linear", "n_steps": 1} if network else {}
    model = make(classes=[0, 1], **options).fit(*two_classes)
    path = tmp_path / "m.safetensors"
    for content in (b"x", b"my thesis, all of it", bytes(100), b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="no model file of dpfc"):
            model.save(path)
        assert path.read_bytes() == content
    path.write_bytes(save({"w": np.zeros(2)}, metadata={"format": "pt"}))
    with pytest.raises(ModelFileError, match="no model file of dpfc"):
        model.save(path)
    path.write_bytes(b"")
    for _ in range(2):
        model.save(path)
        assert load_model(path).classes_.tolist() == [0, 1]
