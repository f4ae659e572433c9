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


def correlation_is_zero(a, b):
    limit = stats.norm.isf(FALSE_ALARM / 2) / np.sqrt(a.size)
    return abs(np.corrcoef(a, b)[0, 1]) < limit


@pytest.fixture(params=SOURCES.values(), ids=SOURCES)
def source(request):
    return request.param()


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_any_number_of_values_can_be_drawn(source, size):
    normal, coins = source.rounded_gaussian(9.0, size), source.bernoulli(0.5, size)
    uniform = source.uniform(size)
    assert normal.shape == coins.shape == uniform.shape == (size,)
    assert (normal.dtype, coins.dtype, uniform.dtype) == (np.int64, np.bool_, np.float64)


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
    first = SystemNoise().rounded_gaussian(1e6, 1000), SystemNoise().bernoulli(0.5, 100)
    assert sum(asked) >= 8 * 1100
    asked.clear()
    second = SystemNoise().rounded_gaussian(1e6, 1000), SystemNoise().bernoulli(0.5, 100)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_two_system_sources_differ():
    first, second = (SystemNoise().rounded_gaussian(1e9, 9) for _ in range(2))
    assert not np.array_equal(first, second)


def test_sources_say_what_they_are():
    assert not SystemNoise().reproducible
    assert "urandom" in SystemNoise().description
    assert SeededNoise(0).reproducible
    assert "not private" in SeededNoise(0).description


# -- seeds ---------------------------------------------------------------------------


def test_a_seed_reproduces_and_another_seed_does_not():
    for draw, args in (("rounded_gaussian", (1e6, 20)), ("bernoulli", (0.5, 200))):
        first, again, other = (getattr(noise_source(s), draw)(*args) for s in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_a_random_state_gives_another_stream_at_every_use():
    state = np.random.RandomState(0)
    first, second = (noise_source(state).rounded_gaussian(1e6, 9) for _ in range(2))
    assert not np.array_equal(first, second)
    again = noise_source(np.random.RandomState(0)).rounded_gaussian(1e6, 9)
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
