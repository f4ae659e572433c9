"""One run of a sweep, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.files import error_words
from dpfc.experiments.studies.runs import CEILING, Rows, RunSpec

if TYPE_CHECKING:
    from dpfc.experiments.studies.data import Data

__all__ = ["failed_record", "run_head", "run_one", "start_worker"]

_PARENT_CHECK_SECONDS = 1.0
_WARM_ROWS, _WARM_WIDTH = 64, 8
_CEILING_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def start_worker(threads: int) -> None:
    """Prepare a worker process: few threads, no Ctrl-C of its own, no life without its parent."""
    # Ctrl-C reaches every process of a terminal; the parent decides what becomes of the runs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    use_threads(threads)


def use_threads(threads: int) -> None:
    """Limit this process; digits of a result depend on how products are split as well."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _die_with(parent: int) -> None:
    """A parent that was killed cannot tell its workers."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


def run_one(study: str, spec: RunSpec) -> dict[str, Any]:
    """Fit, measure, and give the record of a run; what goes wrong is in the record."""
    record = run_head(study, spec)
    try:
        data, names = _load(spec.rows)
        with warnings.catch_warnings():  # the record says that a seeded run is not private
            warnings.simplefilter("ignore")
            measured = (_ceiling if spec.method == CEILING else _fit)(spec, data)
        record |= measured | {"status": "ok", "error": None, "class_names": names}
        record |= {"n_features": data.X.shape[1], "n_classes": data.n_classes}
    except Exception as error:
        record |= {"status": "failed", "error": _words(error)}
    return record


def failed_record(study: str, spec: RunSpec, error: str) -> dict[str, Any]:
    """Record of a run that could not say itself what went wrong."""
    return run_head(study, spec) | {"status": "failed", "error": error}


def run_head(study: str, spec: RunSpec) -> dict[str, Any]:
    """What a run's record says of the run, and not of what it found."""
    return {
        "key": spec.key,
        "study": study,
        "dataset": spec.rows.dataset,
        "backbone": spec.rows.backbone,
        "method": spec.method,
        "label": spec.label,
        "epsilon": spec.epsilon,
        "delta": spec.delta,
        "seed": spec.seed,
        "parameters": dict(spec.parameters),
        "code": spec.code,
        "versions": dict(spec.versions),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _words(error: Exception) -> str:
    # The text of an error that nobody foresaw may hold anything, a private value as well.
    if isinstance(error, ValueError | OSError | ImportError | RuntimeError) and str(error):
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        return f"{where}{error_words(error)}."
    return f"internal error ({type(error).__name__})"


@lru_cache(maxsize=2)
def _load(rows: Rows) -> tuple[Data, list[str]]:
    """Rows of a data set, and what its classes are called."""
    from dpfc.experiments.studies.data import load
    from dpfc.experiments.studies.named_data import load_named
    from dpfc.features import FeatureCache

    if rows.builtin is not None:
        data = load_named([rows.builtin])[0].data
        names = [str(code) for code in range(data.n_classes)]
    else:
        train, test = Path(str(rows.train)), Path(str(rows.test))
        data, names = load(train, test), list(FeatureCache.open(train).class_names or ())
    return _first_rows(data, rows.rows_per_class), names


def _first_rows(data: Data, per_class: int | None) -> Data:
    """Cut the training rows down to so many of each class."""
    import numpy as np

    if per_class is None:
        return data
    places = [np.flatnonzero(data.y == code)[:per_class] for code in range(data.n_classes)]
    kept = np.sort(np.concatenate(places))
    groups = None if data.groups is None else data.groups[kept]
    return data._replace(X=data.X[kept], y=data.y[kept], groups=groups)


def _fit(spec: RunSpec, data: Data) -> dict[str, Any]:
    from dpfc.experiments.estimators import make_study_estimator

    data = _scaled(spec, data)
    module = spec.parameters.get("module")
    _warm_up(spec.method, module if isinstance(module, str) else None, data.X.shape[1])
    model = make_study_estimator(
        spec.method,
        epsilon=spec.epsilon,
        delta=spec.delta,
        classes=range(data.n_classes),
        random_state=spec.seed,
        **spec.parameters,
    )
    began = time.perf_counter()
    model.fit(data.X, data.y, groups=data.groups)
    seconds = time.perf_counter() - began
    return _measured(data, model.predict(data.X_test), seconds) | {
        "private": model.privacy_.private,
        "statement": model.privacy_.model_dump(mode="json"),
    }


@lru_cache(maxsize=32)
def _warm_up(method: str, module: str | None, width: int) -> None:
    """Fit made-up rows once a process, so that no run's time has the loading of libraries in it."""
    import numpy as np

    from dpfc.experiments.estimators import NETWORK_METHOD, make_study_estimator

    settings: dict[str, Any] = {"n_steps": 1} if method == NETWORK_METHOD else {}
    if module is not None:
        settings["module"] = module
    # A network's layers depend on the width; a last layer of few features is fitted at once.
    shape = (_WARM_ROWS, width if method == NETWORK_METHOD else _WARM_WIDTH)
    X = np.random.default_rng(0).random(shape, dtype=np.float32)
    y = np.arange(_WARM_ROWS) % 2
    # What these rows do not fit shows in the run itself, where it is recorded.
    with contextlib.suppress(ValueError, RuntimeError, ImportError):
        model = make_study_estimator(
            method, epsilon=1.0, delta=1e-5, classes=range(2), random_state=0, **settings
        )
        model.fit(X, y)
        model.predict(X)


def _scaled(spec: RunSpec, data: Data) -> Data:
    """Bring packaged pixels into [0, 1] for networks; last layers bound their rows themselves."""
    from dpfc.experiments.estimators import NETWORK_METHOD
    from dpfc.experiments.studies.named_data import LARGEST_PIXELS

    largest = LARGEST_PIXELS.get(spec.rows.builtin or "")
    if spec.method != NETWORK_METHOD or largest is None:
        return data
    return data._replace(X=data.X / largest, X_test=data.X_test / largest)


def _ceiling(spec: RunSpec, data: Data) -> dict[str, Any]:
    """Logistic regression without privacy, the best of several strengths on the test rows."""
    from dpfc.experiments.ceiling import logistic_ceiling

    began = time.perf_counter()
    _, accuracy = logistic_ceiling(data.X, data.y, data.X_test, data.y_test, _CEILING_STRENGTHS)
    seconds = time.perf_counter() - began
    return {"accuracy": accuracy, "seconds": seconds, "private": False, "statement": None}


def _measured(data: Data, predicted: Any, seconds: float) -> dict[str, Any]:
    import numpy as np
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(data.y_test, predicted, labels=range(data.n_classes))
    totals = np.maximum(counts.sum(axis=1), 1)
    return {
        "accuracy": float(np.trace(counts) / max(counts.sum(), 1)),
        "per_class_accuracy": (np.diag(counts) / totals).tolist(),
        "confusion": counts.tolist(),
        "seconds": seconds,
    }
