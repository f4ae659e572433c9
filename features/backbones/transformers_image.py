"""Image models of transformers: ``hf:ID_OR_PATH``, and the choice between image and text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.packages import require
from dpfc.features.backbones.hub_folder import (
    find_model,
    hash_files,
    load_pretrained,
    read_json,
    read_model_config,
    weight_files,
)
from dpfc.features.backbones.processor import ProcessorPixels, read_processor
from dpfc.features.backbones.torch_forward import TorchModel
from dpfc.features.backbones.torch_image import TorchImageBackbone, normalising
from dpfc.features.backbones.transformers_text import is_text_model, load_text_model

if TYPE_CHECKING:
    import torch

    from dpfc.features.backbones.base import Backbone, BackboneOptions

__all__ = ["load_transformers_model"]


@dataclass(frozen=True)
class _Family:
    """What is particular to a type of vision model.

    `poolings`: the possible ones, the default first. `model_class`: loads the tower, out of the
    whole model too. `n_prefix`: tokens before the patches' (class token; registers come on top).
    `any_size`: takes images of other sizes without being asked to interpolate its positions.
    """

    poolings: tuple[str, ...]
    model_class: str
    processor: str
    n_prefix: int = 1
    any_size: bool = False


_VIT = _Family(("class_token", "mean", "pooler"), "ViTModel", "ViT")
_DINOV2 = _Family(("class_token", "mean", "pooler"), "Dinov2Model", "Bit", any_size=True)
# The vision towers' pooler is what their contrastive training pooled with.
_CLIP = _Family(("pooler", "class_token", "mean"), "CLIPVisionModel", "CLIP")
_SIGLIP = _Family(("pooler", "mean"), "SiglipVisionModel", "Siglip", n_prefix=0)
_SIGLIP2 = _Family(("pooler", "mean"), "Siglip2VisionModel", "Siglip2", n_prefix=0, any_size=True)
_FAMILIES = {
    "vit": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": replace(_DINOV2, model_class="Dinov2WithRegistersModel"),
    "dinov3_vit": replace(_DINOV2, model_class="DINOv3ViTModel", processor="DINOv3ViT"),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    # The tower feeds its tokens to the language model: there is no pooler.
    "gemma3": _Family(("mean",), "Gemma3Model", "Gemma3", n_prefix=0),
}

_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 224, "width": 224}}
_OPENAI = {
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# What the processors of transformers take where a model's file says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {**_HALF, "resample": 2},
    "Bit": _OPENAI,
    "CLIP": _OPENAI,
    "Siglip": {**_HALF, "resample": 3},
    "Siglip2": {**_HALF, "resample": 2, "patch_size": 16, "max_num_patches": 256},
    "Gemma3": {**_HALF, "resample": 2},
    "DINOv3ViT": {"size": _HALF["size"], "resample": 2},
}


def load_transformers_model(name: str, options: "BackboneOptions") -> "Backbone":
    """Backbone of a model of transformers.

    Parameters
    ----------
    name : str
        Path of a folder or ID on the hub. ``#image`` or ``#text`` at its end picks the tower of
        a model that has both; without it that is the image tower.
    options : BackboneOptions
        Image size, pooling, device and precision.

    Raises
    ------
    MissingDependencyError
        If transformers is not installed.
    ValueError
        If the model cannot be found, is not safe to load, or cannot do what is asked.
    """
    spec = f"hf:{name}"
    require("transformers", spec, "hf")
    name, _, tower = name.partition("#")
    if tower not in ("", "image", "text"):
        raise ValueError(f"{spec}: after '#' must come image or text, got {tower!r}.")
    folder = find_model(name, spec)
    config = read_model_config(folder, spec)
    if tower != "text" and config.model_type in _FAMILIES:
        return _load_image_model(folder, config, spec, options)
    if tower != "image" and is_text_model(config):
        return load_text_model(folder, config, spec, options)
    raise ValueError(
        f"{spec}: no {tower or 'image or text'} backbone can be made of model type "
        f"{config.model_type!r}. Image models: {', '.join(_FAMILIES)}. Text models: encoders such "
        "as bert, decoders such as gemma3_text."
    )


def _load_image_model(
    folder: Path, config: Any, spec: str, options: "BackboneOptions"
) -> TorchImageBackbone:
    family = _FAMILIES[config.model_type]
    pooling = family.poolings[0] if options.pooling == "auto" else options.pooling
    if pooling not in family.poolings:
        raise ValueError(
            f"{spec}: pooling {pooling!r} is not possible for {config.model_type}; "
            f"use {' or '.join(family.poolings)}."
        )
    files = weight_files(folder, spec)
    vision = getattr(config, "vision_config", config)
    if pooling == "pooler" and not getattr(vision, "vision_use_head", True):
        raise ValueError(f"{spec}: the model has no pooler; use pooling='mean'.")
    preparer = _preparer(folder, family, vision, spec).at_size(options.image_size)
    side = _check_sides(preparer, vision, spec)
    build = partial(_build, folder, config, family, pooling, preparer, side, spec)
    model = TorchModel(
        spec, vision.hidden_size, pooling, preparer, partial(hash_files, files), build
    )
    return TorchImageBackbone(model, options.device, options.dtype)


def _preparer(folder: Path, family: _Family, vision: Any, spec: str) -> ProcessorPixels:
    content: dict[str, Any] | None = None
    for file, key in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
    ):
        if content is None and (folder / file).is_file():
            content = read_json(folder / file, spec)
            content = content.get(key) if key else content
    if content is None:
        raise ValueError(
            f"{spec}: {folder} has no preprocessor_config.json, so how images are to be prepared "
            "is unknown: copy it from the model's repository."
        )
    named = content.get("image_processor_type", content.get("feature_extractor_type", ""))
    kind = str(named).removesuffix("Fast").removesuffix("Pil")
    kind = kind.removesuffix("FeatureExtractor").removesuffix("ImageProcessor")
    content = {**_DEFAULTS.get(kind, _DEFAULTS[family.processor]), **content}
    if family is _SIGLIP2:
        # Models for images of any proportions see squares, as those of one size do.
        patches = _whole("max_num_patches in preprocessor_config.json", content, spec)
        side = math.isqrt(patches) * _whole("patch_size in config.json", vision.to_dict(), spec)
        content = {**content, "size": {"height": side, "width": side}}
    return read_processor(content, spec)


def _whole(where: str, content: Mapping[str, Any], spec: str) -> int:
    """A count in a model's files, by its name, the first word of `where`."""
    value = content.get(where.split()[0])
    if type(value) is not int or not 0 < value < 2**31:
        raise ValueError(f"{spec}: {where} must be an int > 0 and < 2^31, got {value!r:.40}.")
    return value


def _check_sides(preparer: ProcessorPixels, vision: Any, spec: str) -> int:
    """Side of the square, which must be whole patches."""
    height, width = preparer.crop
    patch = _whole("patch_size in config.json", vision.to_dict(), spec)
    if height != width or height % patch:
        raise ValueError(
            f"{spec}: images of {height} x {width} px cannot be cut into patches of {patch} px: "
            f"use an image_size that is a multiple of {patch}."
        )
    return height


def _build(
    folder: Path,
    config: Any,
    family: _Family,
    pooling: str,
    preparer: ProcessorPixels,
    side: int,
    spec: str,
) -> "torch.nn.Module":
    network = _load_tower(folder, config, family, pooling, spec)
    vision = network.config
    n_prefix = family.n_prefix + (getattr(vision, "num_register_tokens", 0) or 0)
    arguments: dict[str, Any] = {}
    if not family.any_size and side != vision.image_size:
        arguments["interpolate_pos_encoding"] = True

    def pool(network: "torch.nn.Module", images: "torch.Tensor") -> "torch.Tensor":
        if family is _SIGLIP2:
            output = network(**_patches(images, vision.patch_size))
        else:
            output = network(pixel_values=images, **arguments)
        if pooling == "pooler":
            return output.pooler_output  # type: ignore[no-any-return]
        tokens: torch.Tensor = output.last_hidden_state
        return tokens[:, 0] if pooling == "class_token" else tokens[:, n_prefix:].mean(1)

    return normalising(network, preparer, pool)


def _load_tower(folder: Path, config: Any, family: _Family, pooling: str, spec: str) -> Any:
    import transformers

    model_class = getattr(transformers, family.model_class)
    arguments: dict[str, Any] = {}
    if family is _VIT:  # classifiers come without the pooler's weights
        arguments["add_pooling_layer"] = pooling == "pooler"
    if config.model_type == "gemma3":
        # The language model's layers are neither built nor read.
        config.text_config.num_hidden_layers, config.text_config.layer_types = 0, []
        arguments["config"] = config
    network = load_pretrained(model_class, folder, spec, "float32", **arguments)
    return network.vision_tower if config.model_type == "gemma3" else network


def _patches(images: "torch.Tensor", patch: int) -> "dict[str, torch.Tensor]":
    """Square images cut into rows of patches, as NaFlex models of SigLIP 2 take them."""
    import torch

    n, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    cut = images.reshape(n, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]], device=images.device).expand(n, 2)
    mask = torch.ones(n, rows * columns, dtype=torch.int64, device=images.device)
    return {
        "pixel_values": cut.reshape(n, rows * columns, -1),
        "pixel_attention_mask": mask,
        "spatial_shapes": shapes,
    }
