"""Runs of a search: a fit on the training part, and a noisy score on the validation part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpfc._support.late import torch
from dpfc.accounting import PrivacyPlan, ReleaseRecord
from dpfc.accounting.plans import PlannedRelease
from dpfc.accounting.search_budget import SearchPlan
from dpfc.evaluation.counts import HitCounts
from dpfc.evaluation.scored_rows import IDENTITY, ScoredRows
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.bounded_sums import LabeledRows, n_units_of
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.private_run import PrivateRun
from dpfc.search.holdout import Holdout
from dpfc.search.setup import at_mu, full_batch_plan

__all__ = ["Trial", "Trials"]


@dataclass(frozen=True)
class Trial:
    """One run: a model and its noisy score.

    Attributes
    ----------
    params : dict
        The candidate's settings.
    model : PrivateLinearClassifier
        Fitted on the training part.
    fit_records : list of ReleaseRecord
    score_record : ReleaseRecord
    right, wrong : float
        Noisy numbers of validation rows.
    """

    params: dict[str, Any]
    model: PrivateLinearClassifier
    fit_records: list[ReleaseRecord]
    score_record: ReleaseRecord
    right: float
    wrong: float

    @property
    def margin(self) -> float:
        """What runs are ranked by: twice as far apart as `right`, and only √2 times as noisy."""
        return self.right - self.wrong

    @property
    def size(self) -> float:
        """Noisy number of validation rows."""
        return self.right + self.wrong


class Trials:
    """Runs candidates under the noise of a search's plan; its data are private.

    Parameters
    ----------
    estimator : PrivateLinearClassifier
        Its parameters are what candidates have in common.
    attributes : mapping
        What every model knows without any release, such as `classes_`.
    holdout : Holdout
    validation_fraction : float
    plan : SearchPlan
    run : PrivateRun
        Pays for all of them.
    """

    def __init__(
        self,
        estimator: PrivateLinearClassifier,
        attributes: Mapping[str, Any],
        holdout: Holdout,
        validation_fraction: float,
        plan: SearchPlan,
        run: PrivateRun,
    ):
        self._estimator = estimator
        self._attributes = dict(attributes)
        self._holdout = holdout
        self._validation_fraction = validation_fraction
        self._plan = plan
        self._run = run

    def run(self, params: Mapping[str, Any]) -> Trial:
        """Fit a candidate on the training part and score it on the validation part."""
        size = self._training_size()
        # Nothing of a run may show, not even that it overflowed.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model, records = self._fit(params, self._plan.run_mu, self._holdout.training, size)
            counts, score_record = self._score(model)
        right, wrong = counts.tolist()
        return Trial(dict(params), model, records, score_record, right, wrong)

    def refit(
        self, params: Mapping[str, Any]
    ) -> tuple[PrivateLinearClassifier, list[ReleaseRecord]]:
        """Fit a candidate on all rows, at the refit's share of the budget."""
        size = self._estimator.n_samples
        return self._fit(params, self._plan.refit_mu, self._holdout.rows, size)

    def blank(self, params: Mapping[str, Any]) -> PrivateLinearClassifier:
        """Return a model of zeros, for a search in which nothing ran."""
        model = self._model(params, self._plan.run_mu, None)
        _set_zero(model)
        return model

    def _training_size(self) -> int | None:
        """Public number of training rows, if there is one.

        Of a stated n_samples, coins leave n (1 - v) on average, give or take a root of n:
        enough for the scale that it stands for. Coins do not depend on the data, so that
        with the number of rows the size of the part is public too.
        """
        stated = self._estimator.n_samples
        if stated is not None:
            return max(1, round(stated * (1.0 - self._validation_fraction)))
        if self._estimator.neighboring_relation == "replace_one":
            return max(1, n_units_of(self._holdout.training))
        return None

    def _model(
        self, params: Mapping[str, Any], mu: float, n_samples: int | None
    ) -> PrivateLinearClassifier:
        model = at_mu(self._estimator, params, mu, self._plan.promise.target_delta)
        model.set_params(n_samples=n_samples)
        model.__dict__.update(self._attributes)
        return model

    def _fit(
        self, params: Mapping[str, Any], mu: float, rows: LabeledRows, n_samples: int | None
    ) -> tuple[PrivateLinearClassifier, list[ReleaseRecord]]:
        """Fit on a part; a fit that diverges leaves zeros, which are scored like any others."""
        model = self._model(params, mu, n_samples)
        plan = full_batch_plan(model, mu)
        records: list[ReleaseRecord] = []
        try:
            records = model._train(rows, self._run.part(plan)).run.records
        except (ValueError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            _set_zero(model)
        if not np.isfinite(np.linalg.norm(model.coef_) + np.linalg.norm(model.intercept_)):
            _set_zero(model)
        return model, records

    def _score(self, model: PrivateLinearClassifier) -> tuple[torch.Tensor, ReleaseRecord]:
        """Noisy counts of validation rows that the model gets right and wrong."""
        query, promise = HitCounts(), self._plan.promise
        planned = PlannedRelease(query.name, self._plan.run_noise_multiplier, 1, 1.0, 1.0)
        run = self._run.part(
            PrivacyPlan(
                promise.target_epsilon,
                promise.target_delta,
                promise.neighboring_relation,
                (planned,),
            )
        )
        rows = ScoredRows(self._holdout.validation, model)
        mechanism = GaussianMechanism(rows, IDENTITY, len(model.classes_), run)
        counts = mechanism.release(query.name, query).value.cpu()
        (record,) = run.records
        return counts, record.model_copy(update={"share_of_budget": None})


def _set_zero(model: PrivateLinearClassifier) -> None:
    """Set weights that say nothing: every row gets the first class."""
    n_outputs = 1 if len(model.classes_) == 2 else len(model.classes_)
    model.coef_ = np.zeros((n_outputs, model.n_features_in_))
    model.intercept_ = np.zeros(n_outputs)
    model.scale_ = None
    model.center_ = None
    model.linear_map_ = None
    model.length_coef_ = None
