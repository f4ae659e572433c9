"""Schedule-Free SGD and AdamW, of the authors' package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dpfc._support.packages import require
from dpfc.full_models.optimizers.step_rule import StepRule

__all__ = ["ScheduleFreeRule"]


class ScheduleFreeRule(StepRule):
    """Averages the iterates, and takes gradients between the average and the last of them.

    With c_t the share of the newest iterate in the average (1/t without a warmup) ::

        y_t = (1 - β) z_t + β x_t
        z_{t+1} = z_t - lr · direction at y_t
        x_{t+1} = (1 - c) x_t + c z_{t+1}

    `train_mode` puts y in place, `eval_mode` x, which is what should be published. Looking at
    x does not change the run: y is kept, and put back bit for bit.

    Parameters
    ----------
    name : {"schedule-free-sgd", "schedule-free-adamw"}
    parameters : sequence of Parameter
    learning_rate : float
    momentum : float
        β of SGD, in (0, 1).
    betas : (float, float)
        β, and the second moment's share of AdamW.
    weight_decay : float
    warmup_steps : int

    References
    ----------
    Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky (2024), The Road Less Scheduled,
    equations 3 to 5, Theorem 2.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[torch.nn.Parameter],
        learning_rate: float,
        *,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
        warmup_steps: int,
    ):
        require("schedulefree", f"The optimizer {name!r}", "full-models")
        import schedulefree

        common = {"lr": learning_rate, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
        optimizer = (
            schedulefree.SGDScheduleFree(parameters, momentum=momentum, **common)
            if name == "schedule-free-sgd"
            else schedulefree.AdamWScheduleFree(parameters, betas=betas, **common)
        )
        optimizer.train()
        super().__init__(name, parameters, optimizer, (1.0,))
        self._averaging: Any = optimizer
        self._weights_to_return_to: list[torch.Tensor] | None = None

    def step(self) -> None:
        """Move the parameters by `p.grad`, whose tensors may be overwritten.

        Raises
        ------
        RuntimeError
            If a parameter has no gradient, or the weights are those of `eval_mode`.
        """
        if self._weights_to_return_to is not None:
            raise RuntimeError(
                "The weights are the averaged ones: call train_mode() before gradients are taken."
            )
        super().step()

    def train_mode(self) -> None:
        """Put the weights in place at which gradients are taken."""
        if self._weights_to_return_to is None:
            return
        self._averaging.train()
        # The package computes y back from x, which rounds.
        with torch.no_grad():
            for parameter, weights in zip(
                self._parameters, self._weights_to_return_to, strict=True
            ):
                parameter.copy_(weights)
        self._weights_to_return_to = None

    def eval_mode(self) -> None:
        """Put the averaged weights in place."""
        if self._weights_to_return_to is None:
            self._weights_to_return_to = [p.detach().clone() for p in self._parameters]
            self._averaging.eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resume needs; resumes in the mode that this is called in."""
        averaged = self._weights_to_return_to is not None
        self.train_mode()
        state = super().state_dict()
        if averaged:
            self.eval_mode()
        return {**state, "averaged": averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned, the weights and the mode included."""
        super().load_state_dict(state)
        self._weights_to_return_to = None
        if state["averaged"]:
            self.eval_mode()
