"""Sums of clipped gradients, one gradient a row.

A row's gradient is that of its own cross-entropy over all trainable parameters. It is scaled
down to length C where it is longer, and left out where it is not finite: a row adds at most C
to a sum whatever it holds.

| a row that | adds |
|---|---|
| has a gradient g of length up to C | g |
| has a longer one | g scaled to C, less 2^-22 C |
| has one that is NaN or infinite in any entry | nothing |
| fills up a pass of fixed shape | nothing |
| makes the module raise | nothing |
| under ghost clipping: has terms of g that are over 256 C in sum and cancel to less | g scaled so \
that its terms are 256 C in sum |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional

from dpfc.full_models.dp_sgd.per_sample_gradients import RowGradients
from dpfc.full_models.dp_sgd.row_parts import DEPTH, RowPart

__all__ = ["CLIPPINGS", "ClippedSums", "make_clipped_sums", "steady_kernels"]

CLIPPINGS = ("hooks", "functorch", "ghost")
# Below C by more than rounding adds, so that no row is longer than C.
_MARGIN = 1.0 - 2.0**-22
# How much longer than C the terms of a clipped gradient may be in sum.
_EXTENT = 2.0**8
_UNIT = 2.0**-53


@contextmanager
def steady_kernels() -> Iterator[None]:
    """Convolutions on a GPU that give the same numbers again, in full float32.

    cuDNN's fastest ones add up in the order in which threads come to an end, and in TF32.
    """
    enabled = torch.backends.cudnn.enabled
    with torch.backends.cudnn.flags(
        enabled=enabled, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


class ClippedSums:
    """Adds up the clipped gradients of batches.

    Parameters
    ----------
    module : torch.nn.Module
        Checked by `module_checks`; in training mode. Its parameters are shared, not copied.
    l2_clip_norm : float
        C; infinite leaves every gradient as it is.
    functorch : bool
        See `RowGradients`.
    ghost : bool
        Whether gradients stay in factors where they have some, as `row_parts` explains: fewer
        numbers in memory, for linear layers above all. One copy a row only.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        l2_clip_norm: float,
        *,
        functorch: bool = False,
        ghost: bool = False,
    ):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.module = module
        self.l2_clip_norm = l2_clip_norm
        self._ghost = ghost
        self._rows = RowGradients(module, functorch=functorch, factored=ghost)

    def add(
        self,
        X: torch.Tensor,
        codes: torch.Tensor,
        totals: Sequence[torch.Tensor],
        n_rows: int | None = None,
        first: int = 0,
    ) -> None:
        """Add a batch's clipped gradients to float64 `totals`, one a trainable parameter.

        Whatever the module raises comes before anything is added.

        Parameters
        ----------
        X : torch.Tensor of shape (n, n_copies, ...)
            Augmented copies of each row; the gradient of a row is the mean over its copies.
        codes : torch.Tensor of shape (n,)
        totals : sequence of torch.Tensor, float64
        n_rows : int or None
            How many of the n count; those after them fill up the pass. None: all.
        first : int
            The first that counts; those before it fill up the pass, too.
        """
        _, parts = self._parts(X, codes)
        if not parts:
            return
        factors = self._factors(parts)
        last = len(codes) if n_rows is None else first + n_rows
        factors[:first], factors[last:] = 0.0, 0.0
        into = dict(zip(self.parameters, totals, strict=True))
        while parts:
            parts.pop().add(factors, into)

    def traces(self, X: torch.Tensor, codes: torch.Tensor) -> list[torch.Tensor]:
        """Give what rows add up from, one entry a row each; parameters as for `add`."""
        scores, parts = self._parts(X, codes)
        by_row = scores.detach().reshape(len(X), -1)
        return [by_row, *(numbers for part in parts for numbers in part.numbers())]

    def rounding(self, most_rows: int) -> float:
        """How far a sum over at most so many rows may be from the exact one."""
        # Each of at most n additions rounds by 2^-53 of what is there, at most n C, and each of
        # n products of a row with its factor by 2^-53 of C.
        held = float(most_rows) ** 2 + most_rows
        # See `row_parts`: a row's terms are 256 C in sum at most.
        products = most_rows * DEPTH * _EXTENT if self._ghost else 0.0
        return self.l2_clip_norm * (held + products) * _UNIT

    def close(self) -> None:
        """Take all hooks off the module."""
        self._rows.close()

    @steady_kernels()
    def _parts(self, X: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, list[RowPart]]:
        """Scores of all copies, and the gradients of rows before they are clipped."""
        n_copies = X.shape[1]
        scores = self._rows.forward(X.flatten(0, 1))
        losses = functional.cross_entropy(
            scores, codes.repeat_interleave(n_copies), reduction="none"
        )
        return scores, self._rows.parts(losses, n_copies)

    def _factors(self, parts: Sequence[RowPart]) -> torch.Tensor:
        """What each gradient is multiplied by; 0 where it is not finite."""
        measured = [part.lengths() for part in parts]
        lengths, extents = (
            torch.linalg.vector_norm(torch.stack(each), dim=0)
            for each in zip(*measured, strict=True)
        )
        bound = self.l2_clip_norm * _MARGIN
        longest = torch.maximum(lengths, extents / _EXTENT)
        factors = torch.clamp(bound / longest.clamp(min=torch.finfo(longest.dtype).tiny), max=1.0)
        return torch.where(torch.isfinite(longest), factors, torch.zeros_like(factors))


def make_clipped_sums(clipping: str, module: torch.nn.Module, l2_clip_norm: float) -> ClippedSums:
    """Wrap a module for one of `CLIPPINGS`."""
    return ClippedSums(
        module, l2_clip_norm, functorch=clipping == "functorch", ghost=clipping == "ghost"
    )
