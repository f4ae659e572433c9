"""What a public model says about private test rows, as rows of their own.

A mechanism counts them as it sums any rows. Each is a function of its own test row alone, to
the last bit: were it not, one removed row could tip the predictions of others, and a count
would move by more than its sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from dpfc._support.late import torch
from dpfc.linear.prediction import LinearPredictor
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.labels import as_labels, encode_labels
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import ArrayRows, BlockSource, CacheRows, check_size, open_cache

__all__ = ["IDENTITY", "ScoredRows", "exact_scores", "open_test_rows"]

# Scored rows are counted as they are; counts need no bound on them.
IDENTITY = RowMap(math.inf, normalize=False)
_SMALLEST = 1e-6  # a centre closer to 0 or 1 tells bins nothing


class ScoredRows:
    """Predicted class and probabilities of each test row.

    Column 0 is the position of the predicted class in `classes_`, columns 1 … K are the
    probabilities of the classes.

    Parameters
    ----------
    source : LabeledRows
        Checked private test rows.
    model : LinearPredictor
        Fitted, and public.

    Notes
    -----
    Scores are sums of whole numbers (`dpfc.evaluation.scored_rows`); what follows works on one
    row at a time. They agree with `decision_function` to about 2^-24 of the largest score
    that a row could have.
    """

    def __init__(self, source: LabeledRows, model: LinearPredictor):
        self.device = torch.device("cpu")
        self._source = source
        self._model = model
        self._row_map = model._fitted_row_map()
        self._coef = torch.from_numpy(model._row_coef())
        self.n_samples = source.n_samples
        self.n_features = 1 + len(model.classes_)
        self.codes = source.codes
        self.shares = source.shares

    @property
    def central_logits(self) -> NDArray[np.float64]:
        """Logits that the model gives a row at its own centre, shape (n_classes,); public."""
        p = self._model._head().probabilities(self._model.intercept_[np.newaxis])[0]
        return np.asarray(logit(p.clip(_SMALLEST, 1.0 - _SMALLEST)))

    def blocks(self, block_rows: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Yield (scored rows (n, 1 + n_classes) float64, codes (n,))."""
        for rows, codes in self._source.blocks(block_rows):
            mapped = self._row_map(rows if isinstance(rows, np.ndarray) else rows.cpu().numpy())
            yield self._scored(torch.from_numpy(mapped)), codes

    def _scored(self, rows: torch.Tensor) -> NDArray[np.float64]:
        """Predicted class and probabilities of mapped rows, (n_rows, 1 + n_classes)."""
        with np.errstate(all="ignore"):  # that a row's score overflows is private
            scores = self._scores(rows).numpy() + self._model.intercept_
            head = self._model._head()
            scored = np.column_stack([head.codes(scores), head.probabilities(scores)])
        return np.asarray(scored, dtype=np.float64)

    def _scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Linear scores (n_rows, n_outputs); rows without a bound are scaled by their own size."""
        bound = self._row_map.l2_bound
        if math.isfinite(bound):
            return exact_scores(rows, self._coef, bound)
        # Entries below 2 after division by a power of two, which loses nothing.
        exponents = np.frexp(rows.abs().amax(dim=1, keepdim=True).numpy())[1]
        scale = torch.from_numpy(np.ldexp(1.0, exponents - 1))
        return exact_scores(rows / scale, self._coef, 2.0 * math.sqrt(rows.shape[1])) * scale


def open_test_rows(model: LinearPredictor, X: Any, y: ArrayLike | None) -> ArrayRows | CacheRows:
    """Check private rows with labels against a fitted model.

    Raises
    ------
    ValueError, TypeError
        As in `fit`: for what lies outside the data domain, to the owner only.
    """
    if isinstance(X, BlockSource) and y is not None:
        raise ValueError("y must be left out when X is a feature cache; it has labels.")
    X = model._check_features(X, reset=False)
    if isinstance(X, BlockSource):
        return open_cache(X, model.classes_)
    check_size(len(X))
    labels = as_labels(y, len(X), "evaluate_privately")
    return ArrayRows(X, encode_labels(labels, model.classes_))


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
