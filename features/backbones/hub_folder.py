"""Model folders in the Hugging Face layout: found, checked and hashed before anything is loaded.

Then networks of transformers from them: safetensors only, no code of the model's, no network.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpfc._support.files import read_regular, sha256_of_file
from dpfc._support.limits import check_limit

__all__ = [
    "find_model",
    "hash_files",
    "load_pretrained",
    "quiet",
    "read_json",
    "read_model_config",
    "refuse_missing_weights",
    "weight_files",
]

_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
# What is fetched from a hub: no pickled weights, no code.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors")
_UNWANTED = ("onnx/*", "openvino/*", "*training_args*")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_CODE = "which can fetch code from a hub: take it out, or set it to 'eager' or 'sdpa'"
# What a config.json may not ask for, and why.
_REFUSED = {
    "attn_implementation": _CODE,
    "experts_implementation": _CODE,
    "transformers_weights": "weights that the checksum would not cover: name them " + _WEIGHTS,
    "quantization_config": "which is not supported: use the model's weights before quantization",
}
_LAYERS = re.compile(r"(num_.*(layers|blocks|stages|heads|experts)|^n_layers?|^n_heads?|depth)$")
_WIDTHS = re.compile(r"(_size|_dim|^d_model|^d_ff|^dim|^n_embd|_positions|_channels)$")
_HARMLESS = (None, "eager", "sdpa")


def find_model(name: str, spec: str) -> Path:
    """Folder of a model: a local one, or the hub's cache, filled from the network if need be.

    A folder that exists never touches the network.

    Parameters
    ----------
    name : str
        Path of a folder, or ID on the Hugging Face hub such as ``facebook/dinov2-base``.
    spec : str
        What the user wrote, for errors.

    Raises
    ------
    ValueError
        If it is neither, or cannot be fetched, or has no ``safetensors`` weights.
    """
    try:
        local = Path(name).expanduser()
        is_folder, exists = local.is_dir(), local.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a user without a home
        raise ValueError(f"{spec}: {name} cannot be looked up as a folder.") from error
    if is_folder:
        folder = local
    elif exists:
        raise ValueError(f"{spec}: {name} is a file, not the folder of a model.")
    elif name.startswith((".", "/", "~")) or not _MODEL_ID.fullmatch(name):
        raise ValueError(f"{spec}: there is no folder {name}, nor can a model be named so.")
    else:
        folder = _fetch(name, spec)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ValueError(
            f"{spec}: there is no config.json in {folder}: it is not a model's folder."
        )
    return folder


def _fetch(model_id: str, spec: str) -> Path:
    """The snapshot in the hub's cache if it is whole, else downloaded."""
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"allow_patterns": _WANTED, "ignore_patterns": _UNWANTED}
    try:
        folder = Path(snapshot_download(model_id, local_files_only=True, **options))
        weight_files(folder, spec)
        return folder
    except (OSError, ValueError):  # not in the cache, or only parts of it
        pass
    try:
        return Path(snapshot_download(model_id, **options))
    # The client raises its own errors, those of its HTTP library, and OSError.
    except Exception as error:
        raise ValueError(
            f"{spec}: there is no folder {model_id}, and the model {model_id!r} is neither in the "
            f"Hugging Face cache nor can it be downloaded ({type(error).__name__}). Check its "
            "name and the network, or give the path of its folder."
        ) from error


def weight_files(folder: Path, spec: str) -> list[Path]:
    """The ``safetensors`` files of a model, in the order of their names.

    Raises
    ------
    ValueError
        If there are none or one is missing, or an adapter would be put on top of them. Pickled
        weights are never read: unpickling a file runs whatever code is in it.
    """
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{spec}: {folder} holds an adapter: merge it into its model and save that."
        )
    index = folder / _INDEX
    files = [folder / _WEIGHTS]
    # Where both lie there, transformers reads the one file.
    if index.is_file() and not files[0].is_file():
        named = read_json(index, spec).get("weight_map")
        names = list(named.values()) if isinstance(named, dict) else []
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            raise ValueError(f"{spec}: {_INDEX} in {folder} names no files of that folder.")
        files = [folder / name for name in sorted(set(names))]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickles and not index.is_file():
        raise ValueError(
            f"{spec}: {folder} holds only pickled weights ({pickles[0].name}), which can run any "
            "code when they are read. Convert them to safetensors, on a machine where that does "
            "no harm, with model.save_pretrained(folder)."
        )
    raise ValueError(f"{spec}: {', '.join(missing)} is missing in {folder}.")


def hash_files(files: list[Path]) -> str:
    """SHA-256 of one file; of several, of their names and SHA-256 in the order of names."""
    if len(files) == 1:
        return sha256_of_file(files[0])
    lines = [f"{file.name} {sha256_of_file(file)}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_json(path: Path, spec: str) -> dict[str, Any]:
    """Object in a JSON file.

    Raises
    ------
    ValueError
        If the file cannot be read, or holds anything else.
    """
    try:
        content = json.loads(read_regular(path, limit="json_bytes").decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{spec}: {path} cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{spec}: {path} must hold a JSON object.")
    return content


def read_model_config(folder: Path, spec: str) -> Any:
    """The model's configuration, as transformers reads it.

    Raises
    ------
    ValueError
        If transformers does not know the type of model, or the file asks for other code or other
        weights than those of the library and the folder: code that comes with a model is never
        run.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    content = read_json(folder / "config.json", spec)
    _refuse_settings(content, spec)
    _refuse_sizes(content, spec)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        reason = (
            " needs code of its own (auto_map), which is never run"
            if "auto_map" in content
            else " is unknown to the installed transformers"
        )
        raise ValueError(f"{spec}: model_type {kind!r}{reason}.")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Configuration classes raise whatever their fields' checks raise.
    except Exception as error:
        raise ValueError(f"{spec}: config.json in {folder} is not valid: {error}") from error


def _refuse_settings(content: Any, spec: str) -> None:
    """Refuse what would change where code and weights come from, in parts of the model too."""
    for key, value in content.items() if isinstance(content, dict) else ():
        name = str(key).removeprefix("_")
        if name in _REFUSED and value not in _HARMLESS:
            raise ValueError(f"{spec}: config.json asks for {key}, {_REFUSED[name]}.")
        _refuse_settings(value, spec)


def _refuse_sizes(content: Any, spec: str) -> None:
    """Refuse layers and widths above the limits, in parts of the model too, before it is built."""
    for key, value in content.items() if isinstance(content, dict) else ():
        name = str(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and _LAYERS.search(name):
            check_limit("network_layers", value, f"{spec}: config.json asks for {key}={value}")
        elif whole and name in ("image_size", "patch_size"):
            check_limit("image_side", value, f"{spec}: config.json asks for {key}={value}")
        elif whole and _WIDTHS.search(name):
            check_limit("network_width", value, f"{spec}: config.json asks for {key}={value}")
        _refuse_sizes(value, spec)


def refuse_missing_weights(missing: "set[str] | list[str]", spec: str) -> None:
    """Refuse a network with weights that the files did not hold: they would be random.

    Raises
    ------
    ValueError
        Names the first of them.
    """
    if missing:
        first = sorted(missing)[0]
        raise ValueError(
            f"{spec}: {len(missing)} weights of the network are not in the model's files, "
            f"{first} among them; they would be random. A pooler's are often missing: choose "
            "another pooling, else another model."
        )


def load_pretrained(
    model_class: Any,
    folder: Path,
    spec: str,
    dtype: str,
    *,
    unused: tuple[str, ...] = (),
    **arguments: Any,
) -> Any:
    """A network with all of its weights from a local folder.

    Parameters
    ----------
    model_class : type
        A model class of transformers.
    folder : Path
        Holds ``config.json`` and the weights.
    spec : str
        Name of the model in errors.
    dtype : str
        Format that weights are kept in.
    unused : tuple of str
        Parts of the network that are not asked, whose weights may be missing.
    **arguments
        For ``from_pretrained``.

    Raises
    ------
    ValueError
        If weights are missing, of another shape, or cannot be read.
    """
    try:
        with quiet():
            network, report = model_class.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **arguments,
            )
    # Damaged weights raise SafetensorError, RuntimeError, OSError and more.
    except Exception as error:
        raise ValueError(f"{spec}: the weights in {folder} cannot be loaded: {error}") from error
    missing = {*report["missing_keys"], *map(str, report["mismatched_keys"])}
    refuse_missing_weights({name for name in missing if not name.startswith(unused)}, spec)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar, and no report of the weights of towers that are not loaded."""
    from transformers.utils import logging as untyped

    logging: Any = untyped

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
