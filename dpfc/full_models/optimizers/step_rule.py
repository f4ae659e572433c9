"""A step from a privatised gradient: the optimizer, its schedule, and what a resume needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dpfc.full_models.optimizers.mechanic import Mechanic
from dpfc.full_models.optimizers.vectors import gradient_of, l2_norm

__all__ = ["StepRule"]


class StepRule:
    """Moves parameters by their privatised gradients; made by `make_optimizer`.

    It reads `p.grad` and the weights, never data or losses, so that all it does is
    post-processing of releases.

    Parameters
    ----------
    name : str
        Of the optimizer, for a checkpoint.
    parameters : sequence of Parameter
    optimizer : Optimizer
        With the learning rate that the multipliers apply to.
    multipliers : sequence of float
        One for each planned step; a step after them takes the last.
    mechanic : Mechanic or None, default=None
        Around `optimizer`.

    Attributes
    ----------
    gradient_norms : list of float
        l2 norm over all parameters of every privatised gradient so far: public, and what the
        schedule "refined" takes for a later run.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        multipliers: Sequence[float],
        mechanic: Mechanic | None = None,
    ):
        self.gradient_norms: list[float] = []
        self._name = name
        self._parameters = list(parameters)
        self._optimizer = optimizer
        self._multipliers = multipliers
        self._mechanic = mechanic
        self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """Move the parameters by `p.grad`, whose tensors may be overwritten.

        Raises
        ------
        RuntimeError
            If a parameter has no gradient, or the weights are those of `eval_mode`.
        """
        norm = l2_norm(gradient_of(parameter) for parameter in self._parameters)
        done = min(len(self.gradient_norms), len(self._multipliers) - 1)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * self._multipliers[done]
        (self._mechanic or self._optimizer).step()
        self.gradient_norms.append(norm)

    def made_up_step(self) -> None:
        """Take a step by gradients of ones: for a copy that nobody trains."""
        for parameter in self._parameters:
            parameter.grad = torch.ones_like(parameter)
        self.step()

    def train_mode(self) -> None:
        """Weights at which gradients are taken; here they are always in place."""

    def eval_mode(self) -> None:
        """Weights to publish; here they are those at which gradients are taken."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resume needs, weights included: CPU tensors and plain values.

        The state of the `uniform` source stays the caller's to save.
        """
        state = {
            "optimizer_name": self._name,
            "gradient_norms": self.gradient_norms,
            "weights": self._parameters,
            "optimizer": self._optimizer.state_dict(),
            "mechanic": None if self._mechanic is None else self._mechanic.state_dict(),
        }
        return dict(_copied_to_cpu(state))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned, the weights included.

        Raises
        ------
        ValueError
            If another optimizer, or one with other parameters, left the state.
        """
        tuned = state["mechanic"] is not None
        if state["optimizer_name"] != self._name or tuned != (self._mechanic is not None):
            raise ValueError(
                f"The state is that of {state['optimizer_name']!r} with mechanic={tuned}, the "
                f"optimizer is {self._name!r} with mechanic={self._mechanic is not None}: resume "
                "with the settings of the run that left it."
            )
        with torch.no_grad():
            for parameter, weights in zip(self._parameters, state["weights"], strict=True):
                parameter.copy_(weights)
        # torch keeps what it is handed where device and format fit: never share the caller's.
        self._optimizer.load_state_dict(_copied_to_cpu(state["optimizer"]))
        if self._mechanic is not None:
            self._mechanic.load_state_dict(state["mechanic"])
        self.gradient_norms = list(state["gradient_norms"])


def _copied_to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copied_to_cpu(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied_to_cpu(entry) for entry in value)
    return value
