"""Residuals and curvatures of the losses; no data, no noise.

Labels are codes 0 … n_classes - 1. The gradient of every loss with respect to a row's logits f is
its residual r(f, y), so the gradient with respect to the weights is r xᵀ.

What private sums take of a row must be the same bits on every machine, in any block. So float32
logits (n_outputs, n_rows) go through elementwise IEEE operations in a fixed order alone, in place:
a library's exponential is another one in another release. Rounding to integers comes after.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from dpfc._support.late import torch
from dpfc.mechanism.row_map import as_type, library, ordered_sum

__all__ = ["LOSSES", "Loss", "SigmoidLoss", "SoftmaxLoss", "exponential"]

_LEAST = -30.0
_TAYLOR = [math.log(2.0) ** k / math.factorial(k) for k in range(5, -1, -1)]


class Loss(Protocol):
    """A loss of linear scores whose weight gradient factors as residual times row."""

    name: str

    def n_outputs(self, n_classes: int) -> int:
        """Columns of the logits."""
        ...

    def residual(self, logits: Any, codes: Any) -> Any:
        """Gradient of the loss with respect to logits, in their place; (n_outputs, n_rows)."""
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

    def residual(self, logits: Any, codes: Any) -> Any:
        """Probabilities minus the one-hot label; sums to zero over the classes."""
        xp = library(logits)
        logits -= xp.amax(logits, axis=0)
        powers = exponential(logits)
        spare = powers * 1.0
        powers /= ordered_sum(spare, axis=0)[0]
        powers[codes, _places(codes)] -= 1.0
        return powers

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

    def residual(self, logits: Any, codes: Any) -> Any:
        """Probabilities minus the target, each output by itself."""
        positive = logits > 0.0
        powers = exponential(-abs(logits))
        sums = powers + 1.0
        residual = library(logits).where(positive, 1.0, powers) / sums
        if len(residual) == 1:  # of the second class against the first
            residual[0] -= as_type(codes, residual)
        else:
            residual[codes, _places(codes)] -= 1.0
        return residual

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
    def curvature(logits: Any) -> Any:
        """Second derivatives p_k (1 - p_k) in [0, 1/4], of the logits' shape."""
        powers = exponential(-abs(logits))
        sums = powers + 1.0
        powers /= sums * sums
        return powers


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (SoftmaxLoss(), SigmoidLoss())}


def exponential(exponents: Any) -> Any:
    """Exp of float32 numbers, none above zero, in place; off by at most 2⁻¹⁷ of itself.

    exp t = 2ⁿ 2ʳ with the whole number n nearest to t / ln 2, and Taylor's polynomial of degree 5
    for 2ʳ, whose remainder is at most 0.35⁶/6! of the value. Exponents below -30 are taken for -30.
    """
    xp = library(exponents)
    t = xp.clip(exponents, _LEAST, None, out=exponents)
    t *= 1.0 / math.log(2.0)
    whole = xp.round(t)
    t -= whole
    bits = whole.astype(np.int32) if xp is np else whole.to(torch.int32)
    bits += 127
    bits <<= 23  # float32's exponent: the number 2ⁿ
    result = t * _TAYLOR[0]
    for coefficient in _TAYLOR[1:-1]:  # Horner's scheme
        result += coefficient
        result *= t
    result += _TAYLOR[-1]
    result *= bits.view(xp.float32)
    return result


def _places(codes: Any) -> Any:
    if isinstance(codes, np.ndarray):
        return np.arange(len(codes))
    return torch.arange(len(codes), device=codes.device)
