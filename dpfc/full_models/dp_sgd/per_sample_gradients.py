"""Gradients of single rows, layer by layer, with Opacus' rules for layers.

Opacus hangs its rules on backward hooks. Here the gradients of all layers' outputs come from one
call of autograd instead: it leaves out the gradients of a batch as a whole, which nobody needs,
and copies no row's gradient. What a row adds to a sum and how long it is are read off one
`RowPart`, so that nothing is summed whose length was not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dpfc.full_models.dp_sgd.row_parts import HeldGradients, RowPart, factored

__all__ = ["RowGradients"]

# Opacus' rules map a layer, its inputs and the gradient of its output to one tensor a parameter.
_Rule = Callable[[nn.Module, list[torch.Tensor], torch.Tensor], dict[nn.Parameter, torch.Tensor]]


@dataclass(frozen=True)
class _LayerCall:
    """One use of a layer in a forward pass."""

    layer: nn.Module
    inputs: list[torch.Tensor]
    versions: list[int]
    output: GradientEdge


class RowGradients:
    """Keeps what layers take and return in a forward pass, and takes the hooks off again.

    Parameters
    ----------
    module : torch.nn.Module
        Its trainable layers get a forward hook each.
    functorch : bool
        Whether all layers are differentiated row by row, or only those without a rule.
    factored : bool
        Whether gradients of layers that multiply by a matrix stay products of two factors.
    """

    def __init__(self, module: nn.Module, *, functorch: bool = False, factored: bool = False):
        from opacus.grad_sample import GradSampleModule
        from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer

        self._module = module
        self._factored = factored
        self._names = {part: name or "the module" for name, part in module.named_modules()}
        self._by_functorch: _Rule = ft_compute_per_sample_gradient
        self._rules: dict[type, _Rule] = {} if functorch else GradSampleModule.GRAD_SAMPLERS
        self._calls: list[_LayerCall] = []
        # One that stands in two places of the module is one layer, with one hook.
        self._layers = list(dict.fromkeys(_layers(module, GradSampleModule.GRAD_SAMPLERS)))
        for layer in self._layers:
            if type(layer) not in self._rules:
                prepare_layer(layer)  # copies the layer, which must not have a hook yet
        self._hooks = [layer.register_forward_hook(self._keep) for layer in self._layers]

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Scores of rows; what was kept of earlier ones is forgotten."""
        self._calls = []
        scores: torch.Tensor = self._module(X)
        return scores

    @torch.no_grad()  # which Opacus' rules expect
    def parts(self, losses: torch.Tensor, n_copies: int = 1) -> list[RowPart]:
        """Gradients of rows' losses, as parts that have no parameter in common.

        Parameters
        ----------
        losses : torch.Tensor of shape (n_rows * n_copies,)
            Of the last forward pass, the copies of a row one after the other.
        n_copies : int
            A row's gradient is the mean over its copies.

        Raises
        ------
        ValueError
            If a layer's gradients do not belong to single rows, or leave one of its parameters
            out. Both follow from the module and the shape of its rows alone.
        """
        n_rows = len(losses)
        calls = self._backprops(losses)
        parts: list[RowPart] = []
        if self._factored and n_copies == 1:
            parts, calls = self._factor(calls, n_rows)
        found: dict[nn.Parameter, torch.Tensor] = {}
        for call, backprops in calls:
            self._add_gradients(found, call, backprops, n_rows)
        for parameter in list(found):
            gradients = found.pop(parameter).reshape(n_rows, -1)
            if n_copies > 1:
                gradients = gradients.reshape(n_rows // n_copies, n_copies, -1).mean(1)
            parts.append(HeldGradients(parameter, gradients))
        return parts

    def close(self) -> None:
        """Leave the module as it was."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            if hasattr(layer, "ft_compute_sample_grad"):
                del layer.ft_compute_sample_grad

    def _keep(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if torch.is_grad_enabled() and first.requires_grad:
            kept = [t.detach() for t in inputs]
            # The edge stays that of this output where a later layer works in place.
            edge = get_gradient_edge(first)
            self._calls.append(_LayerCall(layer, kept, [t._version for t in kept], edge))

    def _backprops(self, losses: torch.Tensor) -> list[tuple[_LayerCall, torch.Tensor]]:
        calls, self._calls = self._calls, []
        for call in calls:
            if call.versions != [t._version for t in call.inputs]:
                raise ValueError(
                    f"{self._named(call.layer)}: what it takes in is changed in place afterwards, "
                    "so that its gradients cannot be told. Use a copy there (inplace=False)."
                )
        with torch.enable_grad():
            total = losses.sum()
        found = torch.autograd.grad(total, [call.output for call in calls], allow_unused=True)
        return [(call, g) for call, g in zip(calls, found, strict=True) if g is not None]

    def _factor(
        self, calls: list[tuple[_LayerCall, torch.Tensor]], n_rows: int
    ) -> tuple[list[RowPart], list[tuple[_LayerCall, torch.Tensor]]]:
        """Parts of the layers whose gradients have factors, and the other layers' calls."""
        uses = Counter(p for call, _ in calls for p in call.layer.parameters())
        parts: list[RowPart] = []
        others = []
        for call, backprops in calls:
            if all(uses[p] == 1 for p in call.layer.parameters()):
                part = factored(call.layer, call.inputs, backprops)
                if part is not None and part.n_rows == n_rows:
                    parts.append(part)
                    continue
            others.append((call, backprops))
        return parts, others

    def _add_gradients(
        self,
        found: dict[nn.Parameter, torch.Tensor],
        call: _LayerCall,
        backprops: torch.Tensor,
        n_rows: int,
    ) -> None:
        rule = self._rules.get(type(call.layer), self._by_functorch)
        gradients = rule(call.layer, call.inputs, backprops)
        for name, parameter in call.layer.named_parameters(recurse=rule is self._by_functorch):
            if not parameter.requires_grad:
                continue
            if parameter not in gradients:
                raise ValueError(
                    f"{self._named(call.layer)}: the rule for its gradients leaves out {name}."
                )
            if gradients[parameter].shape != (n_rows, *parameter.shape):
                raise ValueError(
                    f"{self._named(call.layer)}: its gradients do not belong to single rows. What "
                    "it takes in must have one entry a row along its first axis: add the batch "
                    "axis (position tables: torch.arange(length).expand(n_rows, length)), do not "
                    "fold it into another."
                )
            earlier = found.get(parameter)
            new = gradients[parameter]
            found[parameter] = new if earlier is None else earlier + new

    def _named(self, layer: nn.Module) -> str:
        return f"{self._names.get(layer, 'a layer')} ({type(layer).__name__})"


def _layers(module: nn.Module, rules: dict[type, _Rule]) -> Iterator[nn.Module]:
    """Layers with parameters of their own to train; one without a rule stands for all in it."""
    from opacus.layers.dp_rnn import DPGRU, DPLSTM, DPRNN

    if any(p.requires_grad for p in module.parameters(recurse=False)) and type(module) not in (
        DPRNN,  # their linear layers have rules
        DPLSTM,
        DPGRU,
    ):
        yield module
        if type(module) not in rules:
            return
    for child in module.children():
        yield from _layers(child, rules)
