"""What a linear classifier does once it is fitted; weights are public, so is this."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from dpfc.accounting import PrivacyStatement
from dpfc.linear.head import LinearHead
from dpfc.linear.probabilities import Link
from dpfc.linear.sklearn_guard import warn_of_learning_from_scores
from dpfc.mechanism.labels import accuracy
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import BlockSource, cache_labels
from dpfc.mechanism.user_rows import as_matrix, check_columns

if TYPE_CHECKING:
    import torch

__all__ = ["LinearPredictor"]

_PREDICT_ROWS = 4096


class LinearPredictor(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Scores, probabilities and classes from weights on bounded, centred rows."""

    l2_clip_norm: float
    normalize: bool
    fit_intercept: bool
    intercept_scaling: float
    nonnegative_root: bool
    length_scaling: float = 0.0

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    scale_: NDArray[np.float64] | None
    center_: NDArray[np.float64] | None
    linear_map_: NDArray[np.float64] | None
    length_coef_: NDArray[np.float64] | None
    classes_: NDArray[Any]
    n_features_in_: int
    privacy_: PrivacyStatement

    @property
    @abstractmethod
    def _link(self) -> Link:
        """How scores become probabilities; see `dpfc.linear.probabilities`."""

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores of each class.

        Parameters
        ----------
        X : array-like, torch.Tensor of shape (n_samples, n_features), or FeatureCache

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        scores = self._scores(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of each class, shape (n_samples, n_classes)."""
        scores = self._scores(X)
        return self._head().probabilities(scores)

    def predict(self, X: Any) -> NDArray[Any]:
        """Most likely class of each row, shape (n_samples,)."""
        scores = self._scores(X)
        return self._head().labels(scores)

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: Any = None) -> float:
        """Accuracy on rows with labels; a feature cache brings its own labels.

        The figure is computed without noise: it is the data owner's own look, and is
        covered by no guarantee if the rows are private. `dpfc.evaluate_privately` gives one
        that may be published.
        """
        if y is None and isinstance(X, BlockSource):
            y = np.concatenate([cache_labels(X, block_y) for _, block_y in X.blocks()])
        return accuracy(y, self.predict(X), sample_weight, type(self).__name__)

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Linear scores, block by block, shape (n_samples, n_outputs or 1)."""
        check_is_fitted(self, "coef_")
        warn_of_learning_from_scores()
        head = self._head()
        X = self._check_features(X, reset=False)
        if isinstance(X, BlockSource):
            blocks = (np.asarray(block, dtype=np.float64) for block, _ in X.blocks(_PREDICT_ROWS))
        else:
            blocks = (
                _on_cpu(X[start : start + _PREDICT_ROWS])
                for start in range(0, len(X), _PREDICT_ROWS)
            )
        return np.concatenate([head.scores(block) for block in blocks])

    def _head(self) -> LinearHead:
        """What the fitted weights do."""
        return LinearHead(
            self._fitted_row_map(), self._row_coef(), self.intercept_, self._link, self.classes_
        )

    def _check_features(self, X: Any, *, reset: bool) -> Any:
        """Check rows, or a cache's width; a fit remembers their columns, the rest keeps to them.

        Tensors on a GPU stay there.
        """
        if isinstance(X, BlockSource):
            self._check_width(X.n_features, "the feature cache")
            return X
        rows = as_matrix(X)
        if reset:
            self.n_features_in_ = rows.shape[1]
        check_columns(self, X, reset=reset)
        self._check_width(rows.shape[1], "X")
        return rows

    def _check_width(self, n_features: int, what: str) -> None:
        if n_features != self.n_features_in_:
            raise ValueError(
                f"{what} has {n_features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )

    def _row_map(self) -> RowMap:
        """How rows are bounded before anything is released."""
        scaling = self.intercept_scaling if self.fit_intercept else 0.0
        # NumPy's scalars would carry a low precision into the bound.
        return RowMap(
            float(self.l2_clip_norm),
            self.normalize,
            intercept_scaling=float(scaling),
            nonnegative_root=self.nonnegative_root,
            length_scaling=float(self.length_scaling) if self.normalize else 0.0,
        )

    def _fitted_row_map(self) -> RowMap:
        """How arrays are mapped to what `_row_coef` is for: without the constant column."""
        row_map = replace(
            self._row_map(),
            scale=self.scale_,
            center=self.center_,
            linear=self.linear_map_,
            intercept_scaling=0.0,
        )
        return row_map if self.length_coef_ is not None else replace(row_map, length_scaling=0.0)

    def _row_coef(self) -> NDArray[np.float64]:
        """Weights of all columns of a mapped row."""
        if self.length_coef_ is None:
            return self.coef_
        return np.hstack([self.coef_, self.length_coef_])


def _on_cpu(rows: NDArray[Any] | torch.Tensor) -> NDArray[np.float64]:
    return (rows if isinstance(rows, np.ndarray) else rows.cpu().numpy()).astype(np.float64)
