"""Text models of transformers: encoders, and decoders by their pooled hidden states."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc.features.backbones.devices import resolve_device, resolve_dtype
from dpfc.features.backbones.hub_folder import hash_files, load_pretrained, read_json, weight_files
from dpfc.features.backbones.torch_text import TextModel, TokenIds, TorchTextBackbone, pool_tokens

if TYPE_CHECKING:
    import torch

    from dpfc.features.backbones.base import BackboneOptions

__all__ = ["is_text_model", "load_text_model", "position_limit", "token_limit"]

# Attention over more tokens than this is rarely worth its time.
_MAX_TOKENS = 512
_NO_LIMIT = 1 << 30
# sentence-transformers' names of what is done here too.
_SENTENCE_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "class_token",
    "pooling_mode_lasttoken": "last_token",
}


def is_text_model(config: Any) -> bool:
    """Whether the model reads texts by one encoder or decoder."""
    if config.model_type == "gemma3":
        return True
    return not config.is_encoder_decoder and (_is_encoder(config) or _is_decoder(config))


def _is_encoder(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _is_decoder(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def load_text_model(
    folder: Path, config: Any, spec: str, options: "BackboneOptions"
) -> TorchTextBackbone:
    """Backbone of a text model.

    Parameters
    ----------
    folder : Path
        Holds configuration, weights and tokenizer.
    config : transformers.PretrainedConfig
        The model's configuration.
    spec : str
        What the user wrote.
    options : BackboneOptions
        Pooling, device and precision.

    Raises
    ------
    ValueError
        If the pooling is not possible, or there are no safe weights.
    """
    options.refuse_image_size(spec)
    possible: tuple[str, ...] = ("mean", "last_token")
    if _is_encoder(config):
        possible = ("mean", "class_token", "pooler")
    pooling = _default_pooling(folder, spec) if options.pooling == "auto" else options.pooling
    if pooling not in possible:
        raise ValueError(
            f"{spec}: pooling {pooling!r} is not possible for {config.model_type}; "
            f"use {' or '.join(possible)}."
        )
    text = config.get_text_config()
    files = weight_files(folder, spec)
    model = TextModel(
        spec,
        text.hidden_size,
        pooling,
        TokenIds(folder, min(token_limit(folder, text, spec) or _MAX_TOKENS, _MAX_TOKENS)),
        partial(hash_files, files),
        partial(_build, folder, config, pooling, spec, options),
        getattr(text, "pad_token_id", None) or 0,
    )
    return TorchTextBackbone(model, options.device, options.dtype)


def _default_pooling(folder: Path, spec: str) -> str:
    """The mean over tokens, unless the folder has a pooling of sentence-transformers."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    content = read_json(file, spec)
    new = {"mean": "mean", "cls": "class_token", "lasttoken": "last_token"}
    modes = [name for key, name in _SENTENCE_POOLINGS.items() if content.get(key)]
    modes = modes or [new.get(str(content.get("pooling_mode")), "")]
    if len(modes) != 1 or not modes[0]:
        raise ValueError(f"{spec}: the pooling in {file} is unknown: name one, or use 'st:'.")
    return modes[0]


def token_limit(folder: Path, config: Any, spec: str) -> int | None:
    """Tokens that the model and its tokenizer take; None where neither says."""
    limits = [position_limit(config)]
    if (folder / "tokenizer_config.json").is_file():
        stated = read_json(folder / "tokenizer_config.json", spec).get("model_max_length")
        if isinstance(stated, bool) or not isinstance(stated, int | float | None):
            raise ValueError(
                f"{spec}: model_max_length in {folder / 'tokenizer_config.json'} must be a number."
            )
        limits.append(_limit(stated))
    return min((limit for limit in limits if limit is not None), default=None)


def position_limit(config: Any) -> int | None:
    """Tokens that the model has places for; None where it does not say."""
    return _limit(getattr(config, "max_position_embeddings", None))


def _limit(stated: Any) -> int | None:
    # Where there is no limit, transformers writes 1e30, and XLNet -1.
    is_number = isinstance(stated, int | float) and not isinstance(stated, bool)
    return int(stated) if is_number and 1 <= stated < _NO_LIMIT else None


def _build(
    folder: Path, config: Any, pooling: str, spec: str, options: "BackboneOptions"
) -> "torch.nn.Module":
    import torch

    network = _load_network(folder, config, pooling, spec, options)

    class IdsToFeatures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            output = self.network(input_ids=ids, attention_mask=mask)
            if pooling == "pooler":
                return output.pooler_output  # type: ignore[no-any-return]
            return pool_tokens(output.last_hidden_state, mask, pooling)

    return IdsToFeatures()


def _load_network(
    folder: Path, config: Any, pooling: str, spec: str, options: "BackboneOptions"
) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    compute = resolve_dtype(options.dtype, resolve_device(options.device))
    # Weights published in 16 bits lose nothing in them; others are kept in 32.
    own = str(getattr(config, "dtype", None)).removeprefix("torch.")
    arguments: dict[str, Any] = {}
    model_class: Any = transformers.AutoModel
    if config.model_type == "gemma3":
        # The vision tower's layers are neither built nor read.
        config.vision_config.num_hidden_layers = 0
        arguments["config"] = config
    elif _is_encoder(config):
        model_class = MODEL_MAPPING[type(config)]
        if _takes_pooling_layer(model_class):  # language models come without its weights
            arguments["add_pooling_layer"] = pooling == "pooler"
        elif pooling == "pooler":
            raise ValueError(f"{spec}: {config.model_type} has no pooler; use pooling='mean'.")
    else:
        arguments["use_cache"] = False
    dtype = compute if own == compute else "float32"
    network = load_pretrained(model_class, folder, spec, dtype, **arguments)
    return network.language_model if config.model_type == "gemma3" else network


def _takes_pooling_layer(model_class: Any) -> bool:
    import inspect

    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
