"""A trained network as one safetensors file: weights, what they belong to, and the statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from dpfc._support.model_files import NETWORK_FORMAT, header_of, in_order, plain_number

if TYPE_CHECKING:
    from dpfc.full_models.classifier import DPSGDClassifier

__all__ = ["network_bytes"]

# Parameters that say where things lay or ran, or that JSON cannot hold.
_DROPPED = ("module", "classes", "ledger", "dataset", "checkpoint", "device", "random_state")
# A callable stays behind, and with it what is refused without one.
_OF_A_CALLABLE = ("augmentation", "augmentation_multiplicity")


def network_bytes(model: DPSGDClassifier) -> bytes:
    """Content of a fitted classifier's file; depends on nothing but the model.

    Raises
    ------
    ModelFileError
        If the classes are not plain numbers or strings.
    """
    dropped = _DROPPED + (_OF_A_CALLABLE if callable(model.augmentation) else ())
    parameters = {k: v for k, v in model.get_params(deep=False).items() if k not in dropped}
    header = header_of(model, NETWORK_FORMAT) | {
        "network": model.module if isinstance(model.module, str) else "",
        "parameters": json.dumps(parameters, default=_plain),
        "input_shape": json.dumps(list(model.input_shape_)),
        "gradient_norms": json.dumps(model.gradient_norms_),
        "row_kind": model.row_kind_ or "",
    }
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.module_.state_dict().items()
    }
    return in_order(save(tensors, metadata=header))


def _plain(value: Any) -> Any:
    """JSON knows no NumPy numbers and no other sequences than lists."""
    value = plain_number(value)
    return value if isinstance(value, int | float) else list(value)
