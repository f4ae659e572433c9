"""Where random bits come from: the operating system, or a seed that makes a run reproducible.

Noise from a seed protects nobody: who knows the seed can subtract it. Every source
says what it is, so that the privacy statement can repeat it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpfc.mechanism.rounded_gaussian import rounded_gaussian

__all__ = ["NoiseSource", "SeededNoise", "SystemNoise", "noise_source"]

_THREAD_DRAWS = 1 << 17  # so many pay for a thread


class NoiseSource(Protocol):
    """What a mechanism needs of a source of randomness."""

    description: str
    reproducible: bool

    def random_bytes(self, size: int) -> bytes:
        """Draw `size` independent uniform bytes."""
        ...

    def rounded_gaussian(self, sigma: float, size: int) -> NDArray[np.int64]:
        """Draw `size` independent integers round(N), N ~ N(0, sigma²), shape (size,)."""
        ...

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Draw `size` independent multiples of 2^-53, uniform on [0, 1), shape (size,)."""
        ...

    def bernoulli(self, probability: float, size: int) -> NDArray[np.bool_]:
        """Draw `size` independent coins that are true with `probability`, shape (size,)."""
        ...


class SystemNoise:
    """Randomness from the operating system's cryptographically secure generator."""

    description = "operating system (os.urandom)"
    reproducible = False

    def random_bytes(self, size: int) -> bytes:
        """Draw `size` independent uniform bytes."""
        return os.urandom(size)

    def rounded_gaussian(self, sigma: float, size: int) -> NDArray[np.int64]:
        """Draw `size` independent integers round(N), N ~ N(0, sigma²), shape (size,).

        See `dpfc.mechanism.rounded_gaussian`. Many are drawn in several threads.
        """
        threads = max(1, min(os.cpu_count() or 1, size // _THREAD_DRAWS))
        if threads == 1:
            return rounded_gaussian(sigma, size, self.random_bytes)
        sizes = [(size + n) // threads for n in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(lambda part: rounded_gaussian(sigma, part, self.random_bytes), sizes)
            return np.concatenate(list(parts))

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Draw `size` independent multiples of 2^-53, uniform on [0, 1), shape (size,)."""
        return _uniform(size)

    def bernoulli(self, probability: float, size: int) -> NDArray[np.bool_]:
        """Draw `size` independent coins that are true with `probability`, shape (size,)."""
        return np.asarray(_uniform(size) < probability)


class SeededNoise:
    """Reproducible randomness for tests and studies; what it protects must not be published.

    Parameters
    ----------
    random_state : int, numpy.random.Generator or numpy.random.RandomState
    """

    description = "seeded pseudo-random generator (not private)"
    reproducible = True

    def __init__(self, random_state: int | np.random.Generator | np.random.RandomState):
        if isinstance(random_state, np.random.RandomState):
            # One draw from the given state: a second fit with it then differs, as in scikit-learn.
            self._generator = np.random.default_rng(random_state.randint(2**31 - 1))
        else:
            self._generator = np.random.default_rng(random_state)

    def state(self) -> str:
        """Where the generator stands; for runs that go on, and publish nothing."""
        return json.dumps(_plain_state(self._generator.bit_generator.state))

    def load_state(self, state: str) -> None:
        """Go on from a state."""
        self._generator.bit_generator.state = json.loads(state)

    def random_bytes(self, size: int) -> bytes:
        """Draw `size` independent uniform bytes."""
        return self._generator.bytes(size)

    def rounded_gaussian(self, sigma: float, size: int) -> NDArray[np.int64]:
        """Draw `size` independent integers round(N), N ~ N(0, sigma²), shape (size,)."""
        return rounded_gaussian(sigma, size, self.random_bytes)

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Draw `size` independent multiples of 2^-53, uniform on [0, 1), shape (size,)."""
        return self._generator.random(size)

    def bernoulli(self, probability: float, size: int) -> NDArray[np.bool_]:
        """Draw `size` independent coins that are true with `probability`, shape (size,)."""
        return np.asarray(self._generator.random(size) < probability)


def noise_source(
    random_state: int | np.random.Generator | np.random.RandomState | None,
) -> NoiseSource:
    """Return the secure source for None, a reproducible one for a seed.

    Raises
    ------
    ValueError
        If `random_state` is none of the kinds that scikit-learn knows.
    """
    if random_state is None:
        return SystemNoise()
    seed_types = (int, np.integer, np.random.Generator, np.random.RandomState)
    negative = isinstance(random_state, int | np.integer) and random_state < 0
    if not isinstance(random_state, seed_types) or isinstance(random_state, bool) or negative:
        raise ValueError(
            "random_state must be None, an int in [0, inf), a numpy Generator or RandomState, "
            f"got {random_state!r}."
        )
    return SeededNoise(random_state)


def _plain_state(state: Any) -> Any:
    """A generator's state in JSON's types."""
    if isinstance(state, Mapping):
        return {name: _plain_state(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _uniform(size: int) -> NDArray[np.float64]:
    """`size` independent multiples of 2^-53, uniform on [0, 1)."""
    return (_random_words(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _random_words(size: int) -> NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
