"""Loading of a network with transformers: safetensors only, no code of the model's, no network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpfc.features.backbones.hub_folder import refuse_missing_weights

__all__ = ["load_pretrained", "quiet"]


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
