"""Where a training run starts: the network, what of it is trained, and that both can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.checkpoints import config_digest, weights_digest
from dpfc.full_models.dp_sgd.dry_run import check_augmentation
from dpfc.full_models.dp_sgd.gradient_checks import check_row_gradients
from dpfc.full_models.dp_sgd.made_up_rows import made_up_blocks, vocabulary
from dpfc.full_models.dp_sgd.module_checks import check_module, copy_of_module
from dpfc.full_models.dp_sgd.rows import as_input
from dpfc.full_models.networks.factory import make_network
from dpfc.full_models.trainable import freeze

__all__ = ["run_digest", "start_module"]

# What does not change a result, may change between a stop and going on, or is digested by itself.
_FREE = (
    "module", "classes", "ledger", "checkpoint", "checkpoint_every", "physical_batch_size",
    "device", "verbose", "augmentation", "random_state",
)  # fmt: skip


def start_module(
    module: torch.nn.Module | str,
    *,
    input_shape: tuple[int, ...],
    dtype: torch.dtype,
    n_classes: int,
    vocabulary_size: int | None,
    seed: int,
    trainable: str | Iterable[str],
    clipping: str,
    augmentation: Augmentation,
    device: torch.device,
) -> torch.nn.Module:
    """Make or copy the module, freeze what is not trained, and check what training needs.

    Parameters
    ----------
    module : torch.nn.Module or str
        Stays as it is.
    input_shape, dtype
        Of a row; all that is known of rows here.
    n_classes, vocabulary_size : int
    seed : int
        Of a network by name.
    trainable, clipping, augmentation
        As in `DPSGDClassifier`.
    device : torch.device

    Returns
    -------
    torch.nn.Module
        On the device, in training mode.

    Raises
    ------
    TypeError, ValueError
        If it cannot be trained privately, or the augmentation does not fit its rows.
    """
    if isinstance(module, str):
        started = make_network(
            module,
            input_shape=input_shape,
            n_classes=n_classes,
            seed=seed,
            vocabulary_size=vocabulary_size,
        )
    else:
        started = copy_of_module(check_module(module))
    started = check_module(freeze(started, trainable)).train()
    like = as_input(torch.zeros((1, *input_shape), dtype=dtype), torch.device("cpu"))
    own = not isinstance(module, str) or trainable == "lora"
    tokens = vocabulary(copy_of_module(started), like)  # on the CPU, which survives wrong tokens
    started, like = started.to(device), like.to(device)
    check_row_gradients(started, like, n_classes, clipping, tokens=tokens, own=own)
    check_augmentation(augmentation, made_up_blocks(like, 3, tokens=tokens))
    return started


def run_digest(
    parameters: Mapping[str, Any], start: torch.nn.Module, input_shape: tuple[int, ...]
) -> str:
    """Name a run by all that has to be the same for it to go on.

    Parameters
    ----------
    parameters : mapping
        Of the classifier; its classes are those that it found.
    start : torch.nn.Module
        As `start_module` gives it; counts where the module has no name.
    input_shape : tuple of int
    """
    module, augmentation = parameters["module"], parameters["augmentation"]
    random_state = parameters["random_state"]
    kept = {
        name: value.tolist() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
        if name not in _FREE
    }
    config = {
        "parameters": repr(sorted(kept.items())),
        "augmentation": getattr(augmentation, "__qualname__", augmentation),
        "module": module if isinstance(module, str) else weights_digest(start),
        "classes": list(parameters["classes"]),
        "input_shape": list(input_shape),
        "seed": random_state if isinstance(random_state, int) else None,
        "seeded": random_state is not None,
    }
    return config_digest(config)
