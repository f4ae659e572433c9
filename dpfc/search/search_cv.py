"""`DPSearchCV`: hyperparameter search on private rows, under one budget."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from dpfc._support.fitted import fitted_or_nothing
from dpfc._support.validation import (
    DELTA,
    EPSILON,
    Choice,
    Constraint,
    Flag,
    Interval,
    Text,
    check_parameters,
    declared,
)
from dpfc.accounting import PrivacyStatement, ReleaseRecord
from dpfc.accounting.search_budget import RunLaw, SearchPlan, calibrate_search
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.linear.sklearn_guard import gaps_around_fit, warn_under_model_selection
from dpfc.mechanism.assumptions import fit_assumptions
from dpfc.mechanism.delta import delta_notes
from dpfc.mechanism.groups import has_groups, unit_of, weight_assumptions
from dpfc.mechanism.noise import noise_source
from dpfc.mechanism.paid_models import linear_room, reserve_room
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.progress import release_progress
from dpfc.mechanism.rows import BlockSource, label_gaps
from dpfc.search.cost import SearchCost
from dpfc.search.holdout import Holdout
from dpfc.search.setup import (
    check_candidates,
    check_searchable,
    list_candidates,
    open_rows,
    score_table,
)
from dpfc.search.strategies import Outcome, run_all, stop_at_random
from dpfc.search.trials import Trials

__all__ = ["DPSearchCV"]

# Measured on MNIST-5k: more leaves scores too noisy to tell candidates apart at ε = 1, less
# costs the refit one to two points of accuracy.
_REFIT_SHARE = 0.7
_RESTORED = ("n_samples", "accountant", "verbose")
_SPLIT = (
    "one secret coin a row (or a group of rows) sent it to the training or to the validation part "
    "of the search; it is in one part only, so that a run costs its fit or its score and not both"
)
_SECRETS = (
    "the number of runs, the losers and their scores stay secret, and so does the time that the "
    "search took, which tells the number of runs"
)


@declared
@dataclass(eq=False, repr=False)
class DPSearchCV(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Hyperparameter search in which everything, scores and refit too, has one budget.

    One secret coin a row sends it to the validation part, or to the training part; it stays
    there for the whole search. A run fits a candidate on the training part and releases
    noisy counts of right and wrong predictions on the validation part.

    Parameters
    ----------
    estimator : PrivateLinearClassifier
        A classifier of dpfc, full batch. Its epsilon and delta are replaced, its neighboring
        relation and accountant are those of the search; its random_state must be None, its
        ledger and dataset None or the search's.
    param_grid : dict of lists, or list of such
        The candidates, as in scikit-learn's `ParameterGrid`. Choose them without looking at
        the data.
    epsilon : float in (0, inf], default=1.0
        Of the whole search; inf switches noise off, and the result is not private.
    delta : float in (0, 1), default=1e-5
    strategy : {"composition", "random_stopping"}, default="composition"
        "composition" runs each candidate once. "random_stopping" runs candidates drawn
        uniformly, a secret random number of times, and publishes the best run only: neither
        how many there were, nor the losers or their scores. It pays off with many candidates.
    validation_fraction : float in (0, 1), default=0.2
        Probability with which a row validates.
    refit_share : float in [0, 1) or "auto", default="auto"
        Share of μ² for a fit of the best candidate on all rows; 0 keeps the best run's model.
        "auto" is 0.7 under composition and 0 under random stopping.
    mean_runs : float in [1, inf) or "auto", default="auto"
        Mean number of runs under random stopping; "auto" is the number of candidates.
    distribution : {"negative_binomial", "poisson"}, default="negative_binomial"
        Law of the number of runs: truncated to at least one run, or Poisson, under which
        there may be none. The result is then a random candidate's model of zeros with
        `best_score_` NaN.
    shape : float in [0, inf), default=1.0
        η of the negative binomial law: 1 is geometric, 0 logarithmic. Smaller costs less, and
        one run only becomes more likely.
    ledger : path-like or None, default=None
        `PrivacyLedger` file; the search is spent there, once, before anything is drawn. Random
        stopping needs a budget with the filter "renyi".
    dataset : str or None, default=None
        Name of the budget in `ledger`.
    random_state : int, Generator, RandomState or None, default=None
        None draws from the operating system's secure source. A seed makes the run
        reproducible and its result not private.
    verbose : bool, default=True
        Print to standard error, before the search starts, what it will cost and what a single
        fit would have had; under composition, show a progress bar.

    Attributes
    ----------
    best_estimator_ : PrivateLinearClassifier
        Its `privacy_` is the search's.
    best_params_ : dict
    best_score_ : float
        Noisy accuracy of the best run on the validation part. It is the largest of several
        noisy scores, and so tends to be too high.
    best_index_ : int
        Composition only.
    cv_results_ : dict
        Composition only: "params", "param_…", "mean_test_score" (noisy) and
        "rank_test_score", an entry a candidate.
    privacy_ : PrivacyStatement
        Of the whole search; its releases are those that were published.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int

    Notes
    -----
    A run costs its fit or its score, not both: no row is in both parts (`dpfc.search.holdout`
    has the proof). Under random stopping the time that `fit` takes tells the number of runs: do
    not publish it.

    A stated `n_samples` of the estimator is public knowledge of scale: runs use
    n_samples (1 - validation_fraction).

    References
    ----------
    Papernot and Steinke (2022), Hyperparameter Tuning with Renyi Differential Privacy, ICLR.
    Dong, Roth and Su (2022), Gaussian Differential Privacy.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from dpfc import DPLeastSquaresClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPLeastSquaresClassifier(classes=range(10))
    >>> search = DPSearchCV(model, {"damping": [0.1, 0.4]}, epsilon=8.0).fit(X, y)
    >>> search.privacy_.kind
    'search'
    """

    estimator: PrivateLinearClassifier
    param_grid: Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Iterable[Any]]]
    _: KW_ONLY
    epsilon: Annotated[float, EPSILON] = 1.0
    delta: Annotated[float, DELTA] = 1e-5
    strategy: Annotated[str, Choice(("composition", "random_stopping"))] = "composition"
    validation_fraction: Annotated[float, Interval(0, 1)] = 0.2
    refit_share: Annotated[float | str, Interval(0, 1, closed="left", words=("auto",))] = "auto"
    mean_runs: Annotated[float | str, Interval(1, closed="left", words=("auto",))] = "auto"
    distribution: Annotated[str, Choice(("negative_binomial", "poisson"))] = "negative_binomial"
    shape: Annotated[float, Interval(0, closed="left")] = 1.0
    ledger: Annotated[str | os.PathLike[str] | None, Text(path=True)] = None
    dataset: Annotated[str | None, Text()] = None
    random_state: int | np.random.Generator | np.random.RandomState | None = None
    verbose: Annotated[bool, Flag()] = True

    _constraints: ClassVar[dict[str, Constraint]]

    # -- before anything is spent ----------------------------------------------------

    def privacy_cost(self) -> SearchCost:
        """Say what the search will cost, and what a single fit would have had; needs no data.

        Raises
        ------
        ValueError
            If a parameter is not allowed.
        """
        self._check_parameters()
        return SearchCost.of(self._plan(list_candidates(self.param_grid)))

    def _check_parameters(self) -> PrivateRun:
        check_parameters(self.get_params(deep=False), self._constraints)
        run = PrivateRun(noise_source(self.random_state), ledger=self.ledger, dataset=self.dataset)
        check_searchable(self.estimator, self.ledger, self.dataset)
        return run

    def _plan(self, candidates: Sequence[Mapping[str, Any]]) -> SearchPlan:
        """Calibrate the noise, and check every candidate under it."""
        law, share = None, _REFIT_SHARE
        if self.strategy == "random_stopping":
            mean = len(candidates) if isinstance(self.mean_runs, str) else self.mean_runs
            law = RunLaw(mean, math.inf if self.distribution == "poisson" else self.shape)
            share = 0.0
        if not isinstance(self.refit_share, str):
            share = self.refit_share
        plan = calibrate_search(
            len(candidates),
            target_epsilon=self.epsilon,
            target_delta=self.delta,
            neighboring_relation=self.estimator.neighboring_relation,
            refit_share=share,
            law=law,
            accountant=self.estimator.accountant,
        )
        check_candidates(self.estimator, candidates, plan)
        return plan

    # -- fitting ---------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Search under the budget.

        Interrupted, it publishes nothing, and a ledger keeps the spend.

        Parameters
        ----------
        X : array-like, torch.Tensor of shape (n_samples, n_features), or FeatureCache
            Private rows.
        y : array-like of shape (n_samples,), optional
            Labels; left out for a feature cache, which has its own.
        sample_weight, groups : array-like of shape (n_samples,), optional
            As for the estimator's fit. A person's rows are all in one part of the search; in the
            validation part, persons count once each, and rows' weights do not.

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
        """
        run = self._check_parameters()
        with fitted_or_nothing(self):
            warn_under_model_selection()
            candidates = list_candidates(self.param_grid)
            plan = self._plan(candidates)
            purpose = f"search {type(self.estimator).__name__}"
            run.open(plan, purpose, unit_of_spend=unit_of(X, groups))
            rows, public = open_rows(
                self.estimator, candidates, X, y, sample_weight, groups, run.noise
            )
            run.warn_if_seeded()
            if self.verbose:
                print(SearchCost.of(plan), file=sys.stderr)
            mapped = self._uses_public_features()
            reserve_room(linear_room(rows.n_features, len(public["classes_"]), mapped=mapped))
            run.pay()
            holdout = Holdout(rows, self.validation_fraction, run.noise)
            trials = Trials(self.estimator, public, holdout, self.validation_fraction, plan, run)
            if plan.law is not None:
                outcome = stop_at_random(trials, candidates, plan.law, run.noise)
            else:
                with release_progress(len(candidates)) if self.verbose else nullcontext() as on_run:
                    outcome = run_all(trials, candidates, on_run)
            model, records = outcome.model, [*outcome.fit_records, *outcome.score_records]
            if plan.has_refit:
                model, refit_records = trials.refit(outcome.params)
                records = [*refit_records, *outcome.score_records]
            # A share of the search's budget is told by noise multipliers only.
            records = [record.model_copy(update={"share_of_budget": None}) for record in records]
            model.set_params(**{name: getattr(self.estimator, name) for name in _RESTORED})
            model.set_params(ledger=self.ledger, dataset=self.dataset)
            grouped = has_groups(X, groups)
            model.privacy_ = self._state(
                plan, records, run, X, sample_weight, model, grouped=grouped
            )
            self._publish(model, outcome, candidates, public)
            run.finish(self.privacy_)
        return self

    def _uses_public_features(self) -> bool:
        """Whether any run may have, not only the winner."""
        tried = [c.get("public_features") for c in list_candidates(self.param_grid)]
        own = getattr(self.estimator, "public_features", None)
        return any(features is not None for features in [own, *tried])

    def _state(
        self,
        plan: SearchPlan,
        records: Sequence[ReleaseRecord],
        run: PrivateRun,
        X: Any,
        sample_weight: Any,
        model: PrivateLinearClassifier,
        *,
        grouped: bool,
    ) -> PrivacyStatement:
        """Put together what ran, published or not."""
        assumptions = fit_assumptions(
            unit_of_privacy=run.unit_of_privacy,
            classes_stated=self.estimator.classes is not None,
            classes_in_cache=isinstance(X, BlockSource) and X.class_names is not None,
            neighboring_relation=plan.promise.neighboring_relation,
            n_samples_stated=self.estimator.n_samples is not None,
            l2_bound=model._row_map().l2_bound,
            public_features=self._uses_public_features(),
            searched=True,
            max_group_rows=int(self.estimator.max_group_rows) if grouped else None,
            columns_named=hasattr(model, "feature_names_in_") or hasattr(model, "_columns_in"),
            origin=getattr(model, "features_from_", None),
        )
        return run.statement(
            type(model).__name__,
            [
                *assumptions,
                *weight_assumptions(sample_weight, self.estimator.max_sample_weight),
                *label_gaps(X),
                _SPLIT,
                *([] if plan.law is None else [_SECRETS]),
                *gaps_around_fit(),
                *delta_notes(plan.promise, self.estimator.n_samples),
            ],
            kind="search",
            records=records,
        )

    def _publish(
        self,
        model: PrivateLinearClassifier,
        outcome: Outcome,
        candidates: Sequence[Mapping[str, Any]],
        public: Mapping[str, Any],
    ) -> None:
        """Set what a fitted search has; nothing else of it is kept."""
        self.__dict__.update(public)
        self.best_estimator_ = model
        self.best_params_ = outcome.params
        self.best_score_ = outcome.score
        self.privacy_ = model.privacy_
        if outcome.index is not None and outcome.scores is not None:
            self.best_index_ = outcome.index
            self.cv_results_ = score_table(candidates, outcome.scores)

    # -- the winner's predictions ----------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """Most likely class of each row, shape (n_samples,), by the best model."""
        return self._best().predict(X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of each class, shape (n_samples, n_classes), by the best model."""
        return self._best().predict_proba(X)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores of each class, shape (n_samples, n_classes), or (n_samples,) for two."""
        return self._best().decision_function(X)

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: Any = None) -> float:
        """Accuracy of the best model, without noise: the data owner's own look."""
        return self._best().score(X, y, sample_weight)

    def _best(self) -> PrivateLinearClassifier:
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.classifier_tags = inner.classifier_tags
        tags.input_tags = inner.input_tags
        tags.classifier_tags.poor_score = not math.isinf(self.epsilon)
        tags.non_deterministic = self.random_state is None
        return tags
