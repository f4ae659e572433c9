"""What the private classifiers share: checking, planning, fitting, predicting, stating."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from dpfc.accounting import PrivacyPlan, PrivacyStatement, ReleaseRequest, calibrate, make_statement
from dpfc.data import (
    ArrayRows,
    BlockSource,
    CacheRows,
    cache_labels,
    check_finite,
    check_size,
    encode_labels,
    open_cache,
    public_classes,
    without_values,
)
from dpfc.exceptions import PrivacyWarning
from dpfc.mechanisms import GaussianMechanism
from dpfc.memory import check_memory
from dpfc.model_file import save_model
from dpfc.noise import NoiseSource, noise_source
from dpfc.parameters import BOUND, Choice, Constraint, Flag, Interval, check_parameters
from dpfc.progress import release_progress
from dpfc.row_map import RowMap

__all__ = ["PrivateLinearClassifier"]

# Shares of the budget (of μ²) for what is released beside a solver's own statistics.
_MEAN_SHARE = 0.03
_COUNT_SHARE = 0.005
_PREDICT_ROWS = 4096
_FITTED = ("coef_", "intercept_", "center_", "classes_", "privacy_", "feature_names_in_")
_DTYPES = [np.float64, np.float32, np.float16]
_RELATIONS = ("add_or_remove_one", "replace_one")


class PrivateLinearClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear classifier on bounded rows, trained from a plan of private releases.

    A subclass says what its solver asks for (`_requests`), turns releases into weights
    (`_solve`), and turns scores into probabilities (`_probabilities`). It never sees a row.
    """

    epsilon: float
    delta: float
    classes: Iterable[Any] | None
    neighboring_relation: str
    n_samples: int | None
    l2_clip_norm: float
    normalize: bool
    center: bool
    fit_intercept: bool
    intercept_scaling: float
    random_state: int | np.random.Generator | np.random.RandomState | None
    verbose: bool

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    center_: NDArray[np.float64] | None
    classes_: NDArray[Any]
    n_features_in_: int
    privacy_: PrivacyStatement

    _constraints: ClassVar[dict[str, Constraint]] = {
        "epsilon": Interval(0, math.inf, closed="right"),
        "delta": Interval(0, 1),
        "neighboring_relation": Choice(_RELATIONS),
        "n_samples": Interval(1, closed="left", integer=True, words=(None,)),
        "l2_clip_norm": BOUND,
        "normalize": Flag(),
        "center": Flag(),
        "fit_intercept": Flag(),
        "intercept_scaling": Interval(0, 1),
        "verbose": Flag(),
    }

    # -- what a solver provides ------------------------------------------------------

    @abstractmethod
    def _requests(self) -> list[ReleaseRequest]:
        """The releases that the solver draws, with shares that sum to 1."""

    @abstractmethod
    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        """Weights of shape (n_outputs, n_columns), from releases alone."""

    @abstractmethod
    def _probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n_rows, n_classes) from scores (n_rows, n_outputs or 1)."""

    def _needs_n_samples(self) -> bool:
        """Whether the solver itself scales by the number of rows."""
        return False

    def _check_size(self, n_columns: int, n_classes: int, device: torch.device) -> None:
        """Refuse, before any spend, what does not fit into memory: here, one matrix."""
        check_memory(
            10 * 8 * n_columns**2,  # measured: 9.4 doubles an entry at the peak
            f"one matrix of {n_columns} x {n_columns} and its factors",
            "Reduce the features.",
            device,
        )

    # -- fitting ---------------------------------------------------------------------

    def privacy_plan(self) -> PrivacyPlan:
        """Work out what `fit` will release and with how much noise; needs no data.

        Returns
        -------
        PrivacyPlan

        Raises
        ------
        ValueError
            If a parameter is not allowed.
        """
        self._check_parameters()
        extra = []
        if self.center:
            extra.append(ReleaseRequest("feature_sum", _MEAN_SHARE))
        public_count = self.neighboring_relation == "replace_one" or self.n_samples is not None
        if (self.center or self._needs_n_samples()) and not public_count:
            extra.append(ReleaseRequest("count", _COUNT_SHARE))
        rest = 1.0 - sum(request.share for request in extra)
        own = [
            ReleaseRequest(r.name, rest * r.share, r.count, r.sampling_probability)
            for r in self._requests()
        ]
        return calibrate(
            [*extra, *own],
            target_epsilon=self.epsilon,
            target_delta=self.delta,
            neighboring_relation=self.neighboring_relation,
        )

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Train under the budget.

        Parameters
        ----------
        X : array-like, torch.Tensor of shape (n_samples, n_features), or FeatureCache
            Private rows. A tensor on a GPU is worked on there.
        y : array-like of shape (n_samples,), optional
            Labels; left out for a feature cache, which has its own.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data is not allowed; nothing was spent then.

        Warns
        -----
        PrivacyWarning
            If the run is seeded, or the classes are read from the labels.
        """
        noise = self._check_parameters()
        for name in _FITTED:  # a failed fit leaves no half of an older model
            self.__dict__.pop(name, None)
        rows = self._open_rows(X, y)
        plan = self.privacy_plan()
        row_map = self._row_map(None, intercept=True)
        self._check_size(row_map.n_columns(rows.n_features), len(self.classes_), rows.device)
        if noise.reproducible:
            warnings.warn(
                "random_state was given: anyone who knows the seed can remove the noise. "
                "The result must not be published.",
                PrivacyWarning,
                stacklevel=2,
            )
        draws = sum(release.count for release in plan.releases)
        with release_progress(draws) if self.verbose else nullcontext() as on_release:
            mechanism = GaussianMechanism(
                rows, row_map, len(self.classes_), plan, noise, self.n_samples, on_release
            )
            if self.center:
                mechanism.center_rows()
            weights = self._solve(mechanism)
        self._set_model(weights, mechanism)
        self.privacy_ = make_statement(
            plan,
            mechanism.records,
            estimator=type(self).__name__,
            seeded=noise.reproducible,
            rests_on=self._rests_on(isinstance(X, BlockSource) and X.class_names is not None),
            random_source=noise.description,
        )
        return self

    def _check_parameters(self) -> NoiseSource:
        check_parameters(self.get_params(deep=False), self._constraints)
        if math.isinf(self.l2_clip_norm) and (self.normalize or not math.isinf(self.epsilon)):
            raise ValueError(
                "l2_clip_norm must be finite unless epsilon is inf and normalize is False, got inf."
            )
        return noise_source(self.random_state)

    def _open_rows(self, X: Any, y: ArrayLike | None) -> ArrayRows | CacheRows:
        """Check the data, set the public attributes, and hand the rows to the mechanism."""
        if isinstance(X, BlockSource):
            if y is not None:
                raise ValueError("y must be left out when X is a feature cache; it has labels.")
            labels = (cache_labels(X, block_y) for _, block_y in X.blocks(_PREDICT_ROWS))
            self.classes_ = public_classes(self.classes, labels, X.class_names)
            self.n_features_in_ = X.n_features
            return open_cache(X, self.classes_)
        X, y = self._check_arrays(X, y)
        check_size(len(X))
        self.classes_ = public_classes(self.classes, [y])
        return ArrayRows(X, encode_labels(y, self.classes_))

    def _check_arrays(self, X: Any, y: ArrayLike | None) -> tuple[Any, NDArray[Any]]:
        """scikit-learn's checks; tensors on a GPU stay there and get the same ones."""
        if not isinstance(X, torch.Tensor) or X.device.type == "cpu":
            with without_values():
                X, y = validate_data(self, X, y, dtype=_DTYPES, ensure_all_finite=False)
            check_finite(X)
        else:
            X = self._check_gpu_tensor(X, reset=True)
            if y is None:
                raise ValueError(f"{type(self).__name__} requires y to be passed.")
            y = y.cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
            if len(y) != len(X):
                raise ValueError(f"X has {len(X)} rows and y has {len(y)} labels.")
        with without_values():
            check_classification_targets(y)
            labels: NDArray[Any] = column_or_1d(y)
        return X, labels

    def _check_gpu_tensor(self, X: torch.Tensor, reset: bool) -> torch.Tensor:
        if X.ndim != 2 or not X.is_floating_point() or 0 in X.shape:
            raise ValueError(
                "X must be a non-empty floating-point tensor of shape (n_samples, n_features), "
                f"got {X.dtype} with {X.ndim} dimension(s)."
            )
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        check_finite(X)
        return X

    def _row_map(self, center: torch.Tensor | None, intercept: bool = False) -> RowMap:
        scaling = self.intercept_scaling if intercept and self.fit_intercept else 0.0
        # NumPy's scalars would carry a low precision into the bound.
        return RowMap(float(self.l2_clip_norm), self.normalize, center, float(scaling))

    def _set_model(self, weights: NDArray[np.float64], mechanism: GaussianMechanism) -> None:
        """Split the constant column off, and keep one row of weights for two classes."""
        row_map = mechanism.row_map
        if len(self.classes_) == 2 and len(weights) == 2:
            weights = weights[1:] - weights[:1]
        self.center_ = None if row_map.center is None else row_map.center.cpu().numpy()
        if row_map.intercept_scaling == 0.0:
            self.coef_, self.intercept_ = weights, np.zeros(len(weights))
            return
        share = row_map.intercept_scaling**2 if row_map.normalize else 0.0
        self.coef_ = weights[:, :-1] * math.sqrt(1.0 - share)
        self.intercept_ = weights[:, -1] * row_map.constant

    def _rests_on(self, named_by_cache: bool) -> list[str]:
        """What a reader has to accept for the guarantee to hold."""
        stated = self.n_samples is not None
        count = (
            "the number of rows is public (replacing a row keeps it)"
            if self.neighboring_relation == "replace_one"
            else "n_samples was stated as public knowledge"
            if stated
            else "the number of rows is private; a noisy count was released where one was needed"
        )
        classes = (
            "the list of classes is public knowledge"
            if self.classes is not None
            else "the class names in the feature cache's manifest are public knowledge"
            if named_by_cache
            else "NOT COVERED unless public: the list of classes was read from the data"
        )
        return [
            "each person contributes one row",
            "the features come from a backbone that was not trained on these rows",
            classes,
            count,
            "hyperparameters were chosen without looking at these rows",
            f"finite rows and labels inside classes; rows bounded to l2 norm "
            f"{self._row_map(None, intercept=True).l2_bound:g}",
            "float64 sums; rounding is covered by numerical_slack, noise is on a public grid; "
            "timing and memory use are not protected",
        ]

    # -- predicting ------------------------------------------------------------------

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
        return self._probabilities(self._scores(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Most likely class of each row, shape (n_samples,)."""
        scores = self._scores(X)
        codes = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[codes])

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: Any = None) -> float:
        """Accuracy on rows with labels; a feature cache brings its own labels.

        The figure is computed without noise: it is the data owner's own look, and is
        covered by no guarantee if the rows are private.
        """
        if y is None and isinstance(X, BlockSource):
            y = np.concatenate([cache_labels(X, block_y) for _, block_y in X.blocks()])
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Linear scores, block by block, shape (n_samples, n_outputs or 1)."""
        check_is_fitted(self, "coef_")
        center = None if self.center_ is None else torch.from_numpy(self.center_)
        row_map, coef = self._row_map(center), torch.from_numpy(self.coef_).T
        if isinstance(X, BlockSource):
            if X.n_features != self.n_features_in_:
                raise ValueError(
                    f"the feature cache has {X.n_features} features, but {type(self).__name__} "
                    f"is expecting {self.n_features_in_} features as input."
                )
            blocks = (np.asarray(block, dtype=np.float64) for block, _ in X.blocks(_PREDICT_ROWS))
        else:
            if isinstance(X, torch.Tensor) and X.device.type != "cpu":
                X = self._check_gpu_tensor(X, reset=False).cpu()
            with without_values():
                X = validate_data(self, X, reset=False, dtype=_DTYPES, ensure_all_finite=False)
            check_finite(X)
            blocks = (
                X[start : start + _PREDICT_ROWS].astype(np.float64)
                for start in range(0, len(X), _PREDICT_ROWS)
            )
        scores = [(row_map(torch.from_numpy(block)) @ coef).numpy() for block in blocks]
        return np.concatenate(scores) + self.intercept_

    # -- model file and scikit-learn -------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the model to one safetensors file; `dpfc.load_model` reads it.

        Raises
        ------
        ModelFileError
            If the file cannot be written; no partial file is left.
        """
        check_is_fitted(self, "coef_")
        save_model(self, path)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # With a finite budget, noise decides on data sets as small as scikit-learn's checks use.
        tags.classifier_tags.poor_score = not math.isinf(self.epsilon)
        tags.non_deterministic = self.random_state is None and not math.isinf(self.epsilon)
        return tags
