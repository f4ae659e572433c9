"""Made-up rows, and the passes by which a backbone is found to mix rows; no private row is here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NEIGHBOUR_TOLERANCE",
    "PLACE_TOLERANCE",
    "MadeUpRows",
    "largest_move",
]

# Part of a row's length that its features may move by when only its neighbours change, and
# when its place or the number of rows does, by which kernels are chosen: rounding, in 32 and in
# 16 bits.
NEIGHBOUR_TOLERANCE = 1e-5
PLACE_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}

_SIDE = 256
_ROWS = 4

Row = NDArray[Any]
Batch = NDArray[Any] | Sequence[Row]
Embed = Callable[[Batch], NDArray[np.float32]]


@dataclass(frozen=True)
class MadeUpRows:
    """Prepared rows that stand for private ones.

    Attributes
    ----------
    watched : list of 4 ndarrays
        Rows whose features are compared: dark, bright, noise, flat; texts of several lengths.
    large, small, mixed : lists of 4 ndarrays
        Rows beside them: white and of the hardest contrast, or long; black, or of one letter;
        each of another kind.
    """

    watched: list[Row]
    large: list[Row]
    small: list[Row]
    mixed: list[Row]

    @classmethod
    def of(cls, backbone: Any) -> "MadeUpRows":
        """The rows as a backbone prepares them.

        Raises
        ------
        ValueError
            If it prepares one input in two ways.
        """
        inputs = _texts() if backbone.modality == "text" else _images()
        prepare = backbone.preparer
        prepared = [[np.asarray(prepare(one)) for one in kind] for kind in inputs]
        if not np.array_equal(prepared[0][0], prepare(inputs[0][0]), equal_nan=True):
            raise ValueError(
                f"{backbone.spec} prepares one made-up {backbone.modality} in two ways: what a row "
                "becomes must not hang on the rows before it, or on chance. Take that out of its "
                "preparer."
            )
        return cls(*prepared)


def largest_move(
    embed: Embed, rows: MadeUpRows, n_rows: int, stacked: bool, compute_dtype: str
) -> tuple[float | None, float | None]:
    """How far made-up rows' features move with their neighbours, and from pass to pass.

    Each row goes alone, in a pair, in a batch of eight beside three kinds of neighbours, at
    another place, and in a full batch: about five batches in all.

    Parameters
    ----------
    embed : callable
        A backbone's pass over a batch, without any guard.
    rows : MadeUpRows
    n_rows : int
        Rows of the largest pass, > 1.
    stacked : bool
        Whether a batch is one array.
    compute_dtype : str
        A key of `PLACE_TOLERANCE`, else as float32.

    Returns
    -------
    beside, afterwards : float or None
        Largest distances as parts of a row's length; None where they are within the
        tolerances, `NEIGHBOUR_TOLERANCE` for equal passes, else `PLACE_TOLERANCE`.
    """

    def features(*batch: Row) -> NDArray[np.float32]:
        # Copies: a pass may write into its input.
        return embed(np.stack(batch) if stacked else [row.copy() for row in batch])

    watched = rows.watched[: max(1, min(_ROWS, n_rows // 2))]
    n_watched = len(watched)
    room = min(_ROWS, n_rows - n_watched)
    alone = [features(row) for row in watched[:3]]
    beside = features(*watched, *rows.mixed[:room])
    moves, again = [], []
    for others in (rows.large, rows.small):
        moves.append(_moved(beside[:n_watched], features(*watched, *others[-room:])[:n_watched]))
        again.append(_moved(alone[0], features(watched[0])))
    backwards = features(*reversed(rows.mixed[:room]), *reversed(watched))[::-1]
    elsewhere = [_moved(beside[:n_watched], backwards[:n_watched])]
    elsewhere += [_moved(beside[i : i + 1], one) for i, one in enumerate(alone)]
    elsewhere.append(_moved(alone[0], features(watched[0], rows.large[-1])[:1]))
    if n_rows > n_watched + room:
        # Passes of images may be filled up with black; long texts would take long.
        others = rows.large if stacked else rows.small
        crowd = islice(chain(rows.mixed, cycle(others)), n_rows - n_watched)
        elsewhere.append(_moved(beside[:n_watched], features(*watched, *crowd)[:n_watched]))
    place = PLACE_TOLERANCE.get(compute_dtype, PLACE_TOLERANCE["float32"])
    again.append(_moved(alone[0], features(watched[0])))
    return (
        _beyond(moves, NEIGHBOUR_TOLERANCE) or _beyond(elsewhere, place),
        _beyond(again, NEIGHBOUR_TOLERANCE),
    )


def _beyond(moves: list[float], tolerance: float) -> float | None:
    return next((moved for moved in moves if not moved <= tolerance), None)


def _images() -> list[list[Any]]:
    """Upright RGB images."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3))
    black = np.zeros_like(noise)
    white = black + 255
    ramp = black + np.arange(_SIDE)[:, None, None]
    point = black.copy()
    point[_SIDE // 2, _SIDE // 2] = 255
    checks = 255 * ((np.arange(_SIDE)[:, None] // 16 + np.arange(_SIDE) // 16) % 2)
    kinds = [
        [noise // 16, 224 + noise // 8, noise, 120 + noise // 16],
        [white, white, white, 255 * (noise > 64)],
        [black, black, black, point],
        [ramp, black + np.array([255, 0, 0]), black + checks[:, :, None], 255 * (noise > 127)],
    ]
    return [[Image.fromarray(image.astype(np.uint8)) for image in kind] for kind in kinds]


def _texts() -> list[list[str]]:
    return [
        [
            "A short text.",
            "Some more words, of another kind: 12 of them, or so!",
            "ZEBRA quaternions 9,999,999 §§ XYZZY",
            "is it so",
        ],
        [
            "A text that is longer than the others.",
            "A text that is longer than the others.",
            "long " * 24,
            "A text that is longer than the others by far. " * 8,
        ],
        ["a", "a", "a", "b"],
        [
            "The quiet room was clean, and nobody complained of anything.",
            "x" * 20,
            "NO!!! NEVER AGAIN??? " * 3,
            "δύο λέξεις, und noch einige mehr",
        ],
    ]


def _moved(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest distance of two rows' features, as a part of their length; NaN if one is not finite.

    Shapes (n, n_features). What is equal has not moved, NaN and infinity as well.
    """
    first, second = one.astype(np.float64), other.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(first, axis=1)
        distances = np.linalg.norm(np.where(same, 0.0, first - second), axis=1)
        # Rows of no length move by nothing, or by more than all of it.
        parts = np.divide(
            distances, lengths, out=np.where(distances > 0, np.inf, 0.0), where=lengths > 0
        )
    return float(np.where(same.all(axis=1), 0.0, parts).max())
