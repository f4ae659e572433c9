"""A trained network out of its file's parts."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from dpfc._support.model_files import parameters_of, set_columns
from dpfc.accounting import PrivacyStatement
from dpfc.exceptions import ModelFileError
from dpfc.full_models.classifier import DPSGDClassifier
from dpfc.full_models.dp_sgd.rows import ROW_KINDS
from dpfc.full_models.networks.factory import NETWORKS, make_network, network_shapes
from dpfc.full_models.trainable import freeze

__all__ = ["read_network"]


def read_network(
    path: Path, header: dict[str, str], module: torch.nn.Module | None
) -> DPSGDClassifier:
    """A fitted classifier, put together from the parts of its file.

    Raises
    ------
    ModelFileError
        If the network has no name, and no module or another one is given.
    LookupError, TypeError, ValueError, RuntimeError
        If the parts do not fit each other.
    """
    name, tensors = header["network"], load_file(path)
    classes = np.asarray(json.loads(header["classes"]))
    sides = json.loads(header["input_shape"])
    if not (isinstance(sides, list) and all(type(side) is int and side > 0 for side in sides)):
        raise ValueError("its input_shape is no list of whole numbers above 0")
    shape = tuple(sides)
    parameters = parameters_of(header, DPSGDClassifier)
    if name:
        vocabulary_size = parameters["vocabulary_size"]
        _check_tensors(name, shape, len(classes), vocabulary_size, tensors)
        network = make_network(
            name,
            input_shape=shape,
            n_classes=len(classes),
            seed=0,
            vocabulary_size=vocabulary_size,
        )
    else:
        network = _given(module)
    model = DPSGDClassifier(
        module=name or copy.deepcopy(network), classes=classes.tolist(), **parameters
    )
    model._check_parameters()
    network = freeze(network, model.trainable)
    if not name:
        _check_same(network, tensors)
    network.load_state_dict(tensors)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("its weights are not finite")
    model.module_ = network.eval()
    model.classes_, model.input_shape_ = classes, shape
    kind = header.get("row_kind") or None
    if kind not in (None, *ROW_KINDS.values()):
        raise ValueError(f"its rows are of no known kind: {kind!r}")
    model.row_kind_ = kind
    set_columns(model, header)
    if math.prod(shape) != len(getattr(model, "feature_names_in_", range(math.prod(shape)))):
        raise ValueError("its columns do not fit its rows")
    model.gradient_norms_ = [float(norm) for norm in json.loads(header["gradient_norms"])]
    model.privacy_ = PrivacyStatement.from_json(header["privacy"])
    return model


def _given(module: torch.nn.Module | None) -> torch.nn.Module:
    """A copy of a user's own module, which gets the weights of the file."""
    if module is None:
        raise ModelFileError(
            "the file holds the weights of a module of your own: load_model(path, module=…) with "
            "a module like the one that was trained."
        )
    return copy.deepcopy(module)


def _check_same(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Say where a user's module is not the one that was saved."""
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    kept = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = [
        *(f"{name} is missing in it" for name in kept if name not in own),
        *(f"{name} is not in the file" for name in own if name not in kept),
        *(
            f"{name} has the shape {own[name]}, and {shape} in the file"
            for name, shape in kept.items()
            if own.get(name, shape) != shape
        ),
    ]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ModelFileError(
            f"module is not the one that was saved: {found[0]}{more}. Pass a module made in the "
            "same way as the one that was trained."
        )


def _check_tensors(
    name: str,
    shape: tuple[int, ...],
    n_classes: int,
    vocabulary_size: int | None,
    tensors: dict[str, torch.Tensor],
) -> None:
    """Refuse a file that declares a larger network than it holds, before that is built."""
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}")
    shapes = network_shapes(name, shape, n_classes, vocabulary_size).values()
    declared, held = sum(map(math.prod, shapes)), sum(t.numel() for t in tensors.values())
    # Adapters add to the network's own.
    if declared > held:
        raise ValueError(f"it declares {declared:,} weights and holds {held:,}")
