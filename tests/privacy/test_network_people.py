"""Networks on persons with several rows: how they are drawn, and what one of them can move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mechanisms import RELATIONS, Transcript, plan_of
from scipy import stats

from dpfc import DPSGDClassifier
from dpfc.full_models import classifier as of_classifier
from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.clipping import make_clipped_sums
from dpfc.full_models.dp_sgd.mechanism import GRADIENT, GradientMechanism
from dpfc.full_models.dp_sgd.people import People
from dpfc.full_models.dp_sgd.rows import ModuleRows
from dpfc.mechanism.noise import SystemNoise
from dpfc.mechanism.private_run import PrivateRun

C = 0.7
FALSE_ALARM = 1e-8  # of each of a few dozen tests


class FixedCoins:
    """No noise, and coins of which a person keeps his own where the last person goes."""

    description, reproducible = "fixed", False

    def __init__(self, seed):
        self._seed, self._calls = seed, 0

    def _generator(self):
        self._calls += 1
        return np.random.default_rng([self._seed, self._calls])

    def rounded_gaussian(self, sigma, size):
        return np.zeros(size, dtype=np.int64)

    def uniform(self, size):
        return self._generator().random(size)

    def bernoulli(self, probability, size):
        return self.uniform(size) < probability


@pytest.fixture
def people():
    """Rows, labels, and persons of 1 … 6 rows, of which the last one's are long and all alike."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(20), rng.integers(1, 7, size=20)))
    X, y = rng.normal(size=(len(groups), 5)), rng.integers(3, size=len(groups))
    X = np.concatenate([X, 50.0 * np.ones((12, 5)), X[:3]])  # others have rows after his
    return (
        X,
        np.concatenate([y, np.zeros(12, int), y[:3]]),
        np.concatenate([groups, np.full(12, 99), groups[:3]]),
    )


@pytest.mark.parametrize("probability", [0.5, 1.0])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(
    "clipping",
    ["hooks", *(pytest.param(c, marks=pytest.mark.slow) for c in ("ghost", "functorch"))],
)
def test_a_person_moves_each_release_by_its_sensitivity_at_most(
    people, clipping, relation, probability, monkeypatch
):
    """Whatever the coins are, as long as they are the same."""
    X, y, groups = people
    transcript = Transcript(monkeypatch)

    def fitted(X, y, groups, seed, **repeat):
        monkeypatch.setattr(of_classifier, "noise_source", lambda _: FixedCoins(seed))
        model = DPSGDClassifier(
            "linear", epsilon=4.0, classes=range(3), n_steps=4, sampling_probability=probability,
            l2_clip_norm=C, clipping=clipping, neighboring_relation=relation, device="cpu",
        )  # fmt: skip
        draws, releases = transcript.record(lambda: model.fit(X, y, groups=groups), **repeat)
        return model, draws, releases

    keep = groups != 99
    others = X[keep], y[keep], groups[keep]
    if relation == "replace_one":  # by a person of two rows, who also comes last
        more = -X[~keep][:2], [2, 1], [7000, 7000]
        others = tuple(np.concatenate([a, b]) for a, b in zip(others, more, strict=True))
    moves = []
    for seed in range(2):
        model, draws, releases = fitted(X, y, groups, seed)
        _, after, _ = fitted(*others, seed, repeat=releases)
        stated = {r.name: r.l2_sensitivity + r.numerical_slack for r in model.privacy_.releases}
        for (name, one, scale), (again, other, same) in zip(draws, after, strict=True):
            assert (name, scale) == (again, same)
            moved = float((one - other).norm())
            assert moved <= stated[name]
            moves += [moved] if name == GRADIENT else []
    # All of his 12 rows point the same way: two of them in a sum would show.
    assert max(moves) > 0.9 * C
    assert probability == 1.0 or min(moves) == 0.0  # in steps that he is not in


def test_the_count_and_the_public_number_are_of_persons(people):
    groups = people[2]
    for relation, counts in zip(RELATIONS, ({"count": 1}, {}), strict=True):
        plan = plan_of(1e-9, counts | {GRADIENT: 1}, relation)
        assert mechanism(groups, plan, n_samples=None).n_samples() == 21 < len(groups)


# -- how persons and their rows are drawn --------------------------------------------


def mechanism(groups, plan, *, n_samples=20):
    n = len(groups)
    rows = ModuleRows(
        torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), People.of(np.asarray(groups))
    )
    sums = make_clipped_sums("hooks", torch.nn.Linear(2, 2), C)
    return GradientMechanism(
        rows, sums, PrivateRun(SystemNoise(), plan), n_samples=n_samples,
        augmentation=Augmentation(), physical_batch_size=8, device=torch.device("cpu"),
    )  # fmt: skip


def samples(groups, probability, n_steps):
    """Which row of each person took part in each step, (n_steps, n_people); -1 where none did."""
    groups = np.asarray(groups)
    drawn = mechanism(groups, plan_of(1.0, {GRADIENT: 1}, probability=probability))._sampled_rows
    taken = np.full((n_steps, groups.max() + 1), -1)
    for step in taken:
        places = drawn().numpy()
        assert len(np.unique(groups[places])) == len(places)  # one row of a person at most
        step[groups[places]] = places
    return taken


def chi_square(counts, expected):
    """The probability of counts as far from what is expected."""
    counts, expected = np.asarray(counts, float).ravel(), np.asarray(expected, float).ravel()
    statistic = ((counts - expected) ** 2 / expected).sum()
    return stats.chi2.sf(statistic, len(counts) - 1)


GROUPS = np.random.default_rng(1).permutation(np.repeat(np.arange(30), np.arange(30) % 5 + 1))


def test_persons_are_drawn_with_the_stated_probability_and_independently():
    q, n_steps = 0.3, 4000
    drawn = samples(GROUPS, q, n_steps) >= 0

    def alarms(probability):
        """By the person, whatever the number of his rows, and of all."""
        counts = drawn.sum(0)
        p = [stats.binomtest(int(c), n_steps, probability).pvalue for c in counts]
        return min(p), stats.binomtest(int(counts.sum()), drawn.size, probability).pvalue

    assert min(alarms(q)) > FALSE_ALARM
    for other in (0.8 * q, 1.25 * q):
        assert max(alarms(other)) < FALSE_ALARM
    # Independent persons: the size of a step is binomial.
    sizes = np.minimum(drawn.sum(1), 16)
    law = stats.binom.pmf(np.arange(17), 30, q)
    law[16] = stats.binom.sf(15, 30, q)
    few = law * n_steps < 10  # in cells that are large enough for a χ²
    observed = np.bincount(sizes, minlength=17)
    counts, expected = [*observed[~few], observed[few].sum()], [*law[~few], law[few].sum()]
    assert chi_square(counts, np.multiply(expected, n_steps)) > FALSE_ALARM
    # And so are steps: who was in one is in the next as everybody is.
    again = (drawn[1:] & drawn[:-1]).sum()
    assert stats.binomtest(int(again), int(drawn[:-1].sum()), q).pvalue > FALSE_ALARM


def test_a_persons_rows_are_drawn_evenly_afresh_and_by_a_coin_of_his_own():
    n_steps = 5000
    taken = samples(GROUPS, 0.5, n_steps)
    places = [np.flatnonzero(person == GROUPS) for person in range(30)]
    counts = [[(taken[:, p] == row).sum() for row in own] for p, own in enumerate(places)]
    assert [sum(own) for own in counts] == (taken >= 0).sum(0).tolist()
    for size in range(2, 6):
        alike = np.array([own for own in counts if len(own) == size])
        even = np.repeat(alike.mean(1, keepdims=True), size, axis=1)
        for own, expected in zip(alike, even, strict=True):
            assert chi_square(own, expected) > FALSE_ALARM
        # Rows that come first at 0.8 or 1.25 of their odds would show.
        assert chi_square(alike.sum(0), even.sum(0)) > FALSE_ALARM
        for odds in (0.8, 1.25):
            uneven = np.where(np.arange(size) == 0, odds, 1.0)
            wrong = alike.sum() * uneven / uneven.sum()
            assert chi_square(alike.sum(0), wrong) < FALSE_ALARM
    one, other = places[1], places[6]  # of two rows each
    assert len(one) == len(other) == 2
    tables = {
        "of two persons": (taken[:, 1], taken[:, 6], other),
        "of two steps": (taken[:-1, 1], taken[1:, 1], one),
    }
    for name, (first, second, rows) in tables.items():
        table = [[((first == a) & (second == b)).sum() for b in rows] for a in one]
        assert stats.chi2_contingency(table).pvalue > FALSE_ALARM, name


def test_a_coin_just_below_one_is_a_persons_last_row():
    class Largest(SystemNoise):
        def uniform(self, size):
            return np.full(size, 1.0 - 2.0**-53)

    sizes = np.array([1, 2, 3, 5, 7, 1000, 2**21 - 1, 2**21])
    starts = np.cumsum(sizes) - sizes
    people = People(np.arange(sizes.sum()), sizes)
    assert np.array_equal(people.one_row_each(np.arange(8), Largest()), starts + sizes - 1)


def test_persons_stand_in_the_order_of_their_first_rows():
    people = People.of(np.array([7, -3, 7, 5, -3, 7]))
    assert people.order.tolist() == [0, 2, 5, 1, 4, 3]
    assert people.sizes.tolist() == [3, 2, 1]
    assert len(people) == 3
