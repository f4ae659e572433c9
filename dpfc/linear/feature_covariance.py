"""DP-FC: gradient steps preconditioned by one noisy feature covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc._support.validation import BOUND, SHARE, STEPS, Choice, Interval, declared
from dpfc.accounting import ReleaseRequest
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.linear.probabilities import Link
from dpfc.linear.public_features import PublicFeatures
from dpfc.linear.spectra import noise_spectral_radius, shrunk_inverse
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.losses import LOSSES
from dpfc.mechanism.queries import GradientSum, Gram

__all__ = ["DPFCClassifier"]

_NEWTON_FACTOR = 1.6
_DAMPING_FLOOR = 1e-3  # of the mean eigenvalue
_INTERCEPT_NOISE = 0.5  # of `logit_noise`: what the constant column may take of it
# Of the preconditioner's damping: below it, a direction of public features is damped. One
# number for all data sets; docs/accuracy.md has what others give.
_MAP_DAMPING = 1.0 / 600.0


@declared
@dataclass(eq=False, repr=False, kw_only=True)
class DPFCClassifier(PrivateLinearClassifier):
    """Private linear classifier by feature covariance (DP-FC).

    One noisy Gram matrix G of the bounded rows is released, then `n_steps` noisy clipped
    gradients g of the logistic loss, and the weights move by

        W ← W - η (Ĝ + (λ + ρ)I)⁻¹ (g + ρW),

    which is close to a Newton step, for the price of a first-order one.

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
    length_scaling : float in [0, 1), default=0.2
        Norm of two columns that say how long a row was before it was scaled, which tells
        classes apart where features are measurements; 0 leaves them out. Used with
        `normalize` only.
    public_features : array-like of shape (n_public, n_features), FeatureCache or None
        Unlabelled embeddings of public data, made with the same backbone; default None.
        Their covariance costs no budget: it takes directions in which rows hardly vary out
        of the rows, and noisy Gram matrices are shrunk to it. The more alike the public data
        are to the private ones, the more it helps, most where the budget is small.
    gram_share : float in (0, 1), default=0.02
        Share of the solver's budget (of μ²) for the Gram matrix; the gradients get the rest.
    n_steps : int, default=20
    step_size : float or "auto", default="auto"
        η. "auto" is 1.6 over the loss's curvature at zero weights (1.6 n_classes for the
        softmax loss, 6.4 for the sigmoid loss): a Newton step at zero weights would be 1
        over it, steps are stable below 2 over it, and clipped residuals shorten them.
    logit_noise : float, default=0.7
        How far the noise of all steps together may move a logit (standard deviation for
        a row of length C, in a direction without signal); λ = η σ_g C √n_steps / logit_noise
        follows from it, with σ_g the standard deviation of a gradient's noise. The constant
        column, which is the same in all rows, gets half of it, and is shrunk to zero as far
        as noise explains it.
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
    length_coef_ : ndarray of shape (n_classes, 2) or (1, 2), or None
        Weights of the columns for the length (`dpfc.mechanism.row_map`).
    linear_map_ : ndarray of shape (n_features, n_features) or None
        What centred rows were multiplied with from the right; from public features only.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    privacy_ : PrivacyStatement
        What was released, how noisy, and what it adds up to.

    References
    ----------
    Mehta, Krichene, Thakurta, Kurakin, Cutkosky (2023), Differentially Private Image
    Classification from Features, TMLR, section 4 (DP-FC).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPFCClassifier(epsilon=8.0, classes=range(10)).fit(X, y)
    >>> model.privacy_.private
    True
    """

    length_scaling: Annotated[float, Interval(0, 1, closed="left")] = 0.2
    public_features: Any = None
    gram_share: Annotated[float, SHARE] = 0.02
    n_steps: Annotated[int, STEPS] = 20
    step_size: Annotated[float | Literal["auto"], Interval(0, 1e9, words=("auto",))] = "auto"
    logit_noise: Annotated[float, Interval(0)] = 0.7
    residual_clip_norm: Annotated[float, BOUND] = 0.5
    loss: Annotated[str, Choice(("softmax", "sigmoid"))] = "softmax"
    l2_regularization: Annotated[float, Interval(0, closed="left")] = 0.0

    def _requests(self) -> list[ReleaseRequest]:
        return [
            ReleaseRequest("gram", self.gram_share),
            ReleaseRequest("gradient", 1.0 - self.gram_share, self.n_steps),
        ]

    def _needs_n_samples(self) -> bool:
        return self.public_features is not None

    def _check_size(self, n_columns: int, n_classes: int) -> None:
        super()._check_size(n_columns, n_classes)
        self._public(n_columns - self._row_map().n_columns(0))  # refused now, or never

    def _public(self, n_features: int) -> PublicFeatures | None:
        if self.public_features is None:
            return None
        return PublicFeatures(self.public_features, n_features, self._row_map())

    def _mean_guess(self, n_features: int) -> torch.Tensor | None:
        public = self._public(n_features)
        return None if public is None else self.l2_clip_norm * public.center

    def _prepare(self, mechanism: GaussianMechanism) -> None:
        """Take directions out of the rows in which public rows do not vary enough."""
        public = self._public(mechanism.n_features)
        if public is not None and not mechanism.run.exact:
            # What `damping` is in the preconditioner, in units of the trace.
            damping = self._walk(mechanism) / (self.logit_noise * mechanism.row_map.l2_bound)
            threshold = _MAP_DAMPING * damping / mechanism.n_samples()
            mechanism.map_rows(linear=public.linear_map(threshold))

    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        loss, step_size = LOSSES[self.loss], self._step_size(mechanism)
        coef = torch.zeros(self._shape(mechanism), dtype=torch.float64)
        inverse = self._preconditioner(mechanism)
        # The noise of one step in the constant column's weights, all outputs together.
        doubt = step_size * self._gradient_noise(mechanism) * float(inverse[:, -1].norm())
        doubt *= math.sqrt(loss.degrees_of_freedom(len(coef)))
        used = coef
        for step in range(1, self.n_steps + 1):
            gradient = loss.project(mechanism.release("gradient", self._query(used)).value)
            coef = coef - step_size * (gradient + self.l2_regularization * used) @ inverse
            used = coef.clone()
            if mechanism.row_map.constant > 0.0:
                used[:, -1] *= _shrinkage(coef[:, -1], doubt**2 * step)
        return np.asarray(used.cpu().numpy())

    def _shape(self, mechanism: GaussianMechanism) -> tuple[int, int]:
        return LOSSES[self.loss].n_outputs(mechanism.n_classes), mechanism.n_columns

    def _query(self, coef: torch.Tensor) -> GradientSum:
        return GradientSum(coef, LOSSES[self.loss], float(self.residual_clip_norm))

    def _step_size(self, mechanism: GaussianMechanism) -> float:
        if self.step_size == "auto":
            return _NEWTON_FACTOR / LOSSES[self.loss].initial_curvature(mechanism.n_classes)
        return self.step_size

    def _gradient_noise(self, mechanism: GaussianMechanism) -> float:
        """Standard deviation of one step's noise, at zero weights."""
        query = self._query(torch.zeros(self._shape(mechanism), dtype=torch.float64))
        return mechanism.noise_standard_deviation("gradient", query)

    def _walk(self, mechanism: GaussianMechanism) -> float:
        """How far the noise of all steps moves a weight, times the damping that holds it."""
        noise = self._gradient_noise(mechanism)
        return self._step_size(mechanism) * noise * math.sqrt(self.n_steps)

    def _preconditioner(self, mechanism: GaussianMechanism) -> torch.Tensor:
        """(Ĝ + Λ + ρI)⁻¹ from one release of the Gram matrix."""
        gram = mechanism.release("gram", Gram())
        n_columns, row_map = mechanism.n_columns, mechanism.row_map
        radius = noise_spectral_radius(gram.noise_standard_deviation, n_columns)
        # Where nothing is noisy, this keeps directions without rows from blowing up.
        floor = _DAMPING_FLOOR * max(float(gram.value.trace()), 0.0) / n_columns
        walk = self._walk(mechanism) / self.logit_noise
        damping = torch.full((n_columns,), floor, dtype=torch.float64)
        if walk > 0.0:
            damping = damping.clamp(min=walk * row_map.l2_bound)
            if row_map.constant > 0.0:
                damping[-1] = max(walk * row_map.constant / _INTERCEPT_NOISE, floor)
        damping += self.l2_regularization
        return shrunk_inverse(gram.value, radius, damping, self._gram_guess(mechanism))

    def _gram_guess(self, mechanism: GaussianMechanism) -> torch.Tensor | None:
        """The Gram matrix as public rows have it; None without them."""
        public, row_map = self._public(mechanism.n_features), mechanism.row_map
        if public is None or mechanism.run.exact:
            return None
        moments = public.covariance(row_map.linear) * row_map.feature_share * row_map.l2_bound**2
        others = [(row_map.length_scaling * row_map.l2_bound) ** 2 / 3.0] * row_map.n_length_columns
        others += [row_map.constant**2] * (row_map.constant > 0.0)
        size = len(moments)
        moments = torch.nn.functional.pad(moments, (0, len(others), 0, len(others)))
        moments[size:, size:] = torch.diag(moments.new_tensor(others))
        return mechanism.n_samples() * moments

    @property
    def _link(self) -> Link:
        return "softmax" if self.loss == "softmax" else "sigmoid"


def _shrinkage(noisy: torch.Tensor, expected_noise: float) -> float:
    """James-Stein factor of a vector, given the expected squared norm of its noise."""
    energy = float(noisy @ noisy)
    return 1.0 if expected_noise == 0.0 else max(0.0, 1.0 - expected_noise / max(energy, 1e-300))
