"""DP first-order methods on features: gradient descent, Adam, and Poisson-sampled SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc._support.validation import BOUND, STEPS, Choice, Interval, declared
from dpfc.accounting import ReleaseRequest
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.linear.probabilities import Link
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.losses import LOSSES
from dpfc.mechanism.queries import GradientSum

__all__ = ["DPGradientClassifier"]

_NEWTON_FACTOR = 2.0
_LOGIT_NOISE = 0.6
_ADAM_RATE = 0.1


@declared
@dataclass(eq=False, repr=False, kw_only=True)
class DPGradientClassifier(PrivateLinearClassifier):
    """Private first-order training of a linear classifier: the baseline to DP-FC.

    Each step releases the noisy clipped gradient of the logistic loss over all rows, or
    over a Poisson sample of them, divides it by the (noisy or stated) number of rows
    that were expected, and hands it to PyTorch's SGD with momentum or Adam.

    Parameters
    ----------
    epsilon : float in (0, inf], default=1.0
        inf switches noise off; the result is then not private.
    delta : float in (0, 1), default=1e-5
    classes : array-like of labels or None, default=None
        Public list of classes; None reads them from `y`, with a `PrivacyWarning`.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    n_samples : int or None, default=None
        A number of rows that is public knowledge; None releases a noisy count where
        one is needed.
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        Adds releases up. "auto" is exact where all are full batch, and privacy loss
        distributions where rows are sampled. "rdp" asks for more noise.
    ledger : path-like or None, default=None
        `PrivacyLedger` file; the fit is spent there before anything is released.
    dataset : str or None, default=None
        Name of the budget in `ledger`.
    l2_clip_norm : float, default=1.0
        C, the length that rows are scaled to, or clipped at.
    normalize : bool, default=True
        Scale every row to length C; otherwise only longer rows are scaled down.
    scale : {"private"} or None, default=None
        "private": for columns whose ranges are not known beforehand. Noisy logarithmic
        histograms of all columns are released, each column is centred and scaled by what they
        show, and cut at four spreads. Their share of the budget follows from the noisy number
        of rows; where they would be lost in their noise, columns stay as they are
        (`dpfc.linear.scaling`). Ranges that are public are better: they cost nothing.
    center : bool, default=True
        Release the mean row, subtract it, and bound the rows again. Its share of the
        budget follows from the noisy number of rows; where the mean would be lost in its
        noise, nothing is spent on it (`dpfc.linear.centering`).
    fit_intercept : bool, default=True
        Append a constant column, as a share of a normalised row's length.
    intercept_scaling : float in (0, 1), default=0.1
        Value of the constant column.
    nonnegative_root : bool, default=True
        Replace a row without a negative entry by the square roots of its entries, less three
        quarters of their mean, before it is scaled. Pooled activations and counts have
        few large entries and all lean the same way, which would take up most of a
        row's bounded length. Used with `normalize` only.
    group_method : {"clip", "average"}, default="clip"
        What stands for a person in `fit`'s groups: his rows, whose part in every sum of products
        is scaled down where it is longer than one row's may be, or the mean of his rows of each
        class, so scaled down together.
    max_group_rows : int in [1, 256], default=32
        Of a person with more rows, that many are drawn by secret coins.
    class_weight : dict, "balanced" or None, default=None
        How much rows of a class count: public numbers by class, 1 where none is given; "balanced"
        is n / (K n_k) from noisy counts, with 2% of the budget. Noise grows with the largest.
    max_sample_weight : float or None, default=None
        The largest that a `sample_weight` may be, public; noise is scaled by it. None reads it
        from the weights, with a `PrivacyWarning`.
    threshold : {"auto"} or None, default="auto"
        "auto": of two classes, 5% of the budget go to noisy counts of rows by class and score, by
        which slope and intercept are set, and the threshold for the rarer class is lowered for as
        long as accuracy is expected to lose no more than 0.1 points. Nothing is spent where
        counts would be lost in their noise, nor without `fit_intercept`
        (`dpfc.linear.calibration`).
    optimizer : {"sgd", "adam"}, default="sgd"
    n_steps : int, default=60
    learning_rate : float or "auto", default="auto"
        Per step, of the mean loss. "auto" is for SGD the rate at which the noise of all
        steps together moves a logit by 0.6 (standard deviation), but at most twice one
        over the curvature at zero weights (2 n_classes for softmax, 8 for sigmoid), and
        0.1 for Adam.
    momentum : float in [0, 1), default=0.9
        Of SGD.
    sampling_probability : float in (0, 1], default=1.0
        Probability with which each row takes part in a step, independently; 1 is full
        batch. Below 1 the budget is accounted with privacy loss distributions.
    residual_clip_norm : float in (0, inf], default=0.5
        c, bound on the norm of a row's residual.
    loss : {"softmax", "sigmoid"}, default="softmax"
    l2_regularization : float, default=0.0
        ρ of the term (ρ/2)||W||² added to the sum of the losses.
    random_state : int, Generator, RandomState or None, default=None
        None draws from the operating system's secure source. A seed makes the run
        reproducible and its result not private.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        On bounded, centred rows.
    intercept_ : ndarray of shape (n_classes,) or (1,)
    scale_ : ndarray of shape (2, n_features) or None
        Released centres of the columns, and one over their spreads.
    center_ : ndarray of shape (n_features,) or None
        The released mean of the bounded rows; None where rows were not centred.
    linear_map_ : ndarray of shape (n_features, n_features) or None
        What centred rows were multiplied with from the right; from public features only.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    privacy_ : PrivacyStatement
        What was released, how noisy, and what it adds up to.

    References
    ----------
    Abadi et al. (2016), Deep Learning with Differential Privacy.
    Tramèr, Boneh (2021), Differentially Private Learning Needs Better Features.
    Panda et al. (2024), A New Linear Scaling Rule for Private Adaptive Hyperparameter
    Optimization (full batch with momentum).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPGradientClassifier(epsilon=8.0, classes=range(10)).fit(X, y)
    >>> model.privacy_.releases[-1].count
    60
    """

    optimizer: Annotated[str, Choice(("sgd", "adam"))] = "sgd"
    n_steps: Annotated[int, STEPS] = 60
    learning_rate: Annotated[float | Literal["auto"], Interval(0, words=("auto",))] = "auto"
    momentum: Annotated[float, Interval(0, 1, closed="left")] = 0.9
    sampling_probability: Annotated[float, Interval(1e-9, 1, closed="right")] = 1.0
    residual_clip_norm: Annotated[float, BOUND] = 0.5
    loss: Annotated[str, Choice(("softmax", "sigmoid"))] = "softmax"
    l2_regularization: Annotated[float, Interval(0, closed="left")] = 0.0

    def _requests(self) -> list[ReleaseRequest]:
        return [ReleaseRequest("gradient", 1.0, self.n_steps, self.sampling_probability)]

    def _needs_n_samples(self) -> bool:
        return True

    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        loss = LOSSES[self.loss]
        shape = (loss.n_outputs(mechanism.n_classes), mechanism.n_columns)
        coef = torch.zeros(shape, dtype=torch.float64)
        n_samples = mechanism.n_samples()
        optimizer = self._make_optimizer(coef, mechanism, n_samples)
        for _ in range(self.n_steps):
            total = loss.project(mechanism.release("gradient", self._query(coef)).value)
            mean = total / (self.sampling_probability * n_samples)
            coef.grad = mean + self.l2_regularization / n_samples * coef
            optimizer.step()
        return np.asarray(coef.cpu().numpy())

    def _query(self, coef: torch.Tensor) -> GradientSum:
        return GradientSum(coef.clone(), LOSSES[self.loss], float(self.residual_clip_norm))

    def _make_optimizer(
        self, coef: torch.Tensor, mechanism: GaussianMechanism, n_samples: float
    ) -> torch.optim.Optimizer:
        rate = self.learning_rate
        if self.optimizer == "adam":
            return torch.optim.Adam([coef], lr=_ADAM_RATE if rate == "auto" else rate)
        if rate == "auto":
            bound = mechanism.row_map.l2_bound
            rate = _NEWTON_FACTOR / LOSSES[self.loss].initial_curvature(mechanism.n_classes)
            noise = mechanism.noise_standard_deviation("gradient", self._query(coef))
            if noise > 0.0:
                # A step's noise moves a logit by rate · noise · bound / (q n (1 - momentum)).
                walk = noise * bound * math.sqrt(self.n_steps) / (1.0 - self.momentum)
                rate = min(rate, _LOGIT_NOISE * self.sampling_probability * n_samples / walk)
        return torch.optim.SGD([coef], lr=float(rate), momentum=self.momentum)

    @property
    def _link(self) -> Link:
        return "softmax" if self.loss == "softmax" else "sigmoid"
