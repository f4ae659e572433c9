"""Gradients of single rows, layer by layer, with Opacus' rules for layers.

Opacus hangs its rules on backward hooks. Here the gradients of all layers' outputs come from one
call of autograd instead: it leaves out the gradients of a batch as a whole, which nobody needs,
and copies no row's gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

__all__ = ["RowGradients"]

# Opacus' rules map a layer, its inputs and the gradient of its output to one tensor a parameter.
_Rule = Callable[[nn.Module, list[torch.Tensor], torch.Tensor], dict[nn.Parameter, torch.Tensor]]


@dataclass(frozen=True)
class _LayerCall:
    """One use of a layer in a forward pass."""

    layer: nn.Module
    inputs: list[torch.Tensor]
    output: GradientEdge


class RowGradients:
    """Keeps what layers take and return in a forward pass, and takes the hooks off again.

    Parameters
    ----------
    module : torch.nn.Module
        Its trainable layers get a forward hook each.
    functorch : bool
        Whether all layers are differentiated row by row, or only those without a rule.
    """

    def __init__(self, module: nn.Module, *, functorch: bool = False):
        from opacus.grad_sample import GradSampleModule
        from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer

        self._module = module
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

    def gradients(self, losses: torch.Tensor) -> dict[nn.Parameter, torch.Tensor]:
        """Gradients of rows' losses (n_rows,): tensors (n_rows, ...), one a parameter in use.

        They may share memory with one another: do not write into them.
        """
        found: dict[nn.Parameter, torch.Tensor] = {}
        for call, backprops in self._backprops(losses, retain_graph=False):
            self._add_gradients(found, call, backprops)
        return found

    def lengths(self, losses: torch.Tensor) -> list[torch.Tensor]:
        """Lengths (n_rows,) of the parts of rows' gradients that belong to one parameter each.

        The graph is kept. Where Opacus has a rule for a layer's lengths, which holds for layers
        that are used once, no gradient of a row is held.
        """
        from opacus.grad_sample import GradSampleModuleFastGradientClipping

        length_rules: dict[type, _Rule] = GradSampleModuleFastGradientClipping.NORM_SAMPLERS
        uses = Counter(p for call in self._calls for p in call.layer.parameters())
        shared: dict[nn.Parameter, torch.Tensor] = {}
        lengths: list[torch.Tensor] = []
        for call, backprops in self._backprops(losses, retain_graph=True):
            used_once = all(uses[p] == 1 for p in call.layer.parameters())
            rule = length_rules.get(type(call.layer))
            if rule is not None and used_once:
                with torch.no_grad():
                    found = rule(call.layer, call.inputs, backprops)
                lengths += [n.flatten() for p, n in found.items() if p.requires_grad]
            elif used_once:
                found = {}
                self._add_gradients(found, call, backprops)
                lengths += [_lengths(gradients) for gradients in found.values()]
            else:
                self._add_gradients(shared, call, backprops)
        return lengths + [_lengths(gradients) for gradients in shared.values()]

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
            # The edge stays that of this output where a later layer works in place.
            edge = get_gradient_edge(first)
            self._calls.append(_LayerCall(layer, [t.detach() for t in inputs], edge))

    def _backprops(
        self, losses: torch.Tensor, *, retain_graph: bool
    ) -> list[tuple[_LayerCall, torch.Tensor]]:
        calls, self._calls = self._calls, []
        found = torch.autograd.grad(
            losses.sum(),
            [call.output for call in calls],
            retain_graph=retain_graph,
            allow_unused=True,
        )
        return [(call, g) for call, g in zip(calls, found, strict=True) if g is not None]

    @torch.no_grad()  # which Opacus' rules expect
    def _add_gradients(
        self, found: dict[nn.Parameter, torch.Tensor], call: _LayerCall, backprops: torch.Tensor
    ) -> None:
        rule = self._rules.get(type(call.layer), self._by_functorch)
        for parameter, gradients in rule(call.layer, call.inputs, backprops).items():
            if parameter.requires_grad:
                earlier = found.get(parameter)
                found[parameter] = gradients if earlier is None else earlier + gradients


def _lengths(gradients: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(gradients.reshape(len(gradients), -1), dim=1)
    return lengths


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
