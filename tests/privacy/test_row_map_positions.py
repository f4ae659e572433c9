"""A mapped row has the same bits in any block, at any offset, as a tensor and as an array."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from dpfc.mechanism.row_map import RowMap, exact_linear_map, roots

WIDTHS = (1, 2, 3, 7, 8, 13, 16, 31, 33, 64, 67)


def row_maps(width):
    generator = np.random.default_rng(width)
    center = torch.from_numpy(generator.normal(size=width) / (3 * math.sqrt(width)))
    linear = exact_linear_map(torch.from_numpy(generator.normal(size=(width, width))))
    everything = {"nonnegative_root": True, "intercept_scaling": 0.1, "length_scaling": 0.3}
    return {
        "normalized": RowMap(center=center, linear=linear, **everything),
        "roots alone": RowMap(nonnegative_root=True),
        "clipped": RowMap(0.7, normalize=False, center=center, intercept_scaling=0.5),
        "unbounded": RowMap(math.inf, normalize=False),
    }


def at_offset(X, offset):
    """The same rows, beginning `offset` numbers further on in memory."""
    room = torch.empty(X.numel() + offset, dtype=X.dtype)[offset:].view(X.shape)
    return room.copy_(X)


def mapped_by_numpy(row_map, X):
    parts = {"center": row_map.center, "linear": row_map.linear}
    arrays = {name: None if part is None else part.numpy() for name, part in parts.items()}
    return replace(row_map, **arrays)(X.numpy())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["any sign", "non-negative", "mixed"])
def test_a_mapped_row_has_the_same_bits_in_any_block_offset_and_length(width, kind):
    generator = np.random.default_rng(width)
    X = generator.normal(size=(40, width)) * 10.0 ** generator.uniform(-6, 6, size=(40, 1))
    if kind != "any sign":
        X = np.abs(X) if kind == "non-negative" else np.where(np.arange(40)[:, None] % 2, X, abs(X))
    X[5], X[6], X[7] = 0.0, 1e300, 1e-300
    X = torch.from_numpy(X)
    strided = torch.zeros(40, 2 * width + 1, dtype=X.dtype)[:, 1::2].copy_(X)
    for row_map in row_maps(width).values():
        alone = torch.cat([row_map(row) for row in torch.split(X, 1)])
        for offset in range(8):
            assert torch.equal(row_map(at_offset(X, offset)), alone)
        for length in (1, 2, 3, 5, 8, 17, 39):
            for start in (0, 1, 4):
                block = slice(start, start + length)
                assert torch.equal(row_map(X[block]), alone[block])
        assert torch.equal(row_map(strided), alone)
        assert mapped_by_numpy(row_map, strided).tobytes() == alone.numpy().tobytes()
        assert torch.equal(row_map(X.T.contiguous().T), alone)


def is_nearest(value, root):
    """Whether `root` is the float64 nearest to the exact square root."""
    below, above = np.nextafter(root, 0.0), np.nextafter(root, np.inf)
    low, high = ((Fraction(root) + Fraction(float(other))) / 2 for other in (below, above))
    return low**2 <= Fraction(value) <= high**2


def test_square_roots_are_correctly_rounded():
    generator = np.random.default_rng(0)
    values = generator.random(4000) * 10.0 ** generator.integers(-300, 300, size=4000)
    values = np.concatenate([values, [5e-324, 2.2e-308, 1.7e308, 1.0, 2.0]])
    computed = roots(torch.from_numpy(values.copy())).tolist()
    assert all(is_nearest(v, r) for v, r in zip(values.tolist(), computed, strict=True))
    assert roots(torch.zeros(3, dtype=torch.float64)).tolist() == [0.0] * 3
