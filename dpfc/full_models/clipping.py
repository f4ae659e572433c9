"""Sums of clipped gradients, one gradient a row.

A row's gradient is that of its own cross-entropy over all trainable parameters. It is scaled
down to length C where it is longer, and left out where it is not finite: a row adds at most C
to a sum whatever it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from dpfc.full_models.row_gradients import RowGradients

__all__ = ["CLIPPINGS", "ClippedSums", "make_clipped_sums"]

CLIPPINGS = ("hooks", "functorch", "ghost")
# Below C by more than rounding adds, so that no row is longer than C.
_MARGIN = 1.0 - 2.0**-22
# Numbers in a float64 copy of gradients: what a core's cache holds, and little of a GPU's memory.
_PIECE, _CUDA_PIECE = 2**17, 2**24


class ClippedSums(ABC):
    """Adds up the clipped gradients of batches.

    Parameters
    ----------
    module : torch.nn.Module
        Checked by `module_checks`; in training mode. Its parameters are shared, not copied.
    l2_clip_norm : float
        C; infinite leaves every gradient as it is.
    functorch : bool
        See `RowGradients`.
    """

    def __init__(self, module: torch.nn.Module, l2_clip_norm: float, *, functorch: bool = False):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.l2_clip_norm = l2_clip_norm
        self._rows = RowGradients(module, functorch=functorch)

    @abstractmethod
    def add(self, X: torch.Tensor, codes: torch.Tensor, totals: Sequence[torch.Tensor]) -> None:
        """Add a batch's clipped gradients to float64 `totals`, one a trainable parameter.

        Parameters
        ----------
        X : torch.Tensor of shape (n_rows, n_copies, ...)
            Augmented copies of each row; the gradient of a row is the mean over its copies.
        codes : torch.Tensor of shape (n_rows,)
        totals : sequence of torch.Tensor, float64
        """

    def close(self) -> None:
        """Take all hooks off the module."""
        self._rows.close()

    def _factors(self, norms: torch.Tensor) -> torch.Tensor:
        """What each gradient is multiplied by; 0 where it is not finite."""
        bound = self.l2_clip_norm * _MARGIN
        factors = torch.clamp(bound / norms.clamp(min=torch.finfo(norms.dtype).tiny), max=1.0)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


class SampleGradients(ClippedSums):
    """Every row's gradient in memory: by Opacus' rules, or by functorch alone."""

    def add(self, X: torch.Tensor, codes: torch.Tensor, totals: Sequence[torch.Tensor]) -> None:
        """See `ClippedSums`."""
        n_rows, n_copies = X.shape[:2]
        scores = self._rows.forward(X.flatten(0, 1))
        losses = functional.cross_entropy(
            scores, codes.repeat_interleave(n_copies), reduction="none"
        )
        found = self._rows.gradients(losses)
        # A parameter that no layer used has no part in a row's gradient.
        used = [
            (_by_row(found.pop(parameter), n_rows, n_copies), total)
            for parameter, total in zip(self.parameters, totals, strict=True)
            if parameter in found
        ]
        lengths = [_lengths_in_float64(gradients) for gradients, _ in used]
        factors = self._factors(torch.linalg.vector_norm(torch.stack(lengths), dim=0))
        for gradients, total in used:
            _add_weighted(gradients, factors, total)


def _by_row(gradients: torch.Tensor, n_rows: int, n_copies: int) -> torch.Tensor:
    """Gradients (n_rows, n_entries), averaged over the copies of each row."""
    if n_copies == 1:
        return gradients.reshape(n_rows, -1)
    return gradients.reshape(n_rows, n_copies, -1).mean(1)


def _doubled(gradients: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Float64 copies of some columns of gradients (n_rows, n_entries) at a time.

    All are in the same place: without that, most of a step's time goes into fresh memory.
    """
    n_rows, n_entries = gradients.shape
    width = max(1, (_CUDA_PIECE if gradients.is_cuda else _PIECE) // n_rows)
    place = gradients.new_empty((n_rows, min(width, n_entries)), dtype=torch.float64)
    for start in range(0, n_entries, width):
        columns = slice(start, min(start + width, n_entries))
        yield columns, place[:, : columns.stop - start].copy_(gradients[:, columns])


def _lengths_in_float64(gradients: torch.Tensor) -> torch.Tensor:
    parts = [torch.linalg.vector_norm(piece, dim=1) for _, piece in _doubled(gradients)]
    lengths: torch.Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return lengths


def _add_weighted(gradients: torch.Tensor, factors: torch.Tensor, total: torch.Tensor) -> None:
    flat, left_out = total.view(-1), factors == 0.0
    broken = bool(left_out.any())
    for columns, piece in _doubled(gradients):
        if broken:  # zero times infinity is no number
            piece[left_out] = 0.0
        flat[columns] += factors @ piece


class GhostGradients(ClippedSums):
    """Two passes and no row's gradient in memory: lengths first, then the weighted sum.

    The length of a mean over augmented copies does not follow from the lengths of the copies:
    one copy a row only.

    References
    ----------
    Li, Tramèr, Liang, Hashimoto (2022), Large Language Models Can Be Strong Differentially
    Private Learners, section 4.
    """

    def add(self, X: torch.Tensor, codes: torch.Tensor, totals: Sequence[torch.Tensor]) -> None:
        """See `ClippedSums`."""
        losses = functional.cross_entropy(self._rows.forward(X[:, 0]), codes, reduction="none")
        norms = torch.linalg.vector_norm(torch.stack(self._rows.lengths(losses)), dim=0)
        factors = self._factors(norms)
        kept = factors > 0.0
        if not bool(kept.all()):
            # Zero times infinity is no number: such rows stay out of the second pass.
            if bool(kept.any()):
                self.add(X[kept], codes[kept], totals)
            return
        gradients = torch.autograd.grad(
            (losses * factors).sum(), self.parameters, allow_unused=True
        )
        for gradient, total in zip(gradients, totals, strict=True):
            if gradient is not None:
                total += gradient


def make_clipped_sums(clipping: str, module: torch.nn.Module, l2_clip_norm: float) -> ClippedSums:
    """Wrap a module for one of `CLIPPINGS`."""
    if clipping == "ghost":
        return GhostGradients(module, l2_clip_norm)
    return SampleGradients(module, l2_clip_norm, functorch=clipping == "functorch")
