"""DP-FC: gradient steps preconditioned by one noisy feature covariance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dpfc.accounting import ReleaseRequest
from dpfc.base import PrivateLinearClassifier
from dpfc.losses import LOSSES
from dpfc.mechanisms import GaussianMechanism
from dpfc.parameters import Choice, Constraint, Interval
from dpfc.probabilities import logistic_probabilities
from dpfc.queries import GradientSum, Gram
from dpfc.spectra import noise_spectral_radius, shrunk_inverse

__all__ = ["DPFCClassifier"]


class DPFCClassifier(PrivateLinearClassifier):
    """Private linear classifier by feature covariance (DP-FC).

    One noisy Gram matrix G of the bounded rows is released, then `n_steps` noisy clipped
    gradients g of the logistic loss, and the weights move by

        W ← W - η (G₊ + λI)⁻¹ (g + ρW),

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
    l2_clip_norm : float, default=1.0
        C, the length that rows are scaled to, or clipped at.
    normalize : bool, default=True
        Scale every row to length C; otherwise only longer rows are scaled down.
    center : bool, default=True
        Release the mean row (3% of μ²), subtract it, and bound the rows again.
    fit_intercept : bool, default=True
        Append a constant column, as a share of a normalised row's length.
    intercept_scaling : float in (0, 1), default=0.1
        Value of the constant column.
    gram_share : float in (0, 1), default=0.15
        Share of the budget (of μ²) for the Gram matrix; the gradients get the rest.
    n_steps : int, default=20
    step_size : float or "auto", default="auto"
        η. "auto" is one over the loss's curvature at zero weights (n_classes for the
        softmax loss, 4 for the sigmoid loss), so that the first step is Newton's.
    damping : float, default=1.0
        λ in units of the spectral radius of the Gram's noise, σ√(2d).
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
    center_ : ndarray of shape (n_features,) or None
        The released mean of the bounded rows.
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

    _constraints: ClassVar[dict[str, Constraint]] = {
        **PrivateLinearClassifier._constraints,
        "gram_share": Interval(0, 1),
        "n_steps": Interval(1, closed="left", integer=True),
        "step_size": Interval(0, words=("auto",)),
        "damping": Interval(0, closed="left"),
        "residual_clip_norm": Interval(0, float("inf"), closed="right"),
        "loss": Choice(("softmax", "sigmoid")),
        "l2_regularization": Interval(0, closed="left"),
    }

    def __init__(
        self,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        *,
        classes: Iterable[Any] | None = None,
        neighboring_relation: str = "add_or_remove_one",
        n_samples: int | None = None,
        l2_clip_norm: float = 1.0,
        normalize: bool = True,
        center: bool = True,
        fit_intercept: bool = True,
        intercept_scaling: float = 0.1,
        gram_share: float = 0.15,
        n_steps: int = 20,
        step_size: float | Literal["auto"] = "auto",
        damping: float = 1.0,
        residual_clip_norm: float = 0.5,
        loss: str = "softmax",
        l2_regularization: float = 0.0,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
        verbose: bool = False,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.classes = classes
        self.neighboring_relation = neighboring_relation
        self.n_samples = n_samples
        self.l2_clip_norm = l2_clip_norm
        self.normalize = normalize
        self.center = center
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.gram_share = gram_share
        self.n_steps = n_steps
        self.step_size = step_size
        self.damping = damping
        self.residual_clip_norm = residual_clip_norm
        self.loss = loss
        self.l2_regularization = l2_regularization
        self.random_state = random_state
        self.verbose = verbose

    def _requests(self) -> list[ReleaseRequest]:
        return [
            ReleaseRequest("gram", self.gram_share),
            ReleaseRequest("gradient", 1.0 - self.gram_share, self.n_steps),
        ]

    def _solve(self, mechanism: GaussianMechanism) -> NDArray[np.float64]:
        loss = LOSSES[self.loss]
        n_columns, n_classes = mechanism.n_columns, mechanism.n_classes
        gram = mechanism.release("gram", Gram())
        radius = noise_spectral_radius(gram.noise_standard_deviation, n_columns)
        inverse = shrunk_inverse(gram.value, self.damping * radius + self.l2_regularization)
        step_size = self.step_size
        if step_size == "auto":
            step_size = 1.0 / loss.initial_curvature(n_classes)
        shape = (loss.n_outputs(n_classes), n_columns)
        coef = torch.zeros(shape, dtype=torch.float64, device=mechanism.device)
        for _ in range(self.n_steps):
            query = GradientSum(coef, loss, self.residual_clip_norm)
            gradient = loss.project(mechanism.release("gradient", query).value)
            coef = coef - step_size * (gradient + self.l2_regularization * coef) @ inverse
        return np.asarray(coef.cpu().numpy())

    def _probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return logistic_probabilities(scores, self.loss)
