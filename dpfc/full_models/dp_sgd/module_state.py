"""What a module remembers: everything inside it that a forward pass could leave rows in.

Noise is added to gradients alone. Whatever else private rows leave in a module, such as running
means, renormalised embeddings, or a tensor kept as an attribute, would be published without any.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import torch
from torch import nn

from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.made_up_rows import repeatable
from dpfc.full_models.fingerprints import digest_of

__all__ = [
    "ModuleState",
    "WatchedState",
    "augmentation_state",
    "check_unchanged",
    "difference",
    "module_state",
    "published",
]

# A layer's name and its attribute's, to a digest of what is in there.
ModuleState = dict[tuple[str, str], bytes]

# Looked at by themselves.
_LOOKED_AT = ("_parameters", "_buffers", "_modules")
# The longest sequence of the last batch, which Opacus' recurrent layers note down.
_NOTED_BY_OPACUS = ("RNNLinear", "max_batch_len")


def module_state(module: nn.Module, *, trained: bool = True) -> ModuleState:
    """Digest parameters, buffers and attributes of all layers, and what those hold.

    Parameters
    ----------
    module : torch.nn.Module
    trained : bool, default=True
        Whether parameters with `requires_grad` count.

    Returns
    -------
    dict
        Attributes are entered as deep as they go: tensors, arrays, numbers, texts, containers,
        objects, closures and defaults of functions, attributes of the user's own classes, and
        globals that the methods of those name. Files, other processes and C code are not seen.
    """
    names: dict[int, str] = {id(part): f"layer {n}" for n, part in module.named_modules()}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        names[id(tensor)] = f"tensor {name}"
    state: ModuleState = {}
    for layer, part in module.named_modules():
        for name, value in _registered(part, trained):
            state[layer, name] = digest_of(value, {}, f"{name!r} of {_words(layer)}")
        for name, value in vars(part).items():
            if name not in _LOOKED_AT and (type(part).__name__, name) != _NOTED_BY_OPACUS:
                state[layer, name] = digest_of(value, names, f"{name!r} of {_words(layer)}")
        own = f"class {type(part).__name__}"
        state[layer, own] = digest_of(type(part), names, f"{own} of {_words(layer)}")
    return state


def _registered(layer: nn.Module, trained: bool) -> Iterator[tuple[str, object]]:
    """Parameters and buffers by name; of those that are trained, Python attributes alone."""
    for name, parameter in layer._parameters.items():
        whole = parameter is None or trained or not parameter.requires_grad
        yield name, parameter if whole else vars(parameter)
    yield from layer._buffers.items()


class WatchedState:
    """All of a module but its trained parameters, to be looked at again after training.

    Parameters
    ----------
    module : torch.nn.Module
        About to be trained. No private row may have gone through it, or through a copy: copies
        share globals, and what closures keep.
    row : torch.Tensor of shape (1, ...)
        Made up; goes through once, so that what depends on shapes alone may be kept.
    augmentation : Augmentation
        Of the rows.
    """

    def __init__(self, module: nn.Module, row: torch.Tensor, augmentation: Augmentation):
        self._module = module
        self._augmentation = augmentation
        # Whatever a module of the user's own raises at a made-up row.
        with suppress(Exception), repeatable(row.device):
            module(row)
        self._before = self._state()

    def check(self) -> None:
        """Look again.

        Raises
        ------
        RuntimeError
            If something changed. What was trained must not be published then: gradients of
            later rows may depend on earlier ones.
        """
        changed = self._changed()
        if changed is not None:
            raise RuntimeError(
                f"the {changed[0]} kept something of private rows while the module was trained: "
                f"{changed[1]}. It did not on made-up rows. The budget is spent, and nothing is "
                "published: the guarantee would not hold."
            )

    def _state(self) -> tuple[ModuleState, bytes]:
        return module_state(self._module, trained=False), augmentation_state(self._augmentation)

    def _changed(self) -> tuple[str, str] | None:
        """Whether the module or the augmentation changed, and in what."""
        try:
            module, augmentation = self._state()
        except Exception:  # its words would tell of what rows left there
            return "module or the augmentation", "something in there cannot be looked into"
        part = difference(self._before[0], module)
        if part is not None:
            return "module", part
        if augmentation != self._before[1]:
            return "augmentation", "an attribute, closure or global of it"
        return None


def augmentation_state(augmentation: Augmentation) -> bytes:
    """Digest what an augmentation could leave rows in."""
    return digest_of(augmentation.transform, {}, "the augmentation")


def difference(before: ModuleState, after: ModuleState) -> str | None:
    """Name a layer and attribute that are not the same; None where all are."""
    for (layer, name), digest in before.items():
        if after.get((layer, name)) != digest:
            return f"{name!r} of {_words(layer)}"
    # A new attribute's name may be made of rows: it is not repeated.
    for layer, name in after:
        if (layer, name) not in before:
            return f"a new attribute of {_words(layer)}"
    return None


def _words(layer: str) -> str:
    return f"layer {layer!r}" if layer else "the module"


def check_unchanged(
    module: nn.Module, blocks: Iterable[torch.Tensor], run: Callable[[torch.Tensor], object]
) -> None:
    """Refuse a module that keeps something of made-up rows.

    Parameters
    ----------
    module : torch.nn.Module
        A copy that may be spoilt.
    blocks : iterable of torch.Tensor
        Made-up rows. The first go through once before anything is compared, so that what
        depends on shapes alone may be kept.
    run : callable
        Puts rows through the module.

    Raises
    ------
    ValueError
        Names the layer and the attribute.
    """
    first, *others = blocks
    _put_through(first, run)
    before = module_state(module)
    for block in (*others, first):
        _put_through(block, run)
        changed = difference(before, module_state(module))
        if changed is not None:
            raise ValueError(
                f"the module keeps something of the rows that go through it: {changed} changes in "
                "a forward or backward pass. That would carry what private rows left there, "
                "without noise. Remove it; between layers, pass tensors as arguments and results."
            )


def _put_through(block: torch.Tensor, run: Callable[[torch.Tensor], object]) -> None:
    with suppress(Exception):  # whatever a module of the user's own raises at made-up rows
        run(block)


def published(start: nn.Module, trained: nn.Module) -> nn.Module:
    """Put trained parameters, which were released, into a module that no private row went through.

    Parameters
    ----------
    start : torch.nn.Module
        Copied before training.
    trained : torch.nn.Module
        The same module after it; of all that is in it, values of parameters with
        `requires_grad` alone are taken.

    Returns
    -------
    torch.nn.Module
        A new module.
    """
    module = copy.deepcopy(start)
    with torch.no_grad():
        for target, source in zip(module.parameters(), trained.parameters(), strict=True):
            if source.requires_grad:
                target.copy_(source)
    return module
