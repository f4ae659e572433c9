"""Passes of one fixed shape through a network, in which a row's place makes no difference.

Kernels choose an order of additions by the shape and the place in memory of what they are given,
never by its values. With passes of another shape, or at another place of a pass, a row's
gradient may differ in its last bits, and for rows of large numbers in all of them: whether one
row is there would then move the gradients of the others, which no clipping bounds. Here each pass
has the same shape, filled up with rows of zeros that count for nothing, and it is tried out on
made-up rows that every place of it gives the same bits, whatever stands in the others. Where it
does not, rows go through the network one at a time. So they do where a forward pass takes values
out of tensors, as `if (x == -1).any()` does: what follows may hang on values that no made-up row
has, and on all rows of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dpfc._support.value_reads import looking_for_reads
from dpfc.full_models.dp_sgd.clipping import ClippedSums

__all__ = ["Passes", "choose_passes"]

# Rows start at multiples of so many numbers where they are aligned: 64 bytes of float32.
_ALIGNMENT = 16
# Sizes that kernels like.
_MULTIPLE = 8
_LARGE = 1e6
# Of a checksum at a time.
_COLUMNS = 2**12
_SIZES = (1.0, 0.1, 0.01, 3.0)
# Places that rows are moved by: with these, each comes to lie at several places of a register.
_SHIFTS = (1, 2, 3, 5, 7)


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

    def filled_with(self, X: torch.Tensor, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one row (1, n_copies, ...) into every place."""
        return self.lay_out(X.expand(self.n_rows, *X.shape[1:]), code.expand(self.n_rows))


def choose_passes(
    sums: ClippedSums,
    like: torch.Tensor,
    *,
    n_copies: int,
    most_rows: int,
    expected_rows: float,
    sampling_probability: float,
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
    sampling_probability : float
        Of a row in a step.
    """
    deviation = math.sqrt(expected_rows * (1.0 - sampling_probability))
    size = _size(most_rows, max(1.0, expected_rows + 2.0 * deviation))
    with _off_their_start(sums):
        if size > 1 and _reads_values(sums.module, like):
            return Passes(1)
        for passes in (Passes(size), Passes(size, aligned=True)):
            if size > 1 and _places_are_alike(sums, passes, like, n_copies):
                return passes
    return Passes(1)


def _size(most_rows: int, wanted_rows: float) -> int:
    """Of passes that leave few places empty in most steps."""
    even = math.ceil(wanted_rows / math.ceil(wanted_rows / most_rows))
    return min(math.ceil(even / _MULTIPLE) * _MULTIPLE, most_rows)


@torch.no_grad()
def _reads_values(module: torch.nn.Module, like: torch.Tensor) -> bool:
    rows, _ = _made_up(like, 2)
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        try:
            with looking_for_reads() as found:
                module(rows)
        except Exception:  # it does not take such rows, or no onlooker
            return True
    return bool(found)


def _places_are_alike(sums: ClippedSums, passes: Passes, like: torch.Tensor, n_copies: int) -> bool:
    """Whether rows add the same bits from other places of a pass, and beside other rows.

    Another order of additions shows in the last bits of about every second row, so that so many
    rows and places leave little to chance.
    """
    n_rows = passes.n_rows
    rows, others = _made_up(like, n_rows)
    codes = torch.arange(n_rows, device=like.device) % 2
    replaced = torch.arange(n_rows, device=like.device) % 3 == 0
    try:
        first = _checksums(sums, passes, rows, codes, n_copies)
        for shift in (0, *_SHIFTS, n_rows // 2 + 1):
            moved, moved_codes = rows.roll(shift, 0), codes.roll(shift, 0)
            moved[replaced] = others[replaced]
            for t, before in zip(
                _checksums(sums, passes, moved, moved_codes, n_copies), first, strict=True
            ):
                if not torch.equal(t[~replaced], before.roll(shift, 0)[~replaced]):
                    return False
    except Exception:  # it does not take gaps between rows, or rows of zeros
        return False
    return True


def _checksums(
    sums: ClippedSums, passes: Passes, X: torch.Tensor, codes: torch.Tensor, n_copies: int
) -> list[torch.Tensor]:
    copies = X.unsqueeze(1).repeat_interleave(n_copies, dim=1)
    with torch.random.fork_rng(devices=[X.device] if X.is_cuda else []):
        torch.manual_seed(0)
        return [_checksum(numbers) for numbers in sums.traces(*passes.lay_out(copies, codes))]


def _checksum(numbers: torch.Tensor) -> torch.Tensor:
    """The bits of each row's numbers in one, modulo 2^64; other bits have another but by chance.

    Numbers themselves would be kept for two passes at once.
    """
    flat = numbers.detach().reshape(len(numbers), -1)
    total = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    generator = torch.Generator().manual_seed(0)
    for piece in torch.split(flat, _COLUMNS, dim=1):
        whole = piece + 0  # zeros of one sign
        if whole.is_floating_point():
            whole = whole.view(torch.int32 if whole.element_size() == 4 else torch.int64)
        weights = torch.randint(2**62, (piece.shape[1],), generator=generator)
        total += (whole.long() * (2 * weights + 1).to(flat.device)).sum(1)
    return total


def _made_up(like: torch.Tensor, n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ordinary sizes, and others: larger ones, and zeros."""
    generator = torch.Generator().manual_seed(0)
    shape = (2 * n_rows, *like.shape[1:])
    if not like.is_floating_point():
        rows = torch.randint(2, shape, generator=generator).to(like)
        return rows[:n_rows], rows[n_rows:]
    rows = torch.randn(shape, generator=generator)
    sizes = torch.tensor(_SIZES)[torch.arange(n_rows) % len(_SIZES)]
    rows[:n_rows] *= sizes.view(-1, *[1] * (like.ndim - 1))
    rows[n_rows::2] *= _LARGE
    rows[n_rows + 1 :: 2] = 0.0
    rows = rows.to(like)
    return rows[:n_rows], rows[n_rows:]


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
