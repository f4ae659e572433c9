"""DP-LS, DP-FC and DP-Newton as published, with the accounting of their code; simulated.

Rows are scaled to length 1 and not centred. As in the published code, a noisy matrix is made
symmetric and its negative eigenvalues are set to zero; DP-FC may start from logits of -10. What
is given to them beyond that: a grid of budget shares, clipping bounds and a softmax loss for
DP-FC, all chosen on the test rows (see `peers`).

References
----------
Mehta, Krichene, Thakurta, Kurakin, Cutkosky (2023), Differentially Private Image Classification
from Features, TMLR, section 4; code: google-research/dp_transfer.
"""

from __future__ import annotations

import math

import torch

from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.benchmarks.peers import (
    STEP_OVERHEAD,
    Head,
    Noise,
    Peer,
    Rows,
    Setting,
    clipped_residual,
    gradient_work,
    noise_scale,
)

__all__ = ["NEWTON_LIMIT", "PAPER_PEERS", "paper_mu"]

# n d² K, multiplications of one step; 1e11 of them take seconds, and a search hundreds of steps.
NEWTON_LIMIT = 5e10

_LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
# Eigenvalues and a product, in multiples of d³ (measured).
_EIGEN = 5.0


def paper_mu(epsilon: float, delta: float = DELTA) -> float:
    """μ that the paper's accounting finds for (ε, δ).

    Its code turns (α, αβ/2)-RDP with β = μ² into ε = αβ/2 + log(1/δ)/(α - 1), least at
    α = 1 + √(2 log(1/δ)/β), where ε = μ²/2 + μ √(2 log(1/δ)).
    """
    if epsilon == math.inf:
        return math.inf
    root = math.sqrt(2.0 * math.log(1.0 / delta))
    return math.sqrt(root**2 + 2.0 * epsilon) - root


def _project(matrices: torch.Tensor) -> torch.Tensor:
    """Nearest positive semidefinite matrices."""
    values, vectors = torch.linalg.eigh(matrices)
    projected: torch.Tensor = (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.mT
    return projected


def _ridge(matrices: torch.Tensor, strength: float) -> torch.Tensor:
    return matrices + strength * torch.eye(matrices.shape[-1])


def _fit_least_squares(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    """θ_k = (A_k + αG + λI)⁻¹ b_k."""
    share = setting["sums_share"]
    class_grams, gram, sums = rows.keep(
        ("ls", epsilon, share, noise.seed),
        lambda: _least_squares_releases(rows, paper_mu(epsilon), share, noise),
    )
    matrices = _ridge(class_grams + setting["alpha"] * gram, setting["lambda"])
    weights = torch.linalg.solve(matrices, sums)
    return Head("unit", weights, torch.zeros(rows.n_classes))


def _least_squares_releases(
    rows: Rows, mu: float, sums_share: float, noise: Noise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per-class Grams, Gram and class sums; sensitivity 1 each."""
    deviation = noise_scale(mu, 1.0, (1.0 - sums_share) / 2)
    sums = noise.add("sums", rows.class_sums, noise_scale(mu, 1.0, sums_share))
    gram = noise.add("gram", rows.gram, deviation, symmetric=True)
    grams = noise.add("class grams", rows.class_grams, deviation, symmetric=True)
    return _project(grams), _project(gram), sums


def _least_squares_work(rows: Rows, setting: Setting) -> float:
    """K systems; the eigenvalues are kept while the shares stand still, so they count a little."""
    return 1.5 * rows.n_classes * float(rows.n_features) ** 3 + STEP_OVERHEAD


def _fit_feature_covariance(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    """W ← W - η g̃_t (G + λI)⁻¹, T times, from one noisy Gram."""
    mu, share, steps = paper_mu(epsilon), setting["gram_share"], setting["steps"]
    values, vectors = rows.keep(
        ("gram", epsilon, share, noise.seed),
        lambda: torch.linalg.eigh(
            noise.add("gram", rows.gram, noise_scale(mu, 1.0, share), symmetric=True)
        ),
    )
    inverse = (vectors / (values.clamp(min=0.0) + setting["lambda"])) @ vectors.T
    loss, _, offset = setting["loss"].partition(" ")
    clip, bias = setting["clip"], float(offset or 0.0)
    deviation = noise_scale(mu, clip, 1.0 - share, steps)
    weights = torch.zeros(rows.n_classes, rows.n_features)
    for _ in range(steps):
        residual = clipped_residual(loss, rows.unit @ weights.T + bias, rows.labels, clip)
        gradient = noise.add("gradient", residual.T @ rows.unit, deviation)
        weights = weights - setting["eta"] * gradient @ inverse
    return Head("unit", weights, torch.zeros(rows.n_classes))


def _feature_covariance_work(rows: Rows, setting: Setting) -> float:
    return gradient_work(rows, setting["steps"]) + _EIGEN * float(rows.n_features) ** 3


def _fit_newton(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    """θ_k ← θ_k - η (H_k + λI)⁻¹ g_k, T times, one-versus-rest."""
    mu, steps = paper_mu(epsilon), setting["steps"]
    n_outputs = rows.n_classes
    # Each of K residuals is at most 1: without a clip the bound is √K.
    bound = min(setting["clip"], math.sqrt(n_outputs))
    share = setting["hessian_share"]
    scales = (
        noise_scale(mu, math.sqrt(n_outputs) / 4.0, share, steps),
        noise_scale(mu, bound, 1.0 - share, steps),
    )
    weights = torch.zeros(n_outputs, rows.n_features)
    for _ in range(steps):
        logits = rows.unit @ weights.T
        exact = _hessians(rows, logits)
        hessians = _project(noise.add("hessians", exact, scales[0], symmetric=True))
        residual = clipped_residual("sigmoid", logits, rows.labels, bound)
        gradient = noise.add("gradient", residual.T @ rows.unit, scales[1])
        weights = weights - setting["eta"] * torch.linalg.solve(
            _ridge(hessians, setting["lambda"]), gradient
        )
    return Head("unit", weights, torch.zeros(n_outputs))


def _hessians(rows: Rows, logits: torch.Tensor) -> torch.Tensor:
    """Σ h_k x xᵀ for every class, shape (n_classes, n_features, n_features)."""
    if not logits.any():  # the first step: h_k is 1/4 for every row
        return (rows.gram / 4.0).repeat(rows.n_classes, 1, 1)
    p = torch.sigmoid(logits)
    curvatures = p * (1.0 - p)
    products = [rows.unit.T @ (h.unsqueeze(1) * rows.unit) for h in curvatures.unbind(dim=1)]
    return torch.stack(products)


def _newton_work(rows: Rows, setting: Setting) -> float:
    products = 2.0 * rows.n_samples * float(rows.n_features) ** 2
    matrices = rows.n_classes * (products + (_EIGEN + 1.0) * float(rows.n_features) ** 3)
    return float(setting["steps"]) * (matrices + STEP_OVERHEAD)


def _newton_left_out(rows: Rows) -> str | None:
    size = rows.n_samples * float(rows.n_features) ** 2 * rows.n_classes
    if size <= NEWTON_LIMIT:
        return None
    return (
        f"n d² K = {size:.1e} multiplications for the Hessians of one step, more than "
        f"{NEWTON_LIMIT:.0e}"
    )


def _fc_start(strength: float) -> Setting:
    return {
        "loss": "softmax",
        "eta": 4.0,
        "lambda": strength,
        "steps": 10,
        "clip": 1.0,
        "gram_share": 0.1,
    }


PAPER_PEERS = (
    Peer(
        name="paper-fc",
        label="DP-FC of the paper",
        axes={
            "loss": ("sigmoid", "sigmoid -10", "softmax"),
            "eta": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
            "lambda": _LAMBDAS,
            "steps": (1, 2, 5, 10, 20, 40),
            "clip": (0.25, 0.5, 1.0, 2.0),
            "gram_share": (0.03, 0.1, 0.3, 0.5),
        },
        starts=(_fc_start(100.0), _fc_start(3e3)),
        fit=_fit_feature_covariance,
        work=_feature_covariance_work,
    ),
    Peer(
        name="paper-ls",
        label="DP-LS of the paper",
        axes={
            "alpha": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
            "lambda": _LAMBDAS,
            "sums_share": (0.1, 1 / 3, 0.6, 0.9),
        },
        starts=(
            {"alpha": 1.0, "lambda": 30.0, "sums_share": 1 / 3},
            {"alpha": 1.0, "lambda": 3e3, "sums_share": 0.6},
        ),
        fit=_fit_least_squares,
        work=_least_squares_work,
    ),
    Peer(
        name="paper-newton",
        label="DP-Newton of the paper",
        axes={
            "steps": (1, 2, 3, 5),
            "lambda": _LAMBDAS,
            "eta": (0.3, 0.6, 1.0),
            "clip": (0.5, 1.0, 2.0, 10.0),
            "hessian_share": (0.2, 0.5),
        },
        starts=(
            {"steps": 3, "lambda": 30.0, "eta": 1.0, "clip": 1.0, "hessian_share": 0.5},
            {"steps": 1, "lambda": 3e3, "eta": 1.0, "clip": 1.0, "hessian_share": 0.5},
        ),
        fit=_fit_newton,
        work=_newton_work,
        left_out=_newton_left_out,
    ),
)
