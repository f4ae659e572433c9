"""Residuals, probabilities and Hessian weights of the losses; no data, no noise.

Logits f have shape (n_rows, n_outputs), labels are codes 0 … n_classes - 1. The
gradient of every loss with respect to a row's logits is its residual r(f, y), so
the gradient with respect to the weights is r xᵀ.
"""

from __future__ import annotations

import math
from typing import Protocol

from dpfc._support.late import torch

__all__ = ["LOSSES", "Loss", "SigmoidLoss", "SoftmaxLoss", "SquaredLoss"]


class Loss(Protocol):
    """A loss of linear scores whose weight gradient factors as residual times row."""

    name: str

    def n_outputs(self, n_classes: int) -> int:
        """Columns of the logits."""
        ...

    def residual(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Gradient of the loss with respect to the logits, shape (n_rows, n_outputs)."""
        ...

    def residual_bound(self, n_outputs: int) -> float:
        """Largest l2 norm that a residual can have; inf if there is none."""
        ...

    def initial_curvature(self, n_classes: int) -> float:
        """Largest eigenvalue of the loss's Hessian in the logits at logits of zero."""
        ...

    def project(self, gradient: torch.Tensor) -> torch.Tensor:
        """Project a noisy gradient (n_outputs, n_columns) to where exact ones lie."""
        ...

    def degrees_of_freedom(self, n_outputs: int) -> int:
        """Dimensions that a projected column of a gradient has."""
        ...


class SoftmaxLoss:
    """Multinomial logistic loss, log Σ exp f_k - f_y; r = softmax(f) - e_y."""

    name = "softmax"

    def n_outputs(self, n_classes: int) -> int:
        """One column a class."""
        return n_classes

    def residual(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Probabilities minus the one-hot label; sums to zero over the classes."""
        residual = torch.softmax(logits, dim=1)
        residual[torch.arange(len(codes), device=codes.device), codes] -= 1.0
        return residual

    def residual_bound(self, n_outputs: int) -> float:
        """||p - e_y||² = (1 - p_y)² + Σ_{k≠y} p_k² <= 2."""
        return math.sqrt(2.0)

    def initial_curvature(self, n_classes: int) -> float:
        """diag(p) - p pᵀ at p = 1/K has eigenvalue 1/K on vectors that sum to zero."""
        return 1.0 / n_classes

    def project(self, gradient: torch.Tensor) -> torch.Tensor:
        """Residuals sum to zero over the classes; what does not is noise."""
        return gradient - gradient.mean(dim=0)

    def degrees_of_freedom(self, n_outputs: int) -> int:
        """One less than outputs: columns sum to zero."""
        return n_outputs - 1


class SigmoidLoss:
    """One logistic loss a class (one versus rest); r_k = σ(f_k) - [y = k].

    Two classes need one output, the second class against the first.
    """

    name = "sigmoid"

    def n_outputs(self, n_classes: int) -> int:
        """One column a class; one for two classes."""
        return 1 if n_classes == 2 else n_classes

    def residual(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Probabilities minus the target, each output by itself."""
        return torch.sigmoid(logits) - _indicator(logits, codes)

    def residual_bound(self, n_outputs: int) -> float:
        """Each of the outputs contributes at most 1."""
        return math.sqrt(n_outputs)

    def initial_curvature(self, n_classes: int) -> float:
        """At p = 1/2, p (1 - p)."""
        return 0.25

    def project(self, gradient: torch.Tensor) -> torch.Tensor:
        """Exact gradients lie anywhere."""
        return gradient

    def degrees_of_freedom(self, n_outputs: int) -> int:
        """One an output."""
        return n_outputs

    @staticmethod
    def hessian_weights(logits: torch.Tensor) -> torch.Tensor:
        """Second derivatives h_k = p_k (1 - p_k) in [0, 1/4], shape (n_rows, n_outputs)."""
        probabilities = torch.sigmoid(logits)
        return probabilities * (1.0 - probabilities)


class SquaredLoss:
    """Half the squared distance to the one-hot label; r = f - e_y, unbounded unless clipped."""

    name = "squared"

    def n_outputs(self, n_classes: int) -> int:
        """One column a class."""
        return n_classes

    def residual(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Scores minus the one-hot label."""
        return logits - _indicator(logits, codes)

    def residual_bound(self, n_outputs: int) -> float:
        """There is none."""
        return math.inf

    def initial_curvature(self, n_classes: int) -> float:
        """Constant."""
        return 1.0

    def project(self, gradient: torch.Tensor) -> torch.Tensor:
        """Exact gradients lie anywhere."""
        return gradient

    def degrees_of_freedom(self, n_outputs: int) -> int:
        """One an output."""
        return n_outputs


LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (SoftmaxLoss(), SigmoidLoss(), SquaredLoss())
}


def _indicator(logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Targets of 0 and 1 in the shape of the logits; one column means the second class."""
    if logits.shape[1] == 1:
        return codes.to(logits.dtype).unsqueeze(1)
    return torch.nn.functional.one_hot(codes, logits.shape[1]).to(logits.dtype)
