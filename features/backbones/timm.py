"""Image models of timm: ``timm:NAME`` or ``timm:NAME@FILE.safetensors``."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.files import error_words
from dpfc._support.packages import require
from dpfc._support.suggestions import did_you_mean
from dpfc.features.backbones.hub_folder import (
    find_model,
    hash_files,
    refuse_missing_weights,
    weight_files,
)
from dpfc.features.backbones.processor import ProcessorPixels
from dpfc.features.backbones.torch_forward import TorchModel
from dpfc.features.backbones.torch_image import TorchImageBackbone, normalising
from dpfc.features.exceptions import MissingDependencyError

if TYPE_CHECKING:
    import torch

    from dpfc.features.backbones.base import BackboneOptions

__all__ = ["load_timm_model"]

_RESAMPLES = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
# timm's names of what is asked for.
_POOLINGS = {"class_token": "token", "mean": "avg"}


def load_timm_model(name: str, options: "BackboneOptions") -> TorchImageBackbone:
    """Backbone of a model of timm, without its classifier, prepared as timm's data config says.

    Parameters
    ----------
    name : str
        Name of the model, such as ``vit_base_patch16_224.augreg_in21k``. After ``@``, a file of
        weights; without it they come from the Hugging Face cache, or are downloaded.
    options : BackboneOptions
        Image size, pooling, device and precision.

    Raises
    ------
    MissingDependencyError
        If timm is not installed, or cannot be imported.
    ValueError
        If the model is unknown, its weights are missing or pickled, or the pooling impossible.
    """
    spec = f"timm:{name}"
    timm = _import_timm(spec)
    model_name, _, file = name.partition("@")
    if not timm.is_model(model_name.partition(".")[0]):
        known = {known: f"timm:{known}" for known in timm.list_models()}
        hint = did_you_mean(model_name, known, cutoff=0.5)
        raise ValueError(f"{spec}: timm has no model {model_name!r}.{hint}")
    if options.pooling not in ("auto", *_POOLINGS):
        raise ValueError(
            f"{spec}: pooling {options.pooling!r} is not possible; use auto (the model's own) or "
            f"{' or '.join(_POOLINGS)}."
        )
    arguments = _arguments(timm, model_name, options, spec)
    network = _create(timm, model_name, arguments, spec)
    files = [_weights_file(file, spec)] if file else _hub_files(network, spec)
    preparer = _preparer(timm, network, options.image_size, spec)
    pooling = options.pooling
    if pooling == "auto":
        pooling = _own_pooling(network) or "the model's own"
    build = partial(_build, timm, model_name, arguments, files, preparer, spec)
    model = TorchModel(
        spec, int(network.num_features), pooling, preparer, partial(hash_files, files), build
    )
    return TorchImageBackbone(model, options.device, options.dtype)


def _import_timm(spec: str) -> Any:
    require("timm", spec, "timm")
    try:
        return import_module("timm")
    # A torchvision built for another PyTorch raises RuntimeError or OSError.
    except Exception as error:
        raise MissingDependencyError(
            f"{spec}: timm is installed but cannot be imported ({error}): install the torchvision "
            'that belongs to your PyTorch, then run pip install "dpfc[timm]".'
        ) from error


def _own_pooling(network: Any) -> str:
    return str(getattr(network, "global_pool", None) or "")


def _arguments(timm: Any, model_name: str, options: "BackboneOptions", spec: str) -> dict[str, Any]:
    """What the options ask of the architecture, where it differs from the model's own."""
    arguments: dict[str, Any] = {}
    if options.image_size is not None:
        arguments["img_size"] = options.image_size
    if options.pooling != "auto":
        asked = _POOLINGS[options.pooling]
        if _own_pooling(_create(timm, model_name, {}, spec)) != asked:
            arguments["global_pool"] = asked
            if asked == "avg":
                # Tokens are normalised before the mean: a norm behind it has no trained weights.
                arguments["fc_norm"] = False
    return arguments


def _create(timm: Any, model_name: str, arguments: dict[str, Any], spec: str) -> Any:
    """The network without weights of its own and without its classifier."""
    create = partial(timm.create_model, model_name, pretrained=False, num_classes=0)
    # Convolutional networks take any size and have no norms behind the mean: they refuse both.
    for dropped in ((), ("img_size",), ("fc_norm",), ("img_size", "fc_norm")):
        kept = {key: value for key, value in arguments.items() if key not in dropped}
        try:
            return create(**kept)
        except TypeError as error:
            refused: Exception = error
        # Architectures refuse by AssertionError, RuntimeError and more.
        except Exception as error:
            refused = error
            break
    raise ValueError(f"{spec}: timm cannot build the model: {refused}") from refused


def _weights_file(file: str, spec: str) -> Path:
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{spec}: weights must be a .safetensors file; pickled weights (.bin, .pt, .pth) can "
            "run any code when they are read, and are never loaded."
        )
    if not path.is_file():
        raise ValueError(f"{spec}: there is no file {path}.")
    return path


def _hub_files(network: Any, spec: str) -> list[Path]:
    """Weights of timm's own repository on the hub."""
    model_id = network.pretrained_cfg.get("hf_hub_id")
    if not model_id:
        raise ValueError(
            f"{spec}: timm knows no safetensors weights of this model: name a file after '@'."
        )
    if model_id == "timm/":  # timm's shorthand for a repository of the model's own name
        config = network.pretrained_cfg
        model_id += f"{config['architecture']}.{config['tag']}"
    return weight_files(find_model(model_id, spec), spec)


def _preparer(timm: Any, network: Any, image_size: int | None, spec: str) -> ProcessorPixels:
    """As timm's evaluation transform: the shorter side, then the centre."""
    config = timm.data.resolve_model_data_config(network)
    _, height, width = config["input_size"]
    crop_pct = config["crop_pct"]
    resample = _RESAMPLES.get(config["interpolation"], 3)
    if config["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"{spec}: the model asks for crop_mode={config['crop_mode']!r}, which is not done here."
        )
    if config["crop_mode"] == "squash":
        resize: tuple[int, ...] = (int(height / crop_pct), int(width / crop_pct))
    else:
        resize = (int(min(height, width) / crop_pct),)
    preparer = ProcessorPixels(
        resize,
        (height, width),
        resample,
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        rounded=True,
    )
    return preparer.at_size(image_size)


def _build(
    timm: Any,
    model_name: str,
    arguments: dict[str, Any],
    files: list[Path],
    preparer: ProcessorPixels,
    spec: str,
) -> "torch.nn.Module":
    from safetensors.torch import load_file

    network = _create(timm, model_name, arguments, spec)
    state: dict[str, Any] = {}
    try:
        for file in files:
            state.update(load_file(file))
        missing, unexpected = network.load_state_dict(state, strict=False)
    # SafetensorError of a damaged file, RuntimeError of other shapes.
    except Exception as error:
        raise ValueError(f"{spec}: the weights cannot be loaded: {error_words(error)}.") from error
    refuse_missing_weights(missing, spec)
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    foreign = [key for key in unexpected if not key.startswith(tuple(f"{h}." for h in heads))]
    if foreign:
        raise ValueError(f"{spec}: the weights hold {foreign[0]}, which the model has not.")
    return normalising(network, preparer, lambda network, images: network(images))
