"""Sums of clipped gradients, one gradient a row, by Opacus' three ways to get at them.

A row's gradient is that of its own cross-entropy over all trainable parameters. It is scaled
down to length C where it is longer, and left out where it is not finite: a row adds at most C
to a sum whatever it holds.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

__all__ = ["CLIPPINGS", "ClippedSums", "make_clipped_sums"]

CLIPPINGS = ("hooks", "functorch", "ghost")
# Below C by more than a product's rounding in float32 adds, so that no row is longer than C.
_MARGIN = 1.0 - 2.0**-22
# Numbers whose float64 copy a core's cache holds: 512 KiB. Without pieces most of a step's time
# went into fresh memory for the copies.
_PIECE = 2**16


class ClippedSums(ABC):
    """Adds up the clipped gradients of batches.

    Parameters
    ----------
    module : torch.nn.Module
        Checked by `module_checks`; in training mode. Its parameters are shared, not copied.
    l2_clip_norm : float
        C; infinite leaves every gradient as it is.
    """

    _wrapped: Any  # Opacus' module around the module

    def __init__(self, module: torch.nn.Module, l2_clip_norm: float):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.l2_clip_norm = l2_clip_norm

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
        self._wrapped.to_standard_module()

    def _factors(self, norms: torch.Tensor) -> torch.Tensor:
        """What each gradient is multiplied by; 0 where it is not finite."""
        bound = self.l2_clip_norm * _MARGIN
        factors = torch.clamp(bound / norms.clamp(min=torch.finfo(norms.dtype).tiny), max=1.0)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


class SampleGradients(ClippedSums):
    """Every row's gradient in memory: by hooks with Opacus' formulas, or by functorch."""

    def __init__(self, module: torch.nn.Module, l2_clip_norm: float, *, functorch: bool):
        from opacus.grad_sample import GradSampleModule

        super().__init__(module, l2_clip_norm)
        self._wrapped = GradSampleModule(
            module, loss_reduction="sum", strict=False, force_functorch=functorch
        )

    def add(self, X: torch.Tensor, codes: torch.Tensor, totals: Sequence[torch.Tensor]) -> None:
        """See `ClippedSums`."""
        n_rows, n_copies = X.shape[:2]
        scores = self._wrapped(X.flatten(0, 1))
        losses = functional.cross_entropy(
            scores, codes.repeat_interleave(n_copies), reduction="none"
        )
        _backward(losses.sum())
        gradients = [self._taken(p, n_rows, n_copies) for p in self.parameters]
        pieces = [_pieces(gradient) for gradient in gradients]
        lengths = [
            torch.linalg.vector_norm(piece, dim=1, dtype=torch.float64)
            for of_parameter in pieces
            for piece in of_parameter
        ]
        factors = self._factors(torch.linalg.vector_norm(torch.stack(lengths), dim=0)).unsqueeze(1)
        broken = bool((factors == 0.0).any())
        for of_parameter, total in zip(pieces, totals, strict=True):
            sums = []
            for piece in of_parameter:
                if broken:  # zero times infinity is no number
                    piece.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
                sums.append(piece.mul_(factors.to(piece.dtype)).sum(0, dtype=torch.float64))
            total += torch.cat(sums).view(total.shape)

    @staticmethod
    def _taken(parameter: torch.nn.Parameter, n_rows: int, n_copies: int) -> torch.Tensor:
        """Take a parameter's gradients off it, averaged over the copies of each row."""
        gradient: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
        parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
        if n_copies == 1:
            return gradient.detach()
        return gradient.detach().reshape(n_rows, n_copies, *gradient.shape[1:]).mean(1)


def _pieces(gradients: torch.Tensor) -> Sequence[torch.Tensor]:
    """Cut gradients (n_rows, ...) into columns (n_rows, n_entries) that fit into the cache."""
    flat = gradients.unsqueeze(-1).flatten(1)  # a number's gradients have no axis but the rows
    if gradients.is_cuda:  # which needs no copies, and few kernels
        return (flat,)
    return torch.split(flat, max(1, _PIECE // max(1, len(flat))), dim=1)


class GhostGradients(ClippedSums):
    """Two passes and no row's gradient in memory: lengths first, then the weighted sum.

    The length of a mean over augmented copies does not follow from the lengths of the copies:
    one copy a row only.

    References
    ----------
    Li, Tramèr, Liang, Hashimoto (2022), Large Language Models Can Be Strong Differentially
    Private Learners, section 4.
    """

    def __init__(self, module: torch.nn.Module, l2_clip_norm: float):
        from opacus.grad_sample import GradSampleModuleFastGradientClipping

        super().__init__(module, l2_clip_norm)
        self._wrapped = GradSampleModuleFastGradientClipping(
            module, loss_reduction="sum", strict=False, max_grad_norm=l2_clip_norm
        )

    def add(self, X: torch.Tensor, codes: torch.Tensor, totals: Sequence[torch.Tensor]) -> None:
        """See `ClippedSums`."""
        losses = functional.cross_entropy(self._wrapped(X[:, 0]), codes, reduction="none")
        _backward(losses.sum(), retain_graph=True)
        factors = self._factors(self._wrapped.get_norm_sample())
        self._forget()
        if not bool((factors > 0.0).all()):
            # Zero times infinity is no number: such rows stay out of the second pass.
            kept = factors > 0.0
            if bool(kept.any()):
                self.add(X[kept], codes[kept], totals)
            return
        self._wrapped.disable_hooks()
        _backward((losses * factors).sum())
        self._wrapped.enable_hooks()
        for parameter, total in zip(self.parameters, totals, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
        self._forget()

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
            parameter._norm_sample = None  # type: ignore[attr-defined]


def _backward(loss: torch.Tensor, *, retain_graph: bool = False) -> None:
    with warnings.catch_warnings():
        # Rows need no gradient of their own, and Opacus' hooks know what to do then.
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]


def make_clipped_sums(clipping: str, module: torch.nn.Module, l2_clip_norm: float) -> ClippedSums:
    """Wrap a module for one of `CLIPPINGS`."""
    if clipping == "ghost":
        return GhostGradients(module, l2_clip_norm)
    return SampleGradients(module, l2_clip_norm, functorch=clipping == "functorch")
