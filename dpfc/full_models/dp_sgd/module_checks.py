"""What a network must be like to be trained privately: its layers and parameters by type.

What it does with rows is looked at in `gradient_checks`; both before any spend.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["check_module", "copy_of_module"]

_REPLACEMENTS = {
    nn.modules.batchnorm._BatchNorm: "torch.nn.GroupNorm",
    nn.MultiheadAttention: "opacus.layers.DPMultiheadAttention",
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
    nn.RNN: "opacus.layers.DPRNN",
}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def check_module(module: object) -> nn.Module:
    """Refuse modules whose gradients are not a row's own, or are not real numbers.

    Raises
    ------
    TypeError
        If it is no module.
    ValueError
        If it is wrapped or compiled; if a layer mixes rows, hides gradients, keeps something of
        rows or has hooks; if a parameter is not of single precision or not finite; or if nothing
        is trained. Says which, and what to take in its place.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module must be a torch.nn.Module or a network's name, got {type(module).__name__}."
        )
    parts = [(name or "the module", part) for name, part in module.named_modules()]
    for name, part in parts:
        _check_wrapping(name, part)
    for name, parameter in module.named_parameters():
        _check_parameter(name, parameter)
    for name, part in parts:
        _check_layer(name, part)
        _check_state(name, part)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(
            "the module has no parameter to train: all are frozen (requires_grad=False)."
        )
    return module


def copy_of_module(module: nn.Module) -> nn.Module:
    """Copy a module with all that it holds.

    Raises
    ------
    ValueError
        If something in it cannot be copied, such as a tensor that a forward pass has left there.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever an object raises that cannot be copied
        raise ValueError(
            f"the module cannot be copied ({error}). It may keep a tensor of an earlier forward "
            "pass, or an open file, as an attribute: remove it."
        ) from error


def _check_wrapping(name: str, part: nn.Module) -> None:
    from opacus.grad_sample import AbstractGradSampleModule

    if isinstance(part, AbstractGradSampleModule):
        raise ValueError(
            f"{name} is wrapped in opacus.{type(part).__name__}: pass the module that is inside, "
            "module._module; dpfc takes single rows' gradients by itself."
        )
    if isinstance(part, torch.jit.ScriptModule):
        raise ValueError(
            f"{name} is TorchScript, which hides its layers: pass the torch.nn.Module that it was "
            "made from."
        )
    if isinstance(getattr(part, "_orig_mod", None), nn.Module):
        raise ValueError(
            f"{name} is the result of torch.compile, which hides its layers: pass the module that "
            "was compiled, module._orig_mod."
        )
    if part._compiled_call_impl is not None:
        raise ValueError(
            f"{name} was compiled in place (module.compile()), which hides its layers: pass one "
            "that was not."
        )


def _check_layer(name: str, part: nn.Module) -> None:
    for kind, replacement in _REPLACEMENTS.items():
        if isinstance(part, kind) and any(p.requires_grad for p in part.parameters()):
            why = (
                "normalises over the rows of a batch, so that no gradient is one row's own"
                if "Norm" in replacement
                else "does not give the gradients of single rows"
            )
            raise ValueError(
                f"{name} ({type(part).__name__}) {why}. Use {_instead(part, replacement)}."
            )
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        raise ValueError(
            f"{name} ({type(part).__name__}) keeps statistics of private rows, frozen or not. Use "
            f"{_instead(part, 'torch.nn.GroupNorm')}."
        )
    if getattr(part, "track_running_stats", False):
        raise ValueError(
            f"{name} ({type(part).__name__}) keeps running statistics of private rows; use "
            "track_running_stats=False."
        )


def _instead(part: nn.Module, replacement: str) -> str:
    if isinstance(part, nn.BatchNorm1d):  # whose fix is refused on rows without places
        return "torch.nn.LayerNorm, or torch.nn.GroupNorm on rows (channels, length)"
    return f"{replacement}, or let opacus.validators.ModuleValidator.fix(module) replace it"


def _check_state(name: str, part: nn.Module) -> None:
    """Refuse what writes into a module as rows go through it, or may."""
    if getattr(part, "max_norm", None) is not None:
        raise ValueError(
            f"{name} ({type(part).__name__}) has max_norm, which shortens the vectors of those "
            "tokens that private rows hold, without noise. Use max_norm=None."
        )
    if type(part).get_extra_state is not nn.Module.get_extra_state:
        raise ValueError(
            f"{name} ({type(part).__name__}) has a get_extra_state, which a model file cannot hold."
        )
    parametrizations = getattr(part, "parametrizations", None)
    for weight, changes in parametrizations.items() if parametrizations is not None else ():
        if any(type(change).__name__ == "_SpectralNorm" for change in changes):
            raise ValueError(
                f"{name} ({type(part).__name__}) has a spectral norm on its {weight}, which "
                "updates buffers in every forward pass. Remove it."
            )
    for hooks in _HOOKS:
        if getattr(part, hooks):
            raise ValueError(
                f"{name} ({type(part).__name__}) has a forward or backward hook, which may keep "
                "private rows or change what a layer gives (torch.nn.utils.weight_norm, "
                "spectral_norm and prune register one). Remove it."
            )


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if is_lazy(parameter):
        raise ValueError(
            f"{name} has no shape yet: put a made-up row through the module (module(row)) first."
        )
    if parameter.is_complex():
        raise ValueError(
            f"{name} is complex: Opacus would give complex parameters too little noise, and "
            "none in the imaginary part in its secure mode. Store pairs of real numbers."
        )
    if parameter.dtype != torch.float32:
        raise ValueError(
            f"{name} is {parameter.dtype}, and rows are float32; use float32 (module.float())."
        )
    if not bool(torch.isfinite(parameter).all()):
        raise ValueError(f"{name} holds NaN or infinity before training has begun.")
