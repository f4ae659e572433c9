"""Passes of one fixed shape through a network, in which a row's place makes no difference.

Kernels choose an order of additions by the shape and the place in memory of what they are given,
never by its values. With passes of another shape, or at another place of a pass, a row's
gradient may differ in its last bits, and for rows of large numbers in all of them: whether one
row is there would then move the gradients of the others, which no clipping bounds. Here each pass
has the same shape, filled up with rows of zeros that count for nothing, and it is tried out on
made-up rows that every place of it gives the same bits, whatever stands in the others. Where it
does not, rows go through the network one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dpfc.full_models.clipping import ClippedSums

__all__ = ["Passes", "choose_passes"]

# Rows start at multiples of so many numbers where they are aligned: 64 bytes of float32.
_ALIGNMENT = 16
# Sizes that kernels like.
_MULTIPLE = 8
_LARGE = 1e6


@dataclass(frozen=True)
class Passes:
    """How rows go through a network.

    Parameters
    ----------
    n_rows : int
        Of every pass.
    aligned : bool, default=False
        Whether there are gaps between rows, so that each starts at a multiple of 64 bytes.
    """

    n_rows: int
    aligned: bool = False

    def lay_out(self, X: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put up to `n_rows` rows (n, n_copies, ...) into fresh memory, and zeros after them."""
        n_copies, shape = X.shape[1], X.shape[2:]
        width = math.prod(shape)
        stride = math.ceil(width / _ALIGNMENT) * _ALIGNMENT if self.aligned else width
        places = X.new_zeros((self.n_rows * n_copies, stride))
        places[: len(X) * n_copies, :width] = X.reshape(-1, width)
        padded = codes.new_zeros(self.n_rows)
        padded[: len(codes)] = codes
        return places[:, :width].view(self.n_rows, n_copies, *shape), padded


def choose_passes(
    sums: ClippedSums, like: torch.Tensor, *, n_copies: int, most_rows: int, expected_rows: float
) -> Passes:
    """Find passes in which a row's place makes no difference; looks at made-up rows alone.

    Parameters
    ----------
    sums : ClippedSums
        Of the module that is trained, whose weights are put back as they are.
    like : torch.Tensor of shape (1, ...)
        Any row, as the network takes it; only its shape, dtype and device count.
    n_copies : int
        Augmented copies of a row.
    most_rows : int
        In a pass.
    expected_rows : float
        In a step; public.
    """
    size = _size(most_rows, expected_rows)
    with _off_their_start(sums):
        for passes in (Passes(size), Passes(size, aligned=True)):
            if size > 1 and _places_are_alike(sums, passes, like, n_copies):
                return passes
    return Passes(1)


def _size(most_rows: int, expected_rows: float) -> int:
    """Of passes that leave few places empty in most steps."""
    wanted = expected_rows + 2.0 * math.sqrt(expected_rows) + 1.0
    even = math.ceil(wanted / math.ceil(wanted / most_rows))
    return min(math.ceil(even / _MULTIPLE) * _MULTIPLE, most_rows)


def _places_are_alike(sums: ClippedSums, passes: Passes, like: torch.Tensor, n_copies: int) -> bool:
    """Whether a row adds the same bits from every place, beside copies of itself and others."""
    row, others = _made_up(like, passes.n_rows)
    codes = torch.zeros(passes.n_rows, dtype=torch.int64, device=like.device)
    alone = row.expand(passes.n_rows, *row.shape[1:])
    for own in (slice(0, None, 2), slice(1, None, 2)):
        mixed, mixed_codes = others.clone(), codes + 1
        mixed[own], mixed_codes[own] = row, 0
        try:
            first = _numbers(sums, passes, alone, codes, n_copies)
            among = _numbers(sums, passes, mixed, mixed_codes, n_copies)
        except (RuntimeError, ValueError, IndexError):
            return False  # it does not take gaps between rows
        if not all(torch.equal(t, t[:1].expand_as(t)) for t in first):
            return False
        if not all(
            torch.equal(t[own], one[:1].expand_as(t[own]))
            for t, one in zip(among, first, strict=True)
        ):
            return False
    return True


def _numbers(
    sums: ClippedSums, passes: Passes, X: torch.Tensor, codes: torch.Tensor, n_copies: int
) -> list[torch.Tensor]:
    copies = X.unsqueeze(1).repeat_interleave(n_copies, dim=1)
    with torch.random.fork_rng(devices=[X.device] if X.is_cuda else []):
        torch.manual_seed(0)
        return [t for part in sums.parts(*passes.lay_out(copies, codes)) for t in part.numbers()]


def _made_up(like: torch.Tensor, n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One row, and rows beside it: as large, larger, and zeros in turn."""
    generator = torch.Generator().manual_seed(0)
    shape = (1 + n_rows, *like.shape[1:])
    if not like.is_floating_point():
        rows = torch.randint(2, shape, generator=generator).to(like)
        return rows[:1], rows[1:]
    rows = torch.randn(shape, generator=generator).to(like)
    rows[2::3] *= _LARGE
    rows[3::3] = 0.0
    return rows[:1], rows[1:]


@contextmanager
def _off_their_start(sums: ClippedSums) -> Iterator[None]:
    """Move weights off zero, where gradients would all be alike, and stop random layers.

    A random layer draws for each place of a pass anew, so that places differ and rows do not
    depend on one another for it.
    """
    kept = [p.detach().clone() for p in sums.parameters]
    random = [
        m for m in sums.module.modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)
    ]
    training = [m.training for m in random]
    generator = torch.Generator().manual_seed(1)
    try:
        for layer in random:
            layer.eval()
        with torch.no_grad():
            for p in sums.parameters:
                p.add_(torch.randn(p.shape, generator=generator).to(p), alpha=0.01)
        yield
    finally:
        for layer, mode in zip(random, training, strict=True):
            layer.train(mode)
        with torch.no_grad():
            for p, weights in zip(sums.parameters, kept, strict=True):
                p.copy_(weights)
