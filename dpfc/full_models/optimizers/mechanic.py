"""Mechanic: the learning rate's scale, tuned while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dpfc.full_models.optimizers.vectors import gradient_of, inner_product, l2_norm

__all__ = ["Mechanic"]

_BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
_EPSILON = 1e-8
# The paper starts m at 0, where the first scale is 0/0; this is the authors' own start.
_FIRST_LARGEST = 1e-6


class Mechanic:
    """Scale the sum of a base optimizer's updates by a number that is learnt on the way.

    The base optimizer proposes updates u_t as if it ran alone. With Δ_t their sum so far,
    the weights are x_t = x_1 + s_t Δ_t, and the scale s_t = Σ s_{t,i} is the play of six
    one-dimensional online learners with discounts β_i (Algorithm 1) ::

        h_t = <Δ_t, g_t + λ s_t |g_t| x_t / |x_t|>
        m_t = max(β m_{t-1}, |h_t|)          v_t = β² v_{t-1} + h_t²
        r_t = max(0, β r_{t-1} - s_t h_t)
        s_{t+1} = (s_init m_t / 6 + r_t) / (sqrt(v_t) + 1e-8)

    It reads gradients and weights only. The base's learning rate should matter little.

    Parameters
    ----------
    base : Optimizer
        Its `step` changes the parameters by u_t.
    parameters : sequence of Parameter
        All that `base` moves; where they are now is x_1.
    decay : float, default=0.0
        λ, pulls the scale towards zero. The authors' default, 0.01, holds it below about
        1/λ, and with it a base learning rate that is a hundred times too small. Their
        regret bound is for 0.
    initial_scale : float, default=1e-8
        s_init, a scale that is surely too small.

    References
    ----------
    Cutkosky, Defazio, Mehta (2023), Mechanic: A Learning Rate Tuner, Algorithm 1.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
        *,
        decay: float = 0.0,
        initial_scale: float = 1e-8,
    ):
        self.base = base
        self._parameters = list(parameters)
        self._decay = decay
        self._initial_scale = initial_scale
        self._reference = [parameter.detach().clone() for parameter in parameters]
        self._displacement = [torch.zeros_like(reference) for reference in self._reference]
        self._betas = torch.tensor(_BETAS, dtype=torch.float64)
        self._scales = torch.zeros_like(self._betas)
        self._largest = torch.full_like(self._betas, _FIRST_LARGEST)
        self._squares = torch.zeros_like(self._betas)
        self._reward = torch.zeros_like(self._betas)

    @property
    def scale(self) -> float:
        """s_t, that the sum of the base's updates is multiplied with."""
        return float(self._scales.sum())

    @torch.no_grad()
    def step(self) -> None:
        """Let the base optimizer propose, tune the scale, and set the weights."""
        alignment = self._alignment()
        before = [parameter.detach().clone() for parameter in self._parameters]
        self.base.step()
        for parameter, old, total in zip(self._parameters, before, self._displacement, strict=True):
            total.add_(parameter - old)
        self._tune(alignment)
        for parameter, start, total in zip(
            self._parameters, self._reference, self._displacement, strict=True
        ):
            parameter.copy_(start + self.scale * total)

    def _alignment(self) -> float:
        """h_t: how much the loss rises when the scale does, to first order, plus decay."""
        gradients = [gradient_of(parameter) for parameter in self._parameters]
        product = inner_product(self._displacement, gradients)
        length = l2_norm(self._parameters) + _EPSILON
        pull = self._decay * self.scale * l2_norm(gradients) / length
        return product + pull * inner_product(self._displacement, self._parameters)

    def _tune(self, alignment: float) -> None:
        self._largest.mul_(self._betas).clamp_(min=abs(alignment))
        self._squares.mul_(self._betas**2).add_(alignment**2)
        self._reward.mul_(self._betas).sub_(self._scales * alignment).clamp_(min=0.0)
        wealth = self._initial_scale / len(self._betas) * self._largest + self._reward
        self._scales = wealth / (self._squares.sqrt() + _EPSILON)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` reads or changes, but for the base's own state."""
        return {
            "reference": self._reference,
            "displacement": self._displacement,
            "tuner": [self._scales, self._largest, self._squares, self._reward],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        tuner = [self._scales, self._largest, self._squares, self._reward]
        for name, tensors in (
            ("reference", self._reference),
            ("displacement", self._displacement),
            ("tuner", tuner),
        ):
            for tensor, saved in zip(tensors, state[name], strict=True):
                tensor.copy_(saved)
