"""A saved model predicts before scikit-learn is imported, and is its estimator after."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

import dpfc
from dpfc.linear.waiting import plain_head

SLOW = {"torch", "sklearn", "pandas", "pydantic", "dp_accounting", "pyarrow", "matplotlib"}
CLASSES = {
    "fc": (dpfc.DPFCClassifier, {"loss": "sigmoid"}),
    "gd": (dpfc.DPGradientClassifier, {"n_steps": 2}),
    "ls": (dpfc.DPLeastSquaresClassifier, {"normalize": False}),
    "newton": (dpfc.DPNewtonClassifier, {"n_steps": 2}),
}


def save(folder, kind="fc", labels=("no", "yes", "maybe")):
    estimator, own = CLASSES[kind]
    X = np.random.default_rng(0).standard_normal((40, 5))
    y = np.array(labels)[np.arange(40) % len(labels)]
    model = estimator(9.0, classes=sorted(labels), **own).fit(X, y)
    model.save(folder / "m")
    np.save(folder / "X.npy", X)
    return model


def run(folder, code):
    start = "import sys, json, numpy as np\nimport dpfc\nX = np.load('X.npy')\n"
    words = [sys.executable, "-W", "ignore", "-c", start + code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("labels", [("no", "yes"), ("no", "yes", "maybe")])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_prediction_imports_nothing_slow_and_is_the_estimators_to_the_bit(tmp_path, kind, labels):
    model = save(tmp_path, kind, labels)
    code = """
m = dpfc.load_model("m")
label = m.predict(X)
early = {name.partition(".")[0] for name in sys.modules}
np.savez("out.npz", label=label, p=m.predict_proba(X), d=m.decision_function(X),
         narrow=m.predict_proba(X.astype(np.float32)), whole=m.predict(X.round().astype(int)))
late = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([sorted(early), sorted(late)]))
"""
    early, late = map(set, json.loads(run(tmp_path, code)))
    assert not early & {*SLOW, "scipy"} and not late & SLOW and "numpy" in early
    X, out = np.load(tmp_path / "X.npy"), np.load(tmp_path / "out.npz")
    assert np.array_equal(out["label"], model.predict(X))
    assert np.array_equal(out["p"], model.predict_proba(X))
    assert np.array_equal(out["d"], model.decision_function(X))
    assert np.array_equal(out["narrow"], model.predict_proba(X.astype(np.float32)))
    assert np.array_equal(out["whole"], model.predict(X.round().astype(int)))


USES = {
    "isinstance": "assert isinstance(m, dpfc.DPFCClassifier)",
    "privacy": "assert m.privacy_.target_epsilon == 9.0 and type(m) is dpfc.DPFCClassifier",
    "coef": "assert m.coef_.shape == (3, 5)",
    "get_params": "assert m.get_params()['epsilon'] == 9.0",
    "set": "m.note = 1; assert m.note == 1 and type(m) is dpfc.DPFCClassifier",
    "del": "del m.coef_; assert not hasattr(m, 'coef_')",
    "repr": "assert repr(m).startswith('DPFCClassifier(')",
    "dir": "assert 'privacy_plan' in dir(m)",
    "list": "assert m.predict(X.tolist()).shape == (40,) and type(m) is dpfc.DPFCClassifier",
    "pickle": "import pickle\nassert (pickle.loads(pickle.dumps(m)).predict(X) == label).all()",
    "copy": "import copy\nassert (copy.deepcopy(m).predict(X) == label).all()",
    "clone": "import sklearn.base\nassert not hasattr(sklearn.base.clone(m), 'coef_')",
    "score": "assert m.score(X, label) == 1.0",
    "save": "m.save('again'); assert open('again', 'rb').read() == open('m', 'rb').read()",
}


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(use, marks=[] if use in ("isinstance", "pickle") else pytest.mark.slow)
        for use in USES
    ],
)
def test_asked_for_more_it_is_the_estimator(tmp_path, use):
    save(tmp_path)
    after = "assert (m.predict(X) == label).all()" if use != "del" else ""
    code = f"m = dpfc.load_model('m')\nlabel = m.predict(X)\n{USES[use]}\n{after}\nprint('done')"
    assert run(tmp_path, code) == "done\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", ["X[:, :3]", "X[:0]", "X[0]", "np.where(X > 2, np.nan, X)", "X.astype(str)"]
)
def test_rows_that_the_estimator_refuses_are_refused_in_its_words(tmp_path, rows):
    model = save(tmp_path)
    X = np.load(tmp_path / "X.npy")
    with pytest.raises((ValueError, TypeError)) as refused:
        model.predict(eval(rows, {"X": X, "np": np}))
    code = f"try: dpfc.load_model('m').predict({rows})\nexcept Exception as e: print(e, end='')"
    assert run(tmp_path, code) == str(refused.value)


def test_a_statement_that_is_wrong_is_refused_when_it_is_read(tmp_path):
    save(tmp_path)
    content = (tmp_path / "m").read_bytes()
    wrong = content.replace(b'target_epsilon\\": 9.0', b'target_epsilon\\": 1.0')
    assert wrong != content
    (tmp_path / "m").write_bytes(wrong)
    code = """
m = dpfc.load_model("m")
assert len(m.predict(X)) == 40
try: m.privacy_
except dpfc.ModelFileError as error: print("damaged" in str(error))
"""
    assert run(tmp_path, code) == "True\n"


def parts(folder):
    with safe_open(folder / "m", framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


CHANGES = {
    "other tensors": lambda header, tensors: tensors.update(offset=np.zeros(1)),
    "no weights": lambda header, tensors: tensors.pop("coef"),
    "NaN": lambda header, tensors: tensors["coef"].__setitem__((0, 0), np.nan),
    "float32": lambda header, tensors: tensors.update(coef=tensors["coef"].astype(np.float32)),
    "fewer outputs": lambda header, tensors: tensors.update(coef=tensors["coef"][:2]),
    "intercept": lambda header, tensors: tensors.update(intercept=np.zeros(2)),
    "center": lambda header, tensors: tensors.update(center=np.zeros(2)),
    "scale": lambda header, tensors: tensors.update(scale=np.zeros((2, 5))),
    "linear": lambda header, tensors: tensors.update(linear_map=np.full((5, 5), 0.7)),
    "lengths": lambda header, tensors: tensors.pop("length_coef"),
    "classes": lambda header, tensors: header.update(classes='["b", "a", "c"]'),
    "statement": lambda header, tensors: header.update(privacy="[]"),
    "loss": lambda header, tensors: header.update(parameters="{}"),
    "names": lambda header, tensors: header.update(feature_names='["a"]'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_with_anything_unusual_is_left_to_the_estimator(tmp_path, change):
    save(tmp_path)
    header, tensors = parts(tmp_path)
    assert plain_head(header, tensors) is not None
    CHANGES[change](header, tensors)
    assert plain_head(header, tensors) is None
