"""Noise has the stated law, with tests that would notice a wrong one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import stats

from dpfc.mechanism.noise import SeededNoise, SystemNoise, noise_source

SOURCES = {"system": SystemNoise, "seeded": lambda: SeededNoise(0)}
# A test on the system's bits fails by chance once in ten million runs.
FALSE_ALARM = 1e-7
SIZE = 50_000


def variance_p_value(draws, sigma):
    """Two-sided chi-square test that N(0, sigma²) made the draws."""
    law = stats.chi2(draws.size)
    statistic = float((draws**2).sum()) / sigma**2
    return 2 * min(law.cdf(statistic), law.sf(statistic))


def kolmogorov_p_value(draws, sigma):
    return stats.kstest(draws / sigma, "norm").pvalue


def correlation_is_zero(a, b):
    limit = stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(a.size)
    return abs(np.corrcoef(a, b)[0, 1]) < limit


@pytest.fixture(params=SOURCES.values(), ids=SOURCES)
def source(request):
    return request.param()


@pytest.mark.parametrize("p_value", [variance_p_value, kolmogorov_p_value])
def test_normal_values_have_unit_variance_and_a_wrong_variance_is_noticed(source, p_value):
    draws = source.standard_normal(SIZE)
    assert p_value(draws, 1.0) > FALSE_ALARM
    assert p_value(draws, 0.8) < FALSE_ALARM
    assert p_value(draws, 1.25) < FALSE_ALARM


def test_normal_values_have_mean_zero_and_a_bias_is_noticed(source):
    draws = source.standard_normal(SIZE)
    limit = stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(SIZE)
    assert abs(draws.mean()) < limit
    assert abs((draws + 0.1).mean()) > limit


def test_tails_are_those_of_the_normal_law(source):
    draws = np.abs(source.standard_normal(400_000))
    for threshold in (2.0, 3.0, 3.7):
        expected = 2 * stats.norm.sf(threshold)
        p_value = stats.binomtest(int((draws > threshold).sum()), draws.size, expected).pvalue
        assert p_value > FALSE_ALARM


def test_values_are_independent_of_each_other_and_between_draws(source):
    first, second = source.standard_normal(SIZE), source.standard_normal(SIZE)
    assert correlation_is_zero(first, second)
    assert not correlation_is_zero(first, first + 10 * second)
    # Box-Muller makes pairs of one radius: neither values nor squares may be correlated.
    for lag in (1, 2, SIZE // 2):
        assert correlation_is_zero(first[lag:], first[:-lag])
        assert correlation_is_zero(first[lag:] ** 2, first[:-lag] ** 2)
    assert len(np.unique(np.r_[first, second])) == 2 * SIZE


def test_large_draws_are_fresh_in_every_chunk():
    draws = SystemNoise().standard_normal((1 << 20) + 40_001)
    assert len(np.unique(draws)) == draws.size
    assert variance_p_value(draws[1 << 20 :], 1.0) > FALSE_ALARM
    assert correlation_is_zero(draws[:40_001], draws[1 << 20 :])


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_any_number_of_values_can_be_drawn(source, size):
    normal, coins = source.standard_normal(size), source.bernoulli(0.5, size)
    assert normal.shape == coins.shape == (size,)
    assert normal.dtype == np.float64
    assert coins.dtype == np.bool_


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_coins_have_the_stated_probability_and_a_wrong_one_is_noticed(source, probability):
    heads = int(source.bernoulli(probability, SIZE).sum())
    assert stats.binomtest(heads, SIZE, probability).pvalue > FALSE_ALARM
    assert stats.binomtest(heads, SIZE, probability * 0.8).pvalue < FALSE_ALARM


def test_coins_are_independent_between_draws(source):
    first, second = source.bernoulli(0.5, SIZE), source.bernoulli(0.5, SIZE)
    assert correlation_is_zero(first, second)
    assert correlation_is_zero(first[1:], first[:-1])


def test_certain_coins_are_certain(source):
    assert source.bernoulli(1.0, 1000).all()
    assert not source.bernoulli(0.0, 1000).any()


# -- the operating system's source ---------------------------------------------------


def test_system_noise_takes_all_its_bits_from_the_operating_system(monkeypatch):
    asked = []

    def urandom(size):
        asked.append(size)
        return np.random.default_rng(len(asked)).bytes(size)

    monkeypatch.setattr(os, "urandom", urandom)
    first = SystemNoise().standard_normal(1000), SystemNoise().bernoulli(0.5, 100)
    assert sum(asked) >= 8 * 1100
    asked.clear()
    second = SystemNoise().standard_normal(1000), SystemNoise().bernoulli(0.5, 100)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_extreme_bits_give_finite_noise(monkeypatch, byte):
    monkeypatch.setattr(os, "urandom", lambda size: byte * size)
    assert np.isfinite(SystemNoise().standard_normal(10)).all()


def test_the_tail_has_no_lattice_that_a_fine_grid_would_show(monkeypatch):
    """A radius of 53-bit uniforms takes few values in the tail, and who knows them can tell.

    `dpfc.mechanism.private_run` rounds noise to a grid of 2^-29 σ for a Gram of 1,280 columns
    at ε = 1. If radii beyond 6σ are r = √(-2 ln(k 2^-53)) with integer k, they are further
    apart than the grid: a release then excludes every neighbour whose noise would need a
    radius in between. That happens with a probability of 8·10^-4, where δ is 10^-5.
    """
    rng = np.random.default_rng(0)

    def urandom(size):
        # Half of the words are extreme, so that tails are reached at all.
        words = rng.integers(2**64, size=size // 8, dtype=np.uint64)
        extreme = rng.integers(3, size=size // 8)
        words = np.where(extreme == 1, words >> np.uint64(27), words)
        words = np.where(extreme == 2, ~(words >> np.uint64(27)), words)
        return words.tobytes()

    monkeypatch.setattr(os, "urandom", urandom)
    draws = SystemNoise().standard_normal(1 << 18)
    draws = np.round(draws * 2.0**30) / 2.0**30
    radii = np.hypot(draws[: 1 << 17], draws[1 << 17 :])
    tail = radii[radii > 6.6]
    assert len(tail) > 100
    lattice = 2.0**53 * np.exp(-(tail**2) / 2)
    on_lattice = np.abs(lattice - np.round(lattice)) < 0.05
    assert on_lattice.mean() < 0.8  # by chance, 0.1


def test_two_system_sources_differ():
    assert not np.array_equal(SystemNoise().standard_normal(9), SystemNoise().standard_normal(9))


def test_sources_say_what_they_are():
    assert not SystemNoise().reproducible
    assert "urandom" in SystemNoise().description
    assert SeededNoise(0).reproducible
    assert "not private" in SeededNoise(0).description


# -- seeds ---------------------------------------------------------------------------


def test_a_seed_reproduces_and_another_seed_does_not():
    for draw in ("standard_normal", "bernoulli"):
        args = (20,) if draw == "standard_normal" else (0.5, 200)
        first, again, other = (getattr(noise_source(s), draw)(*args) for s in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_a_random_state_gives_another_stream_at_every_use():
    state = np.random.RandomState(0)
    first, second = (noise_source(state).standard_normal(9) for _ in range(2))
    assert not np.array_equal(first, second)
    again = noise_source(np.random.RandomState(0)).standard_normal(9)
    np.testing.assert_array_equal(first, again)


def test_none_means_the_operating_system():
    assert isinstance(noise_source(None), SystemNoise)


@pytest.mark.parametrize("seed", [0, 5, np.int64(5), np.random.default_rng(0)])
def test_every_seed_is_declared_reproducible(seed):
    assert noise_source(seed).reproducible


@pytest.mark.parametrize("seed", [-1, True, "0", 1.5, [1], np.bool_(True)])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=r"random_state must be None, an int in \[0, inf\)"):
        noise_source(seed)
