"""A moving average of the weights, from releases alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average with a warm-up, as De et al. (2022) use it.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that early weights do not stay.

    Parameters
    ----------
    parameters : sequence of torch.Tensor
        Averaged after each `update`, where they are.
    decay : float in (0, 1)
    """

    def __init__(self, parameters: Sequence[torch.Tensor], decay: float):
        self._parameters = list(parameters)
        self._decay = decay
        self._steps = 0
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of one more step into the average."""
        decay = min(self._decay, (1.0 + self._steps) / (10.0 + self._steps))
        self._steps += 1
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1.0 - decay)

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """Put the average in place of the weights."""
        for average, parameter in zip(self._average, self._parameters, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self._steps, "average": [a.cpu().clone() for a in self._average]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._steps = state["steps"]
        for average, kept in zip(self._average, state["average"], strict=True):
            average.copy_(kept)
