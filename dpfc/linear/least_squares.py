"""DP-LS: ridge regression on the class labels, from noisy sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc._support.memory import check_memory
from dpfc._support.validation import SHARE, Interval, declared
from dpfc.accounting import ReleaseRequest
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.linear.probabilities import Link
from dpfc.linear.spectra import noise_spectral_radius, shrunk_inverse
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.noisy_sum import Release
from dpfc.mechanism.queries import ClassGrams, ClassSums, Gram

__all__ = ["DPLeastSquaresClassifier"]


@declared
@dataclass(eq=False, repr=False, kw_only=True)
class DPLeastSquaresClassifier(PrivateLinearClassifier):
    """Private least-squares classifier (DP-LS).

    By default one noisy Gram matrix G of all rows and the noisy sum b_k of each class's
    rows give

        θ_k = (Ĝ + λI)⁻¹ b_k.

    With `alpha`, the paper's weighted form is used, with one Gram matrix A_k a class:

        θ_k = (A_k + αG + λI)⁻¹ b_k,

    which weighs rows of other classes by α, and pays for K more matrices.

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
    alpha : float in (0, inf) or None, default=None
        Weight of all rows in the paper's form; None pools the classes.
    sums_share : float in (0, 1), default=0.7
        Share of the budget (of μ²) for the class sums; Gram matrices get the rest, with
        `alpha` in equal parts for G and for the A_k.
    discriminant_shift : float in [0, 1], default=0.25
        Share of a class's mean score on its own rows that is taken off its scores: 0 is
        plain regression, 0.5 the threshold of linear discriminant analysis. Regression
        favours classes that are far from the others, the more the noisier it is. Needs
        `fit_intercept`; not used with `alpha`, nor without noise, where the ridge solution
        is returned.
    damping : float, default=0.2
        λ in units of the spectral radius of the noise in the matrix, σ√(2d).
    l2_regularization : float, default=0.0
        Added to λ: the weight of ||θ_k||² in the sum of squared errors.
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
    Classification from Features, TMLR, section 4 (DP-LS).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPLeastSquaresClassifier(epsilon=8.0, classes=range(10)).fit(X, y)
    >>> model.coef_.shape
    (10, 64)
    """

    alpha: Annotated[float | None, Interval(1e-9, 1e9, words=(None,))] = None
    sums_share: Annotated[float, SHARE] = 0.7
    discriminant_shift: Annotated[float, Interval(0, 1, closed="both")] = 0.25
    damping: Annotated[float, Interval(0, closed="left")] = 0.2
    l2_regularization: Annotated[float, Interval(0, closed="left")] = 0.0

    def _requests(self) -> list[ReleaseRequest]:
        sums = ReleaseRequest("class_sums", self.sums_share)
        rest = 1.0 - self.sums_share
        if self.alpha is None:
            return [sums, ReleaseRequest("gram", rest)]
        return [sums, ReleaseRequest("gram", rest / 2), ReleaseRequest("class_grams", rest / 2)]

    def _check_size(self, n_columns: int, n_classes: int) -> None:
        super()._check_size(n_columns, n_classes)
        if self.alpha is not None:
            check_memory(
                8 * 8 * n_classes * n_columns**2,  # measured: 6.8 doubles an entry at the peak
                f"{n_classes} Gram matrices of {n_columns} x {n_columns}",
                "Leave alpha out for one pooled matrix, or reduce the features.",
            )

    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        release = mechanism.release("class_sums", ClassSums())
        sums, gram = release.value, mechanism.release("gram", Gram())
        if self.alpha is None:
            inverse = self._inverse(gram.value, gram.noise_standard_deviation)
            coef = sums @ inverse
            if (constant := mechanism.row_map.constant) > 0.0 and not mechanism.run.exact:
                coef[:, -1] -= self._shift(release, inverse, constant) / constant
            return np.asarray(coef.cpu().numpy())
        grams = mechanism.release("class_grams", ClassGrams())
        noise = math.hypot(
            grams.noise_standard_deviation, self.alpha * gram.noise_standard_deviation
        )
        weights = [
            self._inverse(class_gram + self.alpha * gram.value, noise) @ class_sum
            for class_gram, class_sum in zip(grams.value, sums, strict=True)
        ]
        return np.asarray(torch.stack(weights).cpu().numpy())

    def _shift(self, release: Release, inverse: torch.Tensor, constant: float) -> torch.Tensor:
        """`discriminant_shift` of each class's mean score on its own rows, shape (n_classes,).

        That mean is θ_kᵀ b_k / n_k; its noise adds σ² tr(inverse) to the numerator, and
        n_k is what the class sum's constant column says, where it is above its own noise.
        """
        sums, noise = release.value, release.noise_standard_deviation
        scores = ((sums @ inverse) * sums).sum(dim=1) - noise**2 * inverse.trace()
        counts = sums[:, -1] / constant
        known = max(float(counts.mean()), 3.0 * noise / constant, 1.0)
        return self.discriminant_shift * scores.clamp(min=0.0) / counts.clamp(min=known)

    def _inverse(self, noisy: torch.Tensor, noise_standard_deviation: float) -> torch.Tensor:
        radius = noise_spectral_radius(noise_standard_deviation, len(noisy))
        return shrunk_inverse(noisy, radius, self.damping * radius + self.l2_regularization)

    @property
    def _link(self) -> Link:
        return "squared"
