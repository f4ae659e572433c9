"""A row's features depend on that row alone: looked at before the first batch, for every backbone.

A sum over private rows has a known sensitivity only if removing a row changes no other row. A
network that scales, normalises or attends over its batch breaks that. So each backbone embeds
made-up rows beside different neighbours first; one that mixes rows then gets one row at a time.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEIGHBOUR_TOLERANCE", "PLACE_TOLERANCE", "independent_rows", "mixing"]

# Part of a row's length that its features may move by when only its neighbours change, and
# when its place or the number of rows does, by which kernels are chosen: rounding, in 32 and in
# 16 bits.
NEIGHBOUR_TOLERANCE = 1e-5
PLACE_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}

_SIDE = 256
_TEXTS = (
    "A short text.",
    "Some more words, of another kind: 12 of them, or so!",
    "is it so",
    "ZEBRA quaternions 9,999,999 §§ XYZZY",
    "A text that is longer than the others by far. " * 12,
)
_LOCK = threading.RLock()
_STATE = "_dpfc_mixes_rows"

B = TypeVar("B")
P = ParamSpec("P")
Batch = NDArray[Any] | Sequence[NDArray[Any]]
Embed = Callable[[B, Batch], NDArray[np.float32]]


def independent_rows(
    embed: Callable[Concatenate[B, P], NDArray[np.float32]],
) -> Callable[Concatenate[B, P], NDArray[np.float32]]:
    """Wrap a backbone's `embed`: one row at a time if its rows would depend on each other.

    The check runs once a backbone, before its first batch of more than one row, on made-up
    inputs; a `UserWarning` says what it found.
    """

    def checked(self: B, /, *args: P.args, **kwargs: P.kwargs) -> NDArray[np.float32]:
        batch: Any = args[0] if args else kwargs["batch"]
        raw: Any = embed
        if len(batch) < 2 or not _mixes(self, raw):
            return embed(self, *args, **kwargs)
        return np.concatenate([raw(self, batch[i : i + 1]) for i in range(len(batch))])

    update_wrapper(checked, embed)
    return checked


def mixing(backbone: Any, embed: Callable[[Batch], NDArray[np.float32]]) -> float | None:
    """How far a made-up row's features move with its neighbours, as a part of their length.

    Parameters
    ----------
    backbone : Backbone
    embed : callable
        Its pass over a batch, without any guard.

    Returns
    -------
    float or None
        None if that is within `NEIGHBOUR_TOLERANCE` and `PLACE_TOLERANCE`.
    """
    first, second, *others = _rows(backbone)
    rows = _stack(backbone, [first, second, others[0], others[0], *others[2:]])
    beside_small = embed(rows)[:2]
    rows = _stack(backbone, [first, second, others[1], others[1], *others[2:]])
    beside_large = embed(rows)[:2]
    moved = _moved(beside_small, beside_large)
    if not moved <= NEIGHBOUR_TOLERANCE:
        return moved
    elsewhere = embed(_stack(backbone, [others[1], second, first]))[[2, 1]]
    moved = _moved(beside_small, elsewhere)
    format_of_sums = backbone.preprocessing.get("compute_dtype", "float32")
    tolerance = PLACE_TOLERANCE.get(format_of_sums, PLACE_TOLERANCE["float32"])
    return None if moved <= tolerance else moved


def _mixes(backbone: Any, embed: Callable[[Any, Batch], NDArray[np.float32]]) -> bool:
    with _LOCK:
        known: bool | None = vars(backbone).get(_STATE)
        if known is not None:
            return known
        moved = mixing(backbone, lambda batch: embed(backbone, batch))
        vars(backbone)[_STATE] = moved is not None
        if moved is not None:
            warnings.warn(
                f"{backbone.spec} mixes the rows of a batch: a made-up row's features move by "
                f"{moved:.2g} of their length with the rows beside it. Rows go through it one by "
                "one, so that removing one changes no other; that is slower.",
                stacklevel=4,
            )
        return moved is not None


def _rows(backbone: Any) -> list[NDArray[Any]]:
    """Two rows that are looked at, then their neighbours: small, large, and others."""
    prepare = backbone.preparer
    if backbone.modality == "text":
        return [prepare(text) for text in _TEXTS]
    from PIL import Image

    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (_SIDE, _SIDE, 3))
    pixels = [noise // 16, (noise + 128) // 3, np.zeros_like(noise), 255 * (noise > 127)]
    return [prepare(Image.fromarray(image.astype(np.uint8))) for image in pixels]


def _stack(backbone: Any, rows: list[NDArray[Any]]) -> Batch:
    return rows if backbone.modality == "text" else np.stack(rows)


def _moved(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest distance of two rows' features, as a part of their length; NaN if one is not finite.

    Shapes (n, n_features).
    """
    lengths = np.linalg.norm(one.astype(np.float64), axis=1)
    distances = np.linalg.norm(one.astype(np.float64) - other, axis=1)
    # Rows of no length move by nothing, or by more than all of it.
    parts = np.divide(
        distances, lengths, out=np.where(distances > 0, np.inf, 0.0), where=lengths > 0
    )
    return float(parts.max())
