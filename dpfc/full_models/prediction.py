"""What a trained network does; its weights are public, so is this."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from dpfc.full_models.dp_sgd.rows import UserRows, as_input, bounded_rows, check_rows
from dpfc.linear.sklearn_guard import warn_of_learning_from_scores
from dpfc.mechanism.labels import accuracy
from dpfc.mechanism.user_rows import check_columns

__all__ = ["NetworkPredictor"]

_PREDICT_ROWS = 256


class NetworkPredictor(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Scores, probabilities and classes from a network.

    Attributes
    ----------
    module_ : torch.nn.Module
        In evaluation mode.
    classes_ : ndarray of shape (n_classes,)
    input_shape_ : tuple of int
        Of a row.
    row_kind_ : {"floats", "bytes", "tokens"} or None
        What rows were at the fit, and have to be; None in older model files.
    """

    module_: torch.nn.Module
    classes_: NDArray[Any]
    input_shape_: tuple[int, ...]
    row_kind_: str | None
    input_bound: float

    @property
    def n_features_in_(self) -> int:
        """Numbers in a row."""
        check_is_fitted(self, "input_shape_")
        return math.prod(self.input_shape_)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores of each class, shape (n_samples, n_classes), or (n_samples,) for two classes."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of each class, shape (n_samples, n_classes)."""
        return np.asarray(torch.softmax(torch.from_numpy(self._scores(X)), dim=1).numpy())

    def predict(self, X: Any) -> NDArray[Any]:
        """Most likely class of each row, shape (n_samples,)."""
        return np.asarray(self.classes_[self._scores(X).argmax(axis=1)])

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: Any = None) -> float:
        """Accuracy on rows with labels; exact, and covered by no guarantee."""
        if y is None:
            y = check_rows(X, None).labels
        return accuracy(y, self.predict(X), sample_weight, type(self).__name__)

    def check_rows(self, X: Any, y: ArrayLike | None, *, labelled: bool = True) -> UserRows:
        """Check rows against those that the network was trained on, and bound them as these.

        Raises
        ------
        TypeError, ValueError
            If they are no rows of numbers, or of another shape, kind, or with other columns.
        """
        rows = check_rows(X, y, labelled=labelled, kind=self.row_kind_)
        check_columns(self, X, reset=False)
        if tuple(rows.X.shape[1:]) != self.input_shape_:
            raise ValueError(
                f"X has rows of shape {tuple(rows.X.shape[1:])}, but {type(self).__name__} is "
                f"expecting {self.input_shape_}."
            )
        return dataclasses.replace(rows, X=bounded_rows(rows.X, self.input_bound))

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "module_")
        warn_of_learning_from_scores()
        rows = self.check_rows(X, None, labelled=False).X
        device = next(self.module_.parameters()).device
        with torch.no_grad():
            try:
                parts = [
                    self.module_(as_input(part, device))
                    for part in torch.split(rows, _PREDICT_ROWS)
                ]
            except IndexError as error:  # of an embedding
                raise ValueError(
                    "X holds a token that the network does not know: tokens are whole numbers from "
                    "0 on, below what its embeddings were made for."
                ) from error
        return np.asarray(torch.cat(parts).double().cpu().numpy())
