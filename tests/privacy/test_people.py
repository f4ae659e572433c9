"""Neighbours that differ in a person with all of his rows, for every sum, and for every learner."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mechanisms import RELATIONS, Transcript, length, random_rows, squared_moves, weights_of

import dpfc
from dpfc.evaluation.counts import ConfusionCounts, HitCounts, ScoreHistogram
from dpfc.mechanism.bounded_sums import BoundedRows
from dpfc.mechanism.class_scores import ClassScores
from dpfc.mechanism.column_histograms import ColumnHistograms
from dpfc.mechanism.losses import LOSSES
from dpfc.mechanism.people import MOST_ROWS, WHOLE, Members, Shares, drawn_rows
from dpfc.mechanism.queries import (
    ClassCounts,
    ClassGrams,
    ClassSums,
    Count,
    FeatureSum,
    GradientSum,
    Gram,
    HessianSum,
)
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import ArrayRows

N_CLASSES, N_FEATURES = 4, 41
MAPS = {
    "normalized": RowMap(intercept_scaling=0.1, nonnegative_root=True, length_scaling=0.2),
    "clipped, in two digits": RowMap(2.5, False, intercept_scaling=0.5),
    "as they are": RowMap(1.0),
}


def queries(n_columns):
    yield from (Count(), ClassCounts(), FeatureSum(), ClassSums(), Gram(), ClassGrams())
    yield ColumnHistograms(N_FEATURES)
    for loss in ("softmax", "sigmoid"):
        for clip, scale in ((1e-3, 3.0), (0.5, 0.0), (math.inf, 1e3)):
            yield GradientSum(weights_of(n_columns, scale), LOSSES[loss], clip)
    for scale in (0.0, 100.0):
        yield HessianSum(weights_of(n_columns, scale))
        yield ClassScores(weights_of(n_columns, scale)[:1], scale * np.linspace(-0.5, 0.5, 5))


N_QUERIES = len(list(queries(44)))


def people(rng):
    """Rows and labels of persons of all kinds: (rows, codes) each."""
    one, other = rng.normal(size=(2, N_FEATURES))
    for size in (1, 2, 5, 31):
        same = np.repeat(one[None], size, axis=0)
        for rows in (
            same,  # all alike: their parts add up in full
            same * np.where(np.arange(size) % 2, -1.0, 1.0)[:, None],  # and cancel out
            np.eye(N_FEATURES)[:size] * 3.0,  # at right angles
            same + 1e-3 * rng.normal(size=same.shape),
            random_rows(rng, size),
            np.concatenate([same, other[None] * 1e9, np.zeros((1, N_FEATURES))]),
        ):
            yield rows, np.zeros(len(rows), dtype=np.int64)
            yield rows, rng.integers(N_CLASSES, size=len(rows))
            yield rows, np.arange(len(rows)) % N_CLASSES


def total(query, row_map, persons, row_weights=None):
    """The sum over a data set of persons, whose rows lie anywhere, as the engine has it."""
    rows = np.concatenate([rows for rows, _ in persons])
    codes = np.concatenate([codes for _, codes in persons])
    units = np.repeat(np.arange(len(persons)), [len(codes) for _, codes in persons])
    own = None if row_weights is None else np.concatenate(row_weights)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    # A person's rows keep their order among themselves.
    for unit in range(len(persons)):
        order[np.isin(order, np.flatnonzero(units == unit))] = np.flatnonzero(units == unit)
    shares = Shares(units[order], len(persons), None if own is None else own[order])
    source = ArrayRows(rows[order], codes[order])
    bounded = BoundedRows(source, row_map, N_CLASSES, shares=shares)
    return bounded.sum(query).numpy()


FAST = ("normalized", False)


@pytest.mark.parametrize(
    "row_map, weighed",
    [
        pytest.param(
            row_map,
            weighed,
            id=f"{name}{', weighed' * weighed}",
            marks=[pytest.mark.slow] * ((name, weighed) != FAST),
        )
        for name, row_map in MAPS.items()
        for weighed in (False, True)
    ],
)
@pytest.mark.parametrize("index", range(N_QUERIES))
def test_a_person_moves_a_sum_by_his_own_part_and_no_more_than_is_stated(index, row_map, weighed):
    rng = np.random.default_rng(index)
    query = list(queries(row_map.n_columns(N_FEATURES)))[index]
    grid = query.grid(row_map, N_FEATURES)
    added, replaced = (query.l2_sensitivity(grid, r, weighed=True) for r in RELATIONS)
    parts = []
    crowd = list(people(rng))
    for person in crowd:
        own = None
        if weighed:
            own = [rng.integers(WHOLE + 1, size=len(p[1])) for p in (*crowd[:3], person)]
        before = total(query, row_map, crowd[:3], None if own is None else own[:3])
        part = total(query, row_map, [*crowd[:3], person], own) - before
        alone = total(query, row_map, [person], None if own is None else own[3:])
        assert np.array_equal(part, alone)
        assert length(part) <= added
        parts.append(part)
    order = rng.permutation(len(parts))
    for i, j in enumerate(order):
        assert length(parts[i] - parts[j]) <= replaced


@pytest.mark.parametrize("index", range(N_QUERIES))
def test_a_person_of_one_row_counts_as_a_row_does_without_persons(index):
    row_map = MAPS["normalized"]
    query = list(queries(row_map.n_columns(N_FEATURES)))[index]
    rng = np.random.default_rng(index)
    rows, codes = random_rows(rng, 20), rng.integers(N_CLASSES, size=20)
    plain = BoundedRows(ArrayRows(rows, codes), row_map, N_CLASSES).sum(query).numpy()
    single = total(query, row_map, [(rows[i : i + 1], codes[i : i + 1]) for i in range(20)])
    assert np.array_equal(single, plain * query.whole)


def test_a_person_whose_rows_are_alike_reaches_the_bound_and_one_at_right_angles_gets_more():
    """Three rows alike have a third of a vote each; at right angles 1/√3 each."""
    query, row_map = ClassSums(), RowMap(1.0)
    grid = query.grid(row_map, N_FEATURES)
    alike = (np.repeat(np.eye(N_FEATURES)[:1], 3, axis=0), np.zeros(3, dtype=np.int64))
    apart = (np.eye(N_FEATURES)[:3], np.zeros(3, dtype=np.int64))
    stated = query.l2_sensitivity(grid, "add_or_remove_one", weighed=True)
    assert 0.98 * stated <= length(total(query, row_map, [alike])) <= stated
    assert 0.98 * stated <= length(total(query, row_map, [apart])) <= stated
    rows = np.abs(total(query, row_map, [apart])).sum()
    assert rows > 1.6 * np.abs(total(query, row_map, [alike])).sum()


@pytest.mark.parametrize("n_rows", [1, 2, 7, 120, 121, 256])
def test_even_weights_add_up_to_one_row_exactly(n_rows):
    even = Shares(np.zeros(n_rows, dtype=np.int64), 1).even
    assert even.sum() == WHOLE
    assert even.max() - even.min() <= 1


def test_rows_are_drawn_fairly_and_no_person_keeps_more_than_the_limit():
    class Bytes:
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def random_bytes(self, size):
            return self.rng.bytes(size)

    units = np.array([0] * 5 + [7] * 2 + [3] * 9)
    noise, counts = Bytes(), np.zeros(len(units))
    for _ in range(4000):
        keep = drawn_rows(units, 3, noise)
        assert np.array_equal(np.bincount(units[keep], minlength=8)[[0, 7, 3]], [3, 2, 3])
        counts += keep
    expected = 4000 * np.array([3 / 5] * 5 + [1.0] * 2 + [3 / 9] * 9)
    assert np.abs(counts - expected).max() < 6.0 * np.sqrt(4000 * 0.25)


def test_clipped_weights_of_the_longest_person_hold_in_exact_integers():
    """256 rows of two digits each: rounding over 32,896 pairs stays inside its room."""
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.normal(size=(1, N_FEATURES)), MOST_ROWS, axis=0)
    rows *= np.where(rng.random(MOST_ROWS) < 0.5, -1.0, 1.0)[:, None]
    person = (rows, rng.integers(N_CLASSES, size=MOST_ROWS))
    row_map = MAPS["clipped, in two digits"]
    for query in queries(row_map.n_columns(N_FEATURES)):
        grid = query.grid(row_map, N_FEATURES)
        stated = query.l2_sensitivity(grid, "add_or_remove_one", weighed=True)
        assert length(total(query, row_map, [person])) <= stated, query.name


def test_scored_rows_of_a_person_are_counted_as_one():
    from dpfc.evaluation.scored_rows import IDENTITY

    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(5), [1, 2, 3, 40, 200])
    p = rng.dirichlet(np.ones(N_CLASSES), size=len(units))
    rows = np.column_stack([p.argmax(axis=1), p])
    codes = rng.integers(N_CLASSES, size=len(units))
    for query in (HitCounts(), ConfusionCounts(), ScoreHistogram(1)):
        grid = query.grid(IDENTITY, rows.shape[1])
        added, replaced = (query.l2_sensitivity(grid, r, weighed=True) for r in RELATIONS)
        parts = []
        for unit in range(5):
            own = units == unit
            source = ArrayRows(rows[own], codes[own])
            shares = Shares(np.zeros(own.sum(), dtype=np.int64), 1)
            part = BoundedRows(source, IDENTITY, N_CLASSES, shares=shares).sum(query).numpy()
            assert part.sum() == WHOLE
            assert length(part) <= added
            parts.append(part)
        for one in parts:
            for other in parts:
                assert length(one - other) <= replaced
        everybody = ArrayRows(rows, codes)
        bounded = BoundedRows(everybody, IDENTITY, N_CLASSES, shares=Shares(units, 5))
        assert np.array_equal(bounded.sum(query).numpy(), sum(parts))


LEARNERS = {
    "fc": lambda **o: dpfc.DPFCClassifier(n_steps=3, **o),
    "ls": lambda **o: dpfc.DPLeastSquaresClassifier(**o),
    "ls with class Grams": lambda **o: dpfc.DPLeastSquaresClassifier(alpha=0.5, **o),
    "newton": lambda **o: dpfc.DPNewtonClassifier(n_steps=2, **o),
    "gd": lambda **o: dpfc.DPGradientClassifier(n_steps=3, **o),
    "fc of classes that are weighed": lambda **o: dpfc.DPFCClassifier(
        n_steps=3, class_weight={1: 4.0}, **o
    ),
}


@pytest.mark.parametrize("method", ["clip", "average"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_every_learner_pays_for_a_person_with_all_rows(make, relation, method, monkeypatch):
    """What a person moves of everything that is drawn, in μ: no more than the statement has."""
    rng = np.random.default_rng(3)
    n = 60
    X, y = rng.normal(size=(n, 12)), rng.integers(3, size=n)
    groups = rng.integers(15, size=n)
    groups[:12] = 99  # a person with many rows, all alike and long
    X[:12] = 50.0 * np.eye(12)[0] + 1e-3 * X[:12]
    transcript = Transcript(monkeypatch)
    # With as many rows a person as there are, coins draw nothing.
    options = {"relation": relation, "method": method}

    def fitted(X, y, groups, **repeat):
        model = make(
            epsilon=1.0,
            classes=range(3),
            neighboring_relation=options["relation"],
            group_method=options["method"],
            max_group_rows=MOST_ROWS,
            n_samples=None if relation == "replace_one" else 16,
        )
        draws, releases = transcript.record(lambda: model.fit(X, y, groups=groups), **repeat)
        return model, draws, releases

    model, draws, releases = fitted(X, y, groups)
    keep = groups != 99
    if relation == "add_or_remove_one":
        other = X[keep], y[keep], groups[keep]
    else:
        turned = (
            np.concatenate([np.eye(12)[1:2] * 3.0, -X[:1], X[keep]]),
            np.concatenate([[2, 0], y[keep]]),
            np.concatenate([[99, 99], groups[keep]]),
        )
        other = turned
    _, others, _ = fitted(*other, repeat=releases)
    moves = squared_moves(draws, others)
    mu = {r.name: math.sqrt(r.count) / r.noise_multiplier for r in model.privacy_.releases}
    for name, moved in moves.items():
        assert math.sqrt(moved) <= mu[name] * (1 + 1e-9), name
    assert math.sqrt(sum(moves.values())) > 0.1 * model.privacy_.mu  # the person shows


def test_members_are_cut_at_persons_alone():
    units = np.repeat(np.arange(6), [3, 1, 7, 2, 2, 5])
    members = Members.of(np.full(20, WHOLE), units, [np.ones((2, 20), dtype=np.int8)], 128)
    parts = list(members.parts(4))
    assert [part.start for part, _ in parts] == [0, 4, 11, 15]
    assert parts[-1][0].stop == 20
    for place, part in parts:
        assert np.array_equal(part.units, units[place])
        i, j, products = part.pairs
        assert (part.units[i] == part.units[j]).all()
        assert (products == 2.0).all()
        sizes = np.unique(part.units, return_counts=True)[1]
        assert len(i) == (sizes * (sizes + 1) // 2).sum()
