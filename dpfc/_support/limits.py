"""What a file may ask for before anything is built of it, and how its owner asks for more.

Files declare sizes: of an image, of a network, of a study. They are compared with a limit before
anything of that size is allocated. Each limit has a name, and the environment variable
``DPFC_LIMIT_`` with that name in capitals raises it.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["LIMITS", "LimitError", "check_limit", "limit_of", "shown_count", "variable_of"]

# name: (most that is allowed, what it counts)
LIMITS: Final[dict[str, tuple[int, str]]] = {
    "network_numbers": (2**30, "weights of a network"),
    "row_numbers": (2**26, "numbers of one row of a network"),
    "network_layers": (1_000, "layers that a model's configuration declares"),
    "network_width": (2**21, "one size that a model's configuration declares"),
    "image_side": (4_096, "pixels along one side of a network's images"),
    "image_rows": (4_096, "images that a network takes at once"),
    "json_bytes": (256 * 2**20, "bytes of a JSON file that is parsed as a whole"),
    "onnx_bytes": (2**31, "bytes of an ONNX file, which is parsed as a whole"),
    "yaml_bytes": (2**18, "bytes of a YAML file"),
    "yaml_nodes": (100_000, "values of a YAML file, each alias counted as what it stands for"),
    "study_runs": (100_000, "runs of a study"),
    "array_bytes": (2**30, "bytes of an array that has to be read as a whole"),
    "shards": (100_000, "files that a pattern with braces names"),
}


class LimitError(ValueError):
    """A file asks for more than a limit allows; the message names the limit."""


def variable_of(name: str) -> str:
    """Environment variable that raises a limit."""
    return f"DPFC_LIMIT_{name.upper()}"


def limit_of(name: str) -> int:
    """The limit of a name: the environment's, else the one stated here.

    Raises
    ------
    LimitError
        If the environment's is no whole number.
    """
    variable = variable_of(name)
    text = os.environ.get(variable, "").replace("_", "").strip()
    if not text:
        return LIMITS[name][0]
    if not text.isascii() or not text.isdigit() or len(text) > 30:
        raise LimitError(f"{variable} must be a whole number > 0, got {text!r}.")
    return int(text)


def check_limit(name: str, value: float, what: str) -> None:
    """Refuse a declared size above a limit.

    Parameters
    ----------
    name : str
        Of the limit.
    value : number
        What is declared.
    what : str
        A sentence without its full stop, which says where the number stands and which it is.

    Raises
    ------
    LimitError
        If it is above the limit, or no number.
    """
    limit = limit_of(name)
    if not value <= limit:  # NaN is above every limit too
        raise LimitError(
            f"{what}; the limit {name} is {shown_count(limit)} ({LIMITS[name][1]}). If that is "
            f"meant, set {variable_of(name)} to more."
        )


def shown_count(count: int) -> str:
    """A count in words; Python refuses to print numbers of thousands of digits."""
    return f"{count:,}" if count < 10**18 else "more than 10^18"
