"""DP-Newton: Newton's method on one-versus-rest logistic losses with noisy derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc._support.memory import check_memory
from dpfc._support.validation import BOUND, SHARE, STEPS, Interval, declared
from dpfc.accounting import ReleaseRequest
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.linear.probabilities import Link
from dpfc.linear.spectra import noise_spectral_radius, shrunk_inverse
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.losses import SigmoidLoss
from dpfc.mechanism.queries import GradientSum, HessianSum

__all__ = ["DPNewtonClassifier"]


@declared
@dataclass(eq=False, repr=False, kw_only=True)
class DPNewtonClassifier(PrivateLinearClassifier):
    """Private Newton's method (DP-Newton).

    Each step releases the clipped gradient g_k and the Hessian H_k of every class's
    logistic loss against the rest (of the one loss, for two classes), and moves

        θ_k ← θ_k - (Ĥ_k + (λ + ρ)I)⁻¹ (g_k + ρ θ_k).

    It holds K matrices of d² numbers and is meant for few classes and narrow features.

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
    hessian_share : float in (0, 1), default=0.5
        Share of the budget (of μ²) for the Hessians; the gradients get the rest.
    n_steps : int, default=5
    damping : float, default=1.0
        λ in units of the spectral radius of a Hessian's noise, σ√(2d).
    residual_clip_norm : float in (0, inf], default=0.5
        c, bound on the norm of a row's residual.
    l2_regularization : float, default=0.0
        ρ of the term (ρ/2)||θ||² added to the sum of the losses.
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
    Mehta, Krichene, Thakurta, Kurakin, Cutkosky (2023), Differentially Private Image
    Classification from Features, TMLR, section 4 (DP-Newton).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPNewtonClassifier(epsilon=8.0, classes=range(10)).fit(X, y)
    >>> model.intercept_.shape
    (10,)
    """

    hessian_share: Annotated[float, SHARE] = 0.5
    n_steps: Annotated[int, STEPS] = 5
    damping: Annotated[float, Interval(0, closed="left")] = 1.0
    residual_clip_norm: Annotated[float, BOUND] = 0.5
    l2_regularization: Annotated[float, Interval(0, closed="left")] = 0.0

    def _requests(self) -> list[ReleaseRequest]:
        return [
            ReleaseRequest("hessian", self.hessian_share, self.n_steps),
            ReleaseRequest("gradient", 1.0 - self.hessian_share, self.n_steps),
        ]

    def _check_size(self, n_columns: int, n_classes: int) -> None:
        super()._check_size(n_columns, n_classes)
        n_outputs = SigmoidLoss().n_outputs(n_classes)
        check_memory(
            8 * 8 * n_outputs * n_columns**2,  # measured: 7.2 doubles an entry at the peak
            f"{n_outputs} Hessians of {n_columns} x {n_columns}",
            "Use DPFCClassifier, which needs one matrix, or reduce the features.",
        )

    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        loss, n_columns = SigmoidLoss(), mechanism.n_columns
        shape = (loss.n_outputs(mechanism.n_classes), n_columns)
        coef = torch.zeros(shape, dtype=torch.float64)
        for _ in range(self.n_steps):
            hessians = mechanism.release("hessian", HessianSum(coef))
            query = GradientSum(coef, loss, float(self.residual_clip_norm))
            gradient = mechanism.release("gradient", query).value + self.l2_regularization * coef
            radius = noise_spectral_radius(hessians.noise_standard_deviation, n_columns)
            ridge = self.damping * radius + self.l2_regularization
            steps = [
                shrunk_inverse(hessian, radius, ridge) @ direction
                for hessian, direction in zip(hessians.value, gradient, strict=True)
            ]
            coef = coef - torch.stack(steps)
        return np.asarray(coef.cpu().numpy())

    @property
    def _link(self) -> Link:
        return "sigmoid"
