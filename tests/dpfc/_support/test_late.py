"""A fitted linear model needs none of the packages that fitting and the command line need."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import dpfc

NOT_NEEDED = ("torch", "opacus", "pyarrow", "matplotlib", "typer")
PREDICT = """
import json, pathlib, sys
folder, watched, missing = pathlib.Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import numpy as np
import dpfc
dpfc.DPSearchCV  # a search is imported without them too
rows = np.load(folder / "rows.npz")
X, y = rows["X"], rows["y"]
found = {}
for path in folder.glob("*.safetensors"):
    model = dpfc.load_model(path)
    found[path.stem] = {
        "predicted": model.predict(X).tolist(),
        "scores": model.decision_function(X).tolist(),
        "probabilities": model.predict_proba(X).tolist(),
        "score": model.score(X, y.tolist()),
    }
print(json.dumps({"found": found, "imported": [m for m in watched if m in sys.modules]}))
"""
MODELS = {
    "fc": dpfc.DPFCClassifier(epsilon=4.0, classes=range(3), random_state=0),
    "ls": dpfc.DPLeastSquaresClassifier(epsilon=4.0, classes=range(3), random_state=0),
    "newton": dpfc.DPNewtonClassifier(epsilon=4.0, classes=range(3), random_state=0),
    "gradient": dpfc.DPGradientClassifier(epsilon=4.0, classes=range(3), random_state=0),
    "search": dpfc.DPSearchCV(
        dpfc.DPGradientClassifier(n_steps=3, classes=range(3)),
        {"l2_regularization": [0.1, 1.0]},
        epsilon=4.0,
        random_state=0,
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of fitted models and of rows, and what the models say here."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.normal(size=(300, 9))
    X[np.arange(300), y] += 3.0
    folder = tmp_path_factory.mktemp("saved")
    np.savez(folder / "rows.npz", X=X, y=y)
    said = {}
    for name, model in MODELS.items():
        model.fit(X, y)
        getattr(model, "best_estimator_", model).save(folder / f"{name}.safetensors")
        said[name] = {
            "predicted": model.predict(X).tolist(),
            "scores": model.decision_function(X).tolist(),
            "probabilities": model.predict_proba(X).tolist(),
            "score": model.score(X, y),
        }
    return folder, said


@pytest.mark.parametrize("missing", [(), NOT_NEEDED], ids=["all installed", "none installed"])
def test_saved_models_predict_without_what_only_fitting_needs(missing, saved):
    folder, said = saved
    words = [str(folder), " ".join(NOT_NEEDED), " ".join(missing)]
    done = subprocess.run([sys.executable, "-c", PREDICT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["found"] == said
    assert set(answer["imported"]) <= {"pyarrow"}  # by pandas, which scikit-learn imports
