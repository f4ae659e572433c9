"""Adam and AdamW on privatised gradients, whose noise variance is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from dpfc.full_models.optimizers.vectors import gradient_of

__all__ = ["PrivateAdam"]

_EPSILON = 1e-8


class PrivateAdam(torch.optim.Optimizer):
    """Adam that takes the noise's share out of the second moment (DP-AdamBC).

    With noise of variance Φ in every entry of the gradient, Adam's v̂ estimates E[g²] + Φ.
    Where Φ is larger than g², all entries are divided by nearly the same number, and Adam
    is SGD. The update here is ::

        m̂ / (sqrt(max(v̂ - Φ, γ')) + 1e-8)

    The paper tunes the floor γ' for each data set. Here γ' is the standard deviation of v̂
    where the gradient is nothing but noise, Φ·sqrt(2 Σ wᵢ²) with the weights wᵢ of the moving
    average: a difference below it can't be told from chance. With Φ = 0, γ' is 0 and the steps
    are those of `torch.optim.Adam` and `AdamW`, bit for bit.

    Parameters
    ----------
    parameters : sequence of Parameter
    learning_rate : float
    betas : (float, float)
        Shares that the averages of gradients and of their squares keep at each step.
    weight_decay : float
    decoupled : bool
        Shrink the weights directly, as AdamW does, and not through the gradient.
    noise_variance : float
        Φ, the variance of the noise in every entry of the gradient; 0 switches the
        correction off.

    References
    ----------
    Tang, Shpilevskiy, Lécuyer (2024), DP-AdamBC: Your DP-Adam Is Actually DP-SGD (Unless You
    Apply Bias Correction), Algorithm 1.
    Kingma, Ba (2015), Adam: A Method for Stochastic Optimization.
    Loshchilov, Hutter (2019), Decoupled Weight Decay Regularization.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        learning_rate: float,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        decoupled: bool,
        noise_variance: float,
    ):
        defaults = {
            "lr": learning_rate,
            "betas": betas,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
            "noise_variance": noise_variance,
            "n_steps": 0,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no losses here
        """Move every parameter, by its gradient."""
        for group in self.param_groups:
            group["n_steps"] += 1
            for parameter in group["params"]:
                self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, rate, decay = gradient_of(parameter), group["lr"], group["weight_decay"]
        if decay and group["decoupled"]:
            parameter.mul_(1 - rate * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        state = self.state[parameter]
        if not state:
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["first"].lerp_(gradient, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # The order of operations is torch's, so that rounding is too.
        filled = 1 - beta2 ** group["n_steps"]
        second = state["second"]
        if group["noise_variance"] > 0.0:
            second = self._without_noise(second, group)
        denominator = (second.sqrt() / filled**0.5).add_(_EPSILON)
        step = rate / (1 - beta1 ** group["n_steps"])
        parameter.addcdiv_(state["first"], denominator, value=-step)

    @staticmethod
    def _without_noise(second: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        beta2, n_steps = group["betas"][1], group["n_steps"]
        noise: float = group["noise_variance"] * (1 - beta2**n_steps)
        floor = noise * math.sqrt(2 * sum_of_squared_weights(beta2, n_steps))
        return (second - noise).clamp_(min=floor)


def sum_of_squared_weights(beta: float, n_steps: int) -> float:
    """Σ wᵢ² of the bias-corrected moving average, wᵢ ∝ beta^(n_steps - i) and Σ wᵢ = 1.

    One over it is the number of steps that the average is worth.
    """
    return (1 - beta) * (1 + beta**n_steps) / ((1 + beta) * (1 - beta**n_steps))
