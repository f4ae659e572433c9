"""What the private classifiers share: checking, planning, spending, fitting, stating."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from dpfc._support.callers import warn_caller
from dpfc._support.fitted import fitted_or_nothing
from dpfc._support.late import torch
from dpfc._support.memory import check_memory
from dpfc._support.model_files import write_model
from dpfc._support.validation import (
    ACCOUNTANT,
    BOUND,
    DELTA,
    EPSILON,
    RELATION,
    ROWS,
    Choice,
    Constraint,
    Flag,
    Interval,
    Text,
    check_parameters,
    declared,
)
from dpfc.accounting import PrivacyPlan, PrivacyStatement, ReleaseRequest, calibrate
from dpfc.exceptions import BudgetWarning
from dpfc.linear.calibration import calibrated_weights, is_worth_its_share
from dpfc.linear.centering import mean_share
from dpfc.linear.forecast import EPSILONS, Forecast, forecast_of
from dpfc.linear.forecast_rows import SPECTRUM_DECAY, row_source
from dpfc.linear.prediction import LinearPredictor
from dpfc.linear.saving import model_bytes
from dpfc.linear.scaling import column_scales, scale_share
from dpfc.linear.sklearn_guard import gaps_around_fit, warn_under_model_selection
from dpfc.mechanism.assumptions import fit_assumptions
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.column_histograms import ColumnHistograms
from dpfc.mechanism.delta import delta_notes
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.groups import (
    balanced_factors,
    bounded_weights,
    class_factors,
    group_codes,
    has_groups,
    rows_of_people,
    unit_of,
    weight_assumptions,
)
from dpfc.mechanism.labels import as_labels, encode_labels, public_classes
from dpfc.mechanism.noise import NoiseSource, noise_source
from dpfc.mechanism.paid_models import linear_room, reserve_room
from dpfc.mechanism.people import MOST_ROWS
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.progress import release_progress
from dpfc.mechanism.queries import ClassCounts, FeatureSum
from dpfc.mechanism.rows import (
    ArrayRows,
    BlockSource,
    CacheRows,
    cache_labels,
    check_size,
    label_gaps,
    open_cache,
    warn_of_numbered_labels,
)
from dpfc.mechanism.too_small import fit_notes

__all__ = ["PrivateLinearClassifier"]

# Shares of the budget (of μ²) for what is released beside a solver's own statistics. The
# mean's is what a fit starts from: `mean_share` derives it once the number of rows is known.
_MEAN_SHARE = 0.03
_COUNT_SHARE = 0.005
_SCALE_SHARE = 0.1  # likewise, until `scale_share`
_CLASS_COUNTS_SHARE = 0.02
_CLASS_SCORES_SHARE = 0.05
_LABEL_ROWS = 4096
_FURTHER = ("_columns_in",)
_LOGIT_ROWS = 512  # rows in a block of logits; not the number of rows, which is private


@declared
@dataclass(eq=False, repr=False)
class PrivateLinearClassifier(LinearPredictor):
    """A linear classifier on bounded rows, trained from a plan of private releases.

    A subclass says what its solver asks for (`_requests`), turns releases into weights
    (`_solve`), and says how scores become probabilities (`_link`). It never sees a row.
    """

    epsilon: Annotated[float, EPSILON] = 1.0
    delta: Annotated[float, DELTA] = 1e-5
    _: KW_ONLY
    classes: Iterable[Any] | None = None
    neighboring_relation: Annotated[str, RELATION] = "add_or_remove_one"
    n_samples: Annotated[int | None, ROWS] = None
    accountant: Annotated[str, ACCOUNTANT] = "auto"
    ledger: Annotated[str | os.PathLike[str] | None, Text(path=True)] = None
    dataset: Annotated[str | None, Text()] = None
    l2_clip_norm: Annotated[float, BOUND] = 1.0
    normalize: Annotated[bool, Flag()] = True
    scale: Annotated[str | None, Choice(("private",), or_none=True)] = None
    center: Annotated[bool, Flag()] = True
    fit_intercept: Annotated[bool, Flag()] = True
    intercept_scaling: Annotated[float, Interval(0, 1)] = 0.1
    nonnegative_root: Annotated[bool, Flag()] = True
    group_method: Annotated[str, Choice(("clip", "average"))] = "clip"
    max_group_rows: Annotated[int, Interval(1, MOST_ROWS, closed="both", integer=True)] = 32
    class_weight: Mapping[Any, float] | str | None = None
    max_sample_weight: Annotated[float | None, Interval(0, 1e9, words=(None,))] = None
    threshold: Annotated[str | None, Choice(("auto",), or_none=True)] = "auto"
    random_state: int | np.random.Generator | np.random.RandomState | None = None
    verbose: Annotated[bool, Flag()] = False

    _constraints: ClassVar[dict[str, Constraint]]

    # -- what a solver provides ------------------------------------------------------

    @abstractmethod
    def _requests(self) -> list[ReleaseRequest]:
        """The releases that the solver draws, with shares that sum to 1."""

    @abstractmethod
    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        """Weights of shape (n_outputs, n_columns), from releases alone."""

    def _needs_n_samples(self) -> bool:
        """Whether the solver itself scales by the number of rows."""
        return False

    def _mean_guess(self, n_features: int) -> torch.Tensor | None:
        """The bounded rows' mean, as far as it is public."""
        return None

    def _prepare(self, mechanism: GaussianMechanism) -> None:
        """Change how rows are mapped, by what is public, before the solver's first release."""

    def _check_size(self, n_columns: int, n_classes: int) -> None:
        """Refuse, before any spend, what does not fit into memory: weights, and one matrix."""
        check_memory(
            # Measured: 8.8 doubles a weight (copies, noise, sums), 3.2 a logit of a block.
            8 * n_classes * (10 * n_columns + 7 * _LOGIT_ROWS // 2),
            f"weights, noise and logits of {n_classes} classes and {n_columns} columns",
            "State fewer classes, or reduce the features.",
        )
        check_memory(
            10 * 8 * n_columns**2,  # measured: 9.4 doubles an entry at the peak
            f"one matrix of {n_columns} x {n_columns} and its factors",
            "Reduce the features.",
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
        if self.scale is not None:
            extra.append(ReleaseRequest("column_histograms", _SCALE_SHARE))
        if self.center:
            extra.append(ReleaseRequest("feature_sum", _MEAN_SHARE))
        public_count = self.neighboring_relation == "replace_one" or self.n_samples is not None
        counted = self.center or self.scale is not None or self._needs_n_samples()
        if counted and not public_count:
            extra.append(ReleaseRequest("count", _COUNT_SHARE))
        if self.class_weight == "balanced":
            extra.append(ReleaseRequest("class_counts", _CLASS_COUNTS_SHARE))
        if self._may_calibrate():
            extra.append(ReleaseRequest("class_scores", _CLASS_SCORES_SHARE))
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
            accountant=self.accountant,
        )

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train under the budget.

        Parameters
        ----------
        X : array-like, torch.Tensor of shape (n_samples, n_features), or FeatureCache
            Private rows. A tensor on a GPU is worked on there.
        y : array-like of shape (n_samples,), optional
            Labels; left out for a feature cache, which has its own.
        sample_weight : array-like of shape (n_samples,), optional
            How much rows count, 0 … `max_sample_weight`; as private as rows.
        groups : array-like of shape (n_samples,), optional
            Whose rows are, numbers or strings: what is protected is then a person with all of his
            rows (`dpfc.mechanism.people`). A feature cache with a group column has its own.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data is not allowed; nothing was spent then.
        LedgerError, BudgetExceeded
            If the ledger has no such budget, or too little is left of it; nothing was
            spent then. They are ValueErrors.

        Warns
        -----
        PrivacyWarning
            If the run is seeded, the classes are read from the labels, or scikit-learn's
            own search or cross-validation calls it.
        UserWarning
            If a column of a data frame is called as ids or an index are.
        """
        run = self._check_parameters()
        with fitted_or_nothing(self, _FURTHER):
            warn_under_model_selection()
            plan = self.privacy_plan()
            grouped = has_groups(X, groups)
            run.open(plan, f"fit {type(self).__name__}", unit_of_spend=unit_of(X, groups))
            rows = self._open_rows(X, y, sample_weight, groups, run.noise)
            row_map = self._row_map()
            self._check_size(row_map.n_columns(rows.n_features), len(self.classes_))
            run.warn_if_seeded()
            mapped = getattr(self, "public_features", None) is not None
            reserve_room(linear_room(rows.n_features, len(self.classes_), mapped=mapped))
            draws = sum(release.count for release in plan.releases)
            with release_progress(draws) if self.verbose else nullcontext() as run.on_release:
                mechanism = self._train(rows, run)
            self.privacy_ = self._state(mechanism, X, sample_weight, grouped=grouped)
            run.finish(self.privacy_)
        return self

    def forecast(
        self,
        n_samples: int | Sequence[int],
        *,
        epsilons: Sequence[float] = EPSILONS,
        public_features: Any = None,
        public_labels: ArrayLike | None = None,
        same_source: bool = False,
        n_features: int | None = None,
        n_classes: int | None = None,
        accuracy: float | None = None,
        class_shares: Sequence[float] | None = None,
        spectrum_decay: float = SPECTRUM_DECAY,
        n_test: int | None = None,
        repeats: int = 10,
        random_state: int = 0,
    ) -> Forecast:
        """Tell what accuracy to expect of `fit`, by ε and number of rows, from public data alone.

        Never hand private rows to it: what it gives carries no noise, and no ledger pays for it.
        It takes either a similar data set that is public, or four numbers that are public
        knowledge (of a paper, say) to make rows up from.

        Parameters
        ----------
        n_samples : int or sequence of int
            Numbers of private rows to forecast for.
        epsilons : sequence of float, default=(0.1, 0.5, 1, 2, 8)
            Budgets; `delta` and all other parameters are this estimator's.
        public_features : array-like of shape (n_public, n_features), FeatureCache or None
            Rows of a similar public data set, from the same backbone.
        public_labels : array-like of shape (n_public,), optional
            Their labels; left out for a feature cache, which has its own.
        same_source : bool, default=False
            Whether public and private rows are random parts of one whole. Intervals are narrow
            then; otherwise they allow for a data set that is alike, and not the same.
        n_features, n_classes : int, optional
            Without public rows: width of a row, and number of classes.
        accuracy : float, optional
            Without public rows: what a classifier without privacy reaches on many rows.
        class_shares : sequence of float, optional
            Without public rows: shares of the classes; equal by default.
        spectrum_decay : float, default=1.3
            Without public rows: the i-th largest variance of the features is about i to the
            power of minus this.
        n_test : int, optional
            Number of held-out rows that the fit will be judged by. Few of them scatter, which
            the interval then covers too.
        repeats : int, default=10
            Fits a cell.
        random_state : int, default=0
            The same forecast for the same number.

        Returns
        -------
        Forecast

        Raises
        ------
        TypeError, ValueError
            If a parameter is not allowed, or it is not clear what the forecast is made from.
        """
        check_parameters(self.get_params(deep=False), self._constraints)
        source = row_source(
            public_features=public_features,
            public_labels=public_labels,
            same_source=same_source,
            classes=self.classes,
            n_features=n_features,
            n_classes=n_classes,
            accuracy=accuracy,
            class_shares=class_shares,
            spectrum_decay=spectrum_decay,
            random_state=random_state,
        )
        return forecast_of(
            self,
            source,
            n_samples,
            epsilons,
            repeats=repeats,
            n_test=n_test,
            random_state=random_state,
        )

    def _train(self, rows: LabeledRows, run: PrivateRun) -> GaussianMechanism:
        """Draw what is planned from checked rows, and set the model; `classes_` is set."""
        mechanism = GaussianMechanism(
            rows, self._row_map(), len(self.classes_), run, self.n_samples
        )
        mechanism.reserve()
        with _one_thread():
            if self.scale is not None:
                self._scale(mechanism)
            if self.center:
                self._center(mechanism, rows.n_features)
            self._weigh_classes(mechanism)
            self._prepare(mechanism)
            calibrates = self._may_calibrate() and is_worth_its_share(mechanism)
            weights = self._solve(mechanism)
            if len(self.classes_) == 2 and len(weights) == 2:
                weights = weights[1:] - weights[:1]
            if calibrates:
                weights = calibrated_weights(mechanism, weights, self._link)
            self._set_model(weights, mechanism)
        return mechanism

    def _may_calibrate(self) -> bool:
        """Whether scores of two classes are set by noisy counts, as far as is known without data.

        Classes that are not stated may be two where the plan can still be changed.
        """
        if self.threshold is None or not self.fit_intercept or math.isinf(self.epsilon):
            return False
        stated: Any = self.classes
        if isinstance(stated, Sized):
            return (stated.size if isinstance(stated, np.ndarray) else len(stated)) == 2
        full_batch = all(request.sampling_probability == 1.0 for request in self._requests())
        return full_batch and self.accountant in ("auto", "exact")

    def _scale(self, mechanism: GaussianMechanism) -> None:
        """Scale the columns where their histograms can be told from noise, or say so."""
        plan, query = mechanism.run.plan, ColumnHistograms(mechanism.n_features)
        if plan.mu is not None and not mechanism.run.exact:
            factor = ColumnHistograms.relation_factor(plan.neighboring_relation)
            n_samples = max(mechanism.n_samples(), mechanism.n_samples_noise())
            share = scale_share(plan.mu * n_samples / factor, mechanism.n_features)
            mechanism.run.reallocate(query.name, share)
            if share == 0.0:
                warn_caller(
                    'scale="private" was left out: the histograms of so few rows would be lost in '
                    "their noise. State the columns' ranges, or spend a larger epsilon.",
                    BudgetWarning,
                )
                return
        drawn = mechanism.release(query.name, query)
        scale = column_scales(
            drawn.value.cpu().numpy(), mechanism.n_samples(), drawn.noise_standard_deviation
        )
        mechanism.map_rows(scale=scale)

    def _center(self, mechanism: GaussianMechanism, n_features: int) -> None:
        """Centre the rows where their mean can be told from noise, for what that is worth."""
        plan, guess = mechanism.run.plan, self._mean_guess(n_features)
        if plan.mu is not None and not mechanism.run.exact:
            factor = FeatureSum.relation_factor(plan.neighboring_relation)
            n_samples = max(mechanism.n_samples(), mechanism.n_samples_noise())
            share = mean_share(plan.mu * n_samples / factor, n_features)
            mechanism.run.reallocate("feature_sum", share)
            if share == 0.0:
                mechanism.map_rows(center=guess)
                return
        mechanism.center_rows(guess)

    def _weigh_classes(self, mechanism: GaussianMechanism) -> None:
        """Let rows count as their class does, as stated or by noisy counts."""
        if self.class_weight == "balanced":
            counts = mechanism.release("class_counts", ClassCounts())
            values = counts.value.cpu().numpy()
            mechanism.weigh_classes(balanced_factors(values, counts.noise_standard_deviation))
        elif isinstance(self.class_weight, Mapping):
            mechanism.weigh_classes(class_factors(self.class_weight, self.classes_))

    def _check_parameters(self) -> PrivateRun:
        check_parameters(self.get_params(deep=False), self._constraints)
        if not (self.class_weight in (None, "balanced") or isinstance(self.class_weight, Mapping)):
            raise ValueError(
                'class_weight must be None, "balanced" or a dict of classes and weights, got '
                f"{self.class_weight!r}."
            )
        if math.isinf(self.l2_clip_norm) and (self.normalize or not math.isinf(self.epsilon)):
            raise ValueError(
                "l2_clip_norm must be finite unless epsilon is inf and normalize is False, got inf."
            )
        if self.normalize and self._row_map().feature_share <= 0.0:
            raise ValueError(
                "intercept_scaling and length_scaling leave nothing for the features: their "
                "squares must add up to less than 1."
            )
        if self.scale is not None and getattr(self, "public_features", None) is not None:
            raise ValueError(
                'scale="private" and public_features do not go together: the public rows are not '
                "on the scale that is found. Scale both by public knowledge, and leave scale out."
            )
        noise = noise_source(self.random_state)
        return PrivateRun(noise, ledger=self.ledger, dataset=self.dataset)

    def _open_rows(
        self,
        X: Any,
        y: ArrayLike | None,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        noise: NoiseSource,
    ) -> LabeledRows:
        """Check the data, set the public attributes, and hand the rows to the mechanism."""
        rows = self._labelled_rows(X, y)
        if isinstance(self.class_weight, Mapping):
            class_factors(self.class_weight, self.classes_)  # refused now, or never
        weights, largest = bounded_weights(sample_weight, rows.n_samples, self.max_sample_weight)
        return rows_of_people(
            rows,
            group_codes(X, groups, rows.n_samples),
            weights,
            largest,
            method=self.group_method,
            max_group_rows=int(self.max_group_rows),
            noise=noise,
        )

    def _labelled_rows(self, X: Any, y: ArrayLike | None) -> ArrayRows | CacheRows:
        """Check rows and labels, and set the public attributes."""
        # How a cache's features were made, so that new images or texts can be predicted.
        self.features_from_ = getattr(X, "origin", None) if isinstance(X, BlockSource) else None
        if isinstance(X, BlockSource):
            if y is not None:
                raise ValueError("y must be left out when X is a feature cache; it has labels.")
            blocks = (cache_labels(X, block_y) for _, block_y in X.blocks(_LABEL_ROWS))
            warn_of_numbered_labels(X)
            self.classes_ = public_classes(self.classes, blocks, X.class_names)
            self.n_features_in_ = X.n_features
            return open_cache(X, self.classes_)
        X = self._check_features(X, reset=True)
        check_size(len(X))
        labels = as_labels(y, len(X), type(self).__name__)
        self.classes_ = public_classes(self.classes, [labels])
        return ArrayRows(X, encode_labels(labels, self.classes_))

    def _set_model(self, weights: NDArray[np.float64], mechanism: GaussianMechanism) -> None:
        """Split the last columns off."""
        row_map = mechanism.row_map
        self.scale_ = row_map.scale
        self.center_, self.linear_map_ = (
            None if tensor is None else tensor.cpu().numpy()
            for tensor in (row_map.center, row_map.linear)
        )
        self.intercept_ = np.zeros(len(weights))
        if row_map.intercept_scaling > 0.0:
            weights, self.intercept_ = weights[:, :-1], weights[:, -1] * row_map.constant
        # Without constant column, rows are longer.
        longer = replace(row_map, intercept_scaling=0.0).feature_share
        features, lengths = np.split(weights, [mechanism.n_features], axis=1)
        self.coef_ = features * math.sqrt(row_map.feature_share / longer)
        self.length_coef_ = lengths if row_map.n_length_columns else None

    def _state(
        self, mechanism: GaussianMechanism, X: Any, sample_weight: Any, *, grouped: bool
    ) -> PrivacyStatement:
        """Put together what ran."""
        run = mechanism.run
        return run.statement(
            type(self).__name__,
            [
                *self._assumptions(run.unit_of_privacy, X, grouped=grouped),
                *weight_assumptions(sample_weight, self.max_sample_weight),
                *label_gaps(X),
                *gaps_around_fit(),
                *delta_notes(run.plan, mechanism.known_n_samples),
                *fit_notes(mechanism),
            ],
        )

    def _assumptions(self, unit_of_privacy: str, X: Any, *, grouped: bool) -> list[str]:
        return fit_assumptions(
            unit_of_privacy=unit_of_privacy,
            max_group_rows=int(self.max_group_rows) if grouped else None,
            classes_stated=self.classes is not None,
            classes_in_cache=isinstance(X, BlockSource) and X.class_names is not None,
            neighboring_relation=self.neighboring_relation,
            n_samples_stated=self.n_samples is not None,
            l2_bound=self._row_map().l2_bound,
            public_features=getattr(self, "public_features", None) is not None,
            columns_named=hasattr(self, "feature_names_in_") or hasattr(self, "_columns_in"),
            origin=getattr(self, "features_from_", None),
        )

    # -- model file and scikit-learn -------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the model to one safetensors file; `dpfc.load_model` reads it.

        Raises
        ------
        ModelFileError
            If the file cannot be written; no partial file is left.
        """
        check_is_fitted(self, "coef_")
        write_model(Path(path), model_bytes(self))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # With a finite budget, noise decides on data sets as small as scikit-learn's checks use.
        tags.classifier_tags.poor_score = not math.isinf(self.epsilon)
        tags.non_deterministic = self.random_state is None and not math.isinf(self.epsilon)
        return tags


@contextmanager
def _one_thread() -> Iterator[None]:
    """Algebra on one thread, as its last bits depend on how many share it; sums take them all."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
