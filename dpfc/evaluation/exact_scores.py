"""Scores of a public model that are bit-exact functions of one row, for counting predictions."""

from __future__ import annotations

import math

from dpfc._support.late import torch

__all__ = ["exact_scores"]

# Bits of a bounded row and of a model's weights; together with √d / 2 of rounding in each,
# every sum of products stays below 2⁵³.
_ROW_BITS = 25
_WEIGHT_BITS = 26


def exact_scores(rows: torch.Tensor, coef: torch.Tensor, l2_bound: float) -> torch.Tensor:
    """Linear scores (n_rows, n_outputs) that depend on each row alone, to the last bit.

    A matrix product in floating point rounds in an order that the shape of the block decides:
    a row that is removed moves the last bits of other rows' scores, and may tip a prediction.
    Here rows and weights are rounded to whole multiples of steps so coarse that every sum
    of products is a whole number below 2⁵³, which float64 adds without rounding, in any order.

    Parameters
    ----------
    rows : torch.Tensor of shape (n_rows, n_features), float64
        Of norm at most `l2_bound`.
    coef : torch.Tensor of shape (n_outputs, n_features), float64
        Finite.
    l2_bound : float in (0, inf]
        Infinite: plain scores.
    """
    peak = float(coef.abs().max())
    if math.isinf(l2_bound) or peak == 0.0:
        return rows @ coef.T
    # Squares of weights as large or as small as float64 has them would over- or underflow.
    scale = math.ldexp(1.0, math.frexp(peak)[1] - 1)
    coef = coef / scale
    largest = float(torch.linalg.vector_norm(coef, dim=1).max())
    row_step = 2.0 ** (math.ceil(math.log2(l2_bound)) - _ROW_BITS)
    weight_step = 2.0 ** (math.ceil(math.log2(largest)) - _WEIGHT_BITS)
    whole = torch.round(rows / row_step) @ torch.round(coef / weight_step).T
    return whole * (row_step * weight_step) * scale
