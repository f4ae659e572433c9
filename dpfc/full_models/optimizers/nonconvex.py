"""Online-to-non-convex conversion: an optimizer for losses neither smooth nor convex."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dpfc.full_models.optimizers.vectors import gradient_of, l2_norm

__all__ = ["OnlineToNonconvex"]


class OnlineToNonconvex(torch.optim.Optimizer):
    """Let an online learner choose the updates, and take gradients at a random point of each.

    Step n (Algorithm 1 of the paper), with all parameters as one vector ::

        x_n = x_{n-1} + Δ_n        w_n = x_{n-1} + s_n Δ_n,  s_n uniform in [0, 1)
        g_n = gradient at w_n      Δ_{n+1} = Π(Δ_n - D / (G sqrt(T)) g_n)

    w_n are the weights that gradients are taken at. Because s_n is uniform, E<g_n, Δ_n> is
    F(x_n) - F(x_{n-1}) exactly, for any absolutely continuous F. Π scales an update longer
    than D down to D: the learner is online gradient descent in a ball. The paper's G is a known
    bound on gradient norms; here it is the largest norm seen so far, which the regret bound
    allows as it never decreases.

    Averages of T gradients in a row, at points at most D T apart, then have an expected
    norm, averaged over the run's N steps, of at most (Theorem 8) ::

        (F(x_0) - inf F) / (D N) + (5/2 G + σ) / sqrt(T)

    which D = δ/T and T of the order (N δ)^(2/3) make (N δ)^(-1/3), the best possible rate.

    Parameters
    ----------
    parameters : sequence of Parameter
    radius : float
        D, the l2 length that no update exceeds; the group's `lr`, which a schedule scales.
    horizon : float
        T > 0: T unrelated gradients of norm G, or sqrt(T) equal ones, make an update D long.
    weight_decay : float
        Adds this times w_n to the gradient.
    uniform : callable
        Returns a fresh uniform number in [0, 1); its state is the caller's to save.

    References
    ----------
    Cutkosky, Mehta, Orabona (2023), Optimal Stochastic Non-smooth Non-convex Optimization
    through Online-to-Non-convex Conversion, Algorithm 1, Theorem 8 and Corollary 9.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        radius: float,
        *,
        horizon: float,
        weight_decay: float,
        uniform: Callable[[], float],
    ):
        defaults = {
            "lr": radius,
            "horizon": horizon,
            "weight_decay": weight_decay,
            "largest_norm": 0.0,
        }
        super().__init__(parameters, defaults)
        self._uniform = uniform

    def __getstate__(self) -> dict[str, Any]:
        # torch's leaves out what is a subclass's own, and a copy could take no step.
        return {**super().__getstate__(), "_uniform": self._uniform}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no losses here
        """Choose the next update, and move to a random point of it."""
        (group,) = self.param_groups
        parameters = group["params"]
        gradients = [gradient_of(p).add(p, alpha=group["weight_decay"]) for p in parameters]
        group["largest_norm"] = max(group["largest_norm"], l2_norm(gradients))
        if group["largest_norm"] == 0.0:
            return
        rate = group["lr"] / (group["largest_norm"] * math.sqrt(group["horizon"]))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state = self.state[parameter]
            if not state:
                state["point"] = parameter.detach().clone()
                state["update"] = torch.zeros_like(parameter)
            state["update"].sub_(gradient, alpha=rate)
        self._move(parameters, group["lr"])

    def _move(self, parameters: Sequence[torch.Tensor], radius: float) -> None:
        length = l2_norm([self.state[parameter]["update"] for parameter in parameters])
        share = self._uniform()
        for parameter in parameters:
            state = self.state[parameter]
            if length > radius:
                state["update"].mul_(radius / length)
            parameter.copy_(state["point"] + share * state["update"])
            state["point"].add_(state["update"])
