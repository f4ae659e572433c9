"""Tables with what is public of their columns: a generated one, and ones that packages ship."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpfc.experiments.benchmarks.common import packaged_table
from dpfc.experiments.studies.data import Data
from dpfc.features import TableEncoder

__all__ = ["TABLES", "Table", "as_it_comes", "encoded"]

_SEED = 20230  # of splits and of the generated table
_ADULT_ROWS = 13_500  # two thirds are trained on


class Table(NamedTuple):
    """Columns of equal length, codes of their rows' classes, and the schema's columns."""

    columns: dict[str, NDArray[Any]]
    labels: NDArray[np.int64]
    schema: dict[str, dict[str, Any]]


def encoded(table: Table, knots: int | None = None) -> Data:
    """Features by the schema; every third row of a shuffled order is a test row.

    Parameters
    ----------
    table : Table
    knots : int or None
        Of every number; None takes the schema's own default.
    """
    schema = {"columns": table.schema} | ({} if knots is None else {"knots": knots})
    return _split(TableEncoder(schema).fit().transform(table.columns), table.labels)


def as_it_comes(table: Table) -> Data:
    """The numbers of a table without gaps, in their units; split in the same way."""
    return _split(np.column_stack(list(table.columns.values())), table.labels)


def _split(X: NDArray[Any], labels: NDArray[np.int64]) -> Data:
    order = np.random.default_rng(_SEED).permutation(len(X))
    X, y = X[order].astype(np.float32), labels[order].astype(np.int32)
    test = np.arange(len(y)) % 3 == 2
    return Data(X[~test], y[~test], X[test], y[test], int(y.max()) + 1)


def _number(low: float, high: float, **others: Any) -> dict[str, Any]:
    return {"type": "number", "min": low, "max": high} | others


def _category(*values: str, **others: Any) -> dict[str, Any]:
    return {"type": "category", "values": list(values)} | others


def _measured(load: Callable[[], Any]) -> Table:
    """One of scikit-learn's tables, with the ranges that its own description publishes."""
    bunch = load()
    line = re.compile(r"^[A-Za-z0-9/ ()]+?:? +([\d.]+) +([\d.]+)(?: +[\d.]+ +[\d.]+)?$", re.M)
    ranges = [(float(low), float(high)) for low, high in line.findall(bunch.DESCR)]
    names = [str(name) for name in bunch.feature_names]
    columns = {name: bunch.data[:, i] for i, name in enumerate(names)}
    schema = {name: _number(*ends) for name, ends in zip(names, ranges, strict=True)}
    return Table(columns, bunch.target, schema)


def _wine() -> Table:
    from sklearn.datasets import load_wine

    return _measured(load_wine)


def _breast_cancer() -> Table:
    from sklearn.datasets import load_breast_cancer

    return _measured(load_breast_cancer)


def _of_frame(frame: Any, labels: NDArray[Any], schema: dict[str, dict[str, Any]]) -> Table:
    columns = {name: frame[name].to_numpy(dtype=object) for name in schema}
    return Table(columns, np.unique(labels, return_inverse=True)[1], schema)


def _titanic() -> Table:
    frame = packaged_table("carData", "TitanicSurvival")
    schema = {
        "sex": _category("male", "female"),
        "age": _number(0, 80, unit="years", missing="indicator"),
        "passengerClass": _category("1st", "2nd", "3rd", unlisted="refuse"),
    }
    return _of_frame(frame, frame["survived"], schema)


def _penguins() -> Table:
    frame = packaged_table("palmerpenguins", "penguins")
    schema = {
        "bill_length_mm": _number(30, 60, missing="indicator"),
        "bill_depth_mm": _number(10, 25, missing="indicator"),
        "flipper_length_mm": _number(150, 250, missing="indicator"),
        "body_mass_g": _number(2500, 6500, missing="indicator"),
        "sex": _category("male", "female", missing="indicator"),
    }
    return _of_frame(frame, frame["species"], schema)


# -- generated -----------------------------------------------------------------------

_TRADES = [f"trade {i}" for i in range(14)]
_EMPLOYERS = [f"employer {i}" for i in range(8)]
_COUNTRIES = [f"country {i}" for i in range(20)]
_STATES = ["married", "single", "divorced", "widowed", "apart"]


def _adult_like() -> Table:
    """A census: numbers of all kinds, categories of 2 to 20 values, 2 to 6% missing in some.

    Incomes above a line follow a logistic law of schooling, age (that levels off), hours, family,
    trade and gains, as those of the UCI data set "Adult" do; a quarter of the rows are above.
    """
    rng, n = np.random.default_rng(_SEED), _ADULT_ROWS
    ability = rng.normal(size=n)
    age = np.clip(np.round(17 + rng.gamma(3.0, 7.2, size=n)), 17, 90)
    schooling = np.clip(np.round(10 + 1.9 * ability + 1.7 * rng.normal(size=n)), 1, 16)
    hours = np.clip(np.round(40 + 8 * rng.standard_t(4, size=n)), 1, 99)
    gain = (rng.random(n) < 0.08) * np.exp(rng.normal(8.3 + 0.3 * ability, 1.0)).round()
    married = rng.random(n) < 1 / (1 + np.exp((32 - age) / 7))
    state = np.where(married, 0, rng.choice([1, 2, 3, 4], n, p=[0.6, 0.25, 0.07, 0.08]))
    trade = np.clip(np.round(0.8 * schooling + 2.0 * rng.normal(size=n)), 0, 13).astype(int)
    employer = rng.choice(8, n, p=[0.7, 0.08, 0.06, 0.05, 0.04, 0.04, 0.02, 0.01])
    country = rng.choice(20, n, p=[0.905] + [0.005] * 19)
    logits = 0.5 * (schooling - 10) + 0.05 * np.minimum(age - 38, 14) + 0.05 * (hours - 40)
    logits += 2.8 * married + 0.8 * np.sin(1.7 * trade) + 0.001 * np.minimum(gain, 8000) - 4.1
    labels = (rng.random(n) < 1 / (1 + np.exp(-1.2 * logits))).astype(np.int64)

    def holed(values: NDArray[Any], share: float) -> NDArray[Any]:
        found = values.astype(object)
        found[rng.random(n) < share] = None
        return found

    columns = {
        "age": holed(age, 0.02),
        "schooling": schooling,
        "hours": holed(hours, 0.03),
        "gain": gain,
        "family": np.array(_STATES)[state],
        "trade": holed(np.array(_TRADES)[trade], 0.06),
        "employer": holed(np.array(_EMPLOYERS)[employer], 0.06),
        "country": holed(np.array(_COUNTRIES)[country], 0.02),
        "sex": np.where(rng.random(n) < 0.5, "f", "m"),
    }
    schema = {
        "age": _number(17, 90, unit="years", missing="indicator"),
        "schooling": _number(1, 16, unit="years"),
        "hours": _number(0, 100, unit="a week", missing="indicator"),
        "gain": _number(0, 100_000, unit="dollars", scale="log"),
        "family": _category(*_STATES, unlisted="refuse"),
        "trade": _category(*_TRADES, missing="indicator"),
        "employer": _category(*_EMPLOYERS, missing="indicator"),
        "country": _category(*_COUNTRIES, missing="indicator"),
        "sex": _category("f", "m", unlisted="refuse"),
    }
    return Table(columns, labels, schema)


TABLES: dict[str, Callable[[], Table]] = {
    "adult-like": _adult_like,
    "wine": _wine,
    "breast-cancer": _breast_cancer,
    "titanic": _titanic,
    "penguins": _penguins,
}
