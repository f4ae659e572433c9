"""Seconds from a new process to a prediction of a saved model.

python -m dpfc.experiments.benchmarks.cold_start
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from sklearn.datasets import load_digits

from dpfc import DPFCClassifier

_RUNS = 9
_LOAD = "import numpy as np; X = np.zeros((1, 64)); import dpfc; m = dpfc.load_model('m')"
_PROGRAMS = {
    "Python alone": "pass",
    "NumPy alone": "import numpy",
    "predict": f"{_LOAD}; m.predict(X)",
    "predict_proba": f"{_LOAD}; m.predict_proba(X)",
    "the whole estimator": f"{_LOAD}; m.predict(X); m.coef_",
}


def main() -> None:
    """Print the median of each program's wall-clock seconds."""
    X, y = load_digits(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder:
        DPFCClassifier(1.0, classes=range(10)).fit(X, y).save(Path(folder, "m"))
        for name, program in _PROGRAMS.items():
            seconds = [_seconds(program, folder) for _ in range(_RUNS)]
            print(f"{name:20}  {median(seconds):.2f} s  (least {min(seconds):.2f} s)")


def _seconds(program: str, folder: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
