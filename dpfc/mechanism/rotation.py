"""A public rotation of rows, which spreads what single columns hold over many.

Integers of eight bits hold a row whose length is spread over its columns well, and one that
lies in few columns badly: one-hot and counted features would be cut. So columns get random public
signs and are mixed by normalised Walsh-Hadamard transforms, each of some columns that are strided
over the row. Lengths, and Gaussian noise of a vector or a symmetric matrix, are the same in any
rotation, so a release is turned back and nobody else has to know.

References
----------
Ailon, Chazelle (2009), The Fast Johnson-Lindenstrauss Transform (signs and Walsh-Hadamard).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.row_map import as_type, library

__all__ = ["PLAIN_COLUMNS", "Rotation"]

PLAIN_COLUMNS = 36  # so few are not turned: no entry of theirs is cut
_BLOCKS = 18  # at most, in a row
_LAST_STRIDES = (5, 4, 3, 7)  # of the second mixing, which takes what the first leaves over


class Rotation:
    """An orthogonal map of rows with `n_columns` entries; it follows from that number alone.

    With B the power of two that is at least n/18, the first ⌊n/B⌋ B columns are mixed in ⌊n/B⌋
    transforms of length B, and then, where some are left over, the last 3B to 7B;
    each time after signs.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns: int):
        self.n_columns = n_columns
        self._mixings: list[_Mixing] = []
        if n_columns <= PLAIN_COLUMNS:
            return
        size = 1 << math.ceil(math.log2(n_columns / _BLOCKS))
        stride = n_columns // size
        signs = _signs(2 * n_columns)
        self._mixings.append(_Mixing(slice(0, size * stride), size, stride, signs[: size * stride]))
        if size * stride < n_columns:
            # With a common divisor it would gather again what the first has spread.
            stride = next(s for s in _LAST_STRIDES if s <= stride and math.gcd(s, stride) == 1)
            last = slice(n_columns - size * stride, n_columns)
            self._mixings.append(_Mixing(last, size, stride, signs[-size * stride :]))

    def turn(self, columns: Any, spare: Any) -> None:
        """Turn rows in place: floats of shape (n_columns, n_rows), and as much memory to work in.

        Every entry is made by additions in a fixed order, so a row's bits depend on it alone.
        """
        for mixing in self._mixings:
            mixed = columns[mixing.columns]
            mixed *= mixing.signs_like(mixed)
            _transform(mixed, spare[mixing.columns], mixing.size, mixing.stride)

    def turn_back(self, values: torch.Tensor, *, both_sides: bool = False) -> torch.Tensor:
        """What was released of turned rows, as of rows: the last axis, or the last two."""
        if not self._mixings:
            return values
        columns = values.reshape(-1, self.n_columns).T.clone(memory_format=torch.contiguous_format)
        spare = torch.empty_like(columns)
        for mixing in reversed(self._mixings):
            mixed = columns[mixing.columns]
            _transform(mixed, spare[mixing.columns], mixing.size, mixing.stride)
            mixed *= mixing.signs_like(mixed)
        back = columns.T.reshape(values.shape)
        return self.turn_back(back.mT).mT if both_sides else back


class _Mixing(NamedTuple):
    """Signs, then transforms of length `size` over columns that lie `stride` apart."""

    columns: slice
    size: int
    stride: int
    signs: NDArray[np.float64]

    def signs_like(self, columns: Any) -> Any:
        if isinstance(columns, np.ndarray):
            return as_type(self.signs, columns)
        return torch.from_numpy(self.signs).to(columns)


@lru_cache(maxsize=8)
def _signs(size: int) -> NDArray[np.float64]:
    """Random, public, and the same everywhere: NumPy promises a bit generator's stream."""
    bits = np.random.PCG64(0).random_raw(size) & np.uint64(1)
    return 1.0 - 2.0 * np.asarray(bits, dtype=np.float64)[:, np.newaxis]


def _transform(columns: Any, spare: Any, size: int, stride: int) -> None:
    """Normalised Walsh-Hadamard transforms of length `size`, one for each place in a stride."""
    xp, half = library(columns), size // 2
    source, target = columns, spare
    while half:
        pairs = (size // (2 * half), 2, half * stride, columns.shape[1])
        old, new = source.reshape(pairs), target.reshape(pairs)
        xp.add(old[:, 0], old[:, 1], out=new[:, 0])
        xp.subtract(old[:, 0], old[:, 1], out=new[:, 1])
        source, target = target, source
        half //= 2
    xp.multiply(source, 1.0 / math.sqrt(size), out=columns)
