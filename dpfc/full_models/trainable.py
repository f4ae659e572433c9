"""Which parameters of a network are trained; the others stay as they came, and cost nothing."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from dpfc._support.packages import require
from dpfc._support.suggestions import did_you_mean

__all__ = ["TRAINABLE", "freeze"]

TRAINABLE = ("all", "head", "norm-and-head", "lora")
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.RMSNorm)
_LORA_RANK = 8


def freeze(module: nn.Module, trainable: str | Iterable[str]) -> nn.Module:
    """Leave `requires_grad` on for what is trained only.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    trainable : {"all", "head", "norm-and-head", "lora"} or iterable of str
        "all" keeps what the module says; "head" is its last layer with parameters;
        "norm-and-head" adds the scales and shifts of all normalisations; "lora" adds low-rank
        adapters to all linear layers but the head, which is trained as well (needs peft).
        Otherwise names, or beginnings of names, of parameters.

    Returns
    -------
    torch.nn.Module
        `module`, or what peft made of it.

    Raises
    ------
    ValueError
        If a name is no parameter's, or nothing would be trained.
    MissingDependencyError
        If "lora" is asked for without peft.
    """
    if trainable == "all":
        return module
    if trainable == "lora":
        return _with_adapters(module)
    if isinstance(trainable, str):
        wanted = _named(module, trainable)
    else:
        wanted = _beginning_with(module, list(trainable))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in wanted)
    return module


def _named(module: nn.Module, trainable: str) -> set[str]:
    head = _head(module)
    wanted = {f"{head}.{name}" for name, _ in module.get_submodule(head).named_parameters()}
    if trainable == "norm-and-head":
        for place, part in module.named_modules():
            if isinstance(part, _NORMS):
                wanted |= {f"{place}.{name}" for name, _ in part.named_parameters()}
    return {name.removeprefix(".") for name in wanted}


def _head(module: nn.Module) -> str:
    """Name of the last layer that has parameters of its own."""
    own: list[str] = [
        name for name, part in module.named_modules() if list(part.parameters(recurse=False))
    ]
    if not own:
        raise ValueError("the module has no parameters: there is nothing to train.")
    return own[-1]


def _beginning_with(module: nn.Module, beginnings: list[str]) -> set[str]:
    names = [name for name, _ in module.named_parameters()]
    for beginning in beginnings:
        if not any(_within(name, beginning) for name in names):
            hint = did_you_mean(beginning, names)
            raise ValueError(f"trainable: the module has no parameter {beginning!r}.{hint}")
    return {name for name in names if any(_within(name, part) for part in beginnings)}


def _within(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}.")


def _with_adapters(module: nn.Module) -> nn.Module:
    require("peft", 'trainable="lora"', "lora")
    from peft import LoraConfig, get_peft_model

    head = _head(module)
    linear = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name != head
    ]
    if not linear:
        raise ValueError('trainable="lora": the module has no linear layer beside its head.')
    config = LoraConfig(r=_LORA_RANK, lora_alpha=2 * _LORA_RANK, target_modules=linear)
    adapted = get_peft_model(module, config).get_base_model()
    for parameter in adapted.get_submodule(head).parameters():
        parameter.requires_grad_(True)
    return adapted
