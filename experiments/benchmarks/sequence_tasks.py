"""Small sequence classification tasks, made here from a seed: nothing is downloaded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LIST_OPS_TOKENS",
    "TASKS",
    "SequenceTask",
    "evaluate",
    "list_ops",
    "pathfinder",
    "sequential_digits",
]

Image = NDArray[np.float32]
Cells = NDArray[np.int64]
Dots = tuple[list[int], list[int]]

_OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
LIST_OPS_TOKENS: tuple[str, ...] = ("<pad>", *map(str, range(10)), *_OPERATORS, "]")
_TOKEN_OF = {word: index for index, word in enumerate(LIST_OPS_TOKENS)}
_NESTED = 0.4

_ON_CURVE, _ON_DOT = 0.5, 1.0
_DASH, _PERIOD = 2, 3  # two pixels drawn, one left out
_GAP = 2  # neighbours along a dashed curve are at most so far apart, in rows and in columns
_TURN = 0.15  # radians a pixel, a standard deviation: of a curve, and of each pixel
_PICTURES = 2048  # candidates at a time


class SequenceTask(NamedTuple):
    """Rows (n, length) and integer labels (n,) of both splits.

    Rows are float32, one value a place, where `vocabulary_size` is None, and int64 tokens from 0
    to `vocabulary_size` - 1 otherwise.
    """

    X: NDArray[Any]
    y: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    vocabulary_size: int | None
    n_classes: int


def sequential_digits(*, seed: int = 0) -> SequenceTask:
    """Read scikit-learn's 8 x 8 digits pixel by pixel, row by row: 64 values in [0, 1].

    Parameters
    ----------
    seed : int, default=0
        Of the split into 1,347 training and 450 test rows.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    rows = (X / 16.0).astype(np.float32)
    train, test, y_train, y_test = train_test_split(
        rows, y.astype(np.int64), test_size=450, random_state=seed, stratify=y
    )
    return SequenceTask(train, y_train, test, y_test, None, 10)


def evaluate(tokens: Sequence[int]) -> int:
    """Compute the value of a ListOps expression; tokens of padding are passed over.

    The median of an even number of values is the mean of the middle two, rounded down, and SM
    is the sum modulo ten.
    """
    stack: list[tuple[str, list[int]]] = [("", [])]
    for token in tokens:
        word = LIST_OPS_TOKENS[token]
        if word in _OPERATORS:
            stack.append((word, []))
        elif word == "]":
            operator, values = stack.pop()
            stack[-1][1].append(_OPERATORS[operator](values))
        elif word != "<pad>":
            stack[-1][1].append(int(word))
    return stack[0][1][0]


def list_ops(
    n_train: int = 10_000,
    n_test: int = 1000,
    *,
    length: int = 128,
    max_depth: int = 4,
    max_arguments: int = 5,
    seed: int = 0,
) -> SequenceTask:
    """Make nested lists of digits under MIN, MAX, MED and SM; the label is the value.

    Classes are equally frequent, for which expressions are drawn until every value has its
    number, and no expression comes twice.

    Parameters
    ----------
    n_train, n_test : int
        Multiples of ten.
    length : int, default=128
        Of the rows, in tokens; shorter expressions are padded at the end with token 0.
    max_depth, max_arguments : int
        Bounds on the nesting and on the arguments of one operator, of which it has at least 2.
    seed : int, default=0

    References
    ----------
    Nangia, Bowman (2018), ListOps: A Diagnostic Dataset for Latent Tree Learning.
    Tay et al. (2021), Long Range Arena, section 2.2.1.
    """
    if n_train % 10 or n_test % 10:
        raise ValueError(f"n_train and n_test must be multiples of 10, got {n_train}, {n_test}.")
    rng = np.random.default_rng(seed)
    wanted = (n_train + n_test) // 10
    found: list[dict[tuple[int, ...], None]] = [{} for _ in range(10)]
    while any(len(kind) < wanted for kind in found):
        expression = tuple(_expression(rng, max_depth, max_arguments))
        kind = found[evaluate(expression)]
        if len(expression) <= length and len(kind) < wanted:
            kind[expression] = None
    rows = np.zeros((10, wanted, length), dtype=np.int64)
    for value, kind in enumerate(found):
        for row, expression in zip(rows[value], kind, strict=True):
            row[: len(expression)] = expression
    train, y = _shuffled(rows[:, : n_train // 10], rng)
    test, y_test = _shuffled(rows[:, n_train // 10 :], rng)
    return SequenceTask(train, y, test, y_test, len(LIST_OPS_TOKENS), 10)


def _expression(rng: np.random.Generator, depth: int, max_arguments: int) -> list[int]:
    """Draw an operator, and arguments, some of which are lists again."""
    tokens = [_TOKEN_OF[tuple(_OPERATORS)[rng.integers(len(_OPERATORS))]]]
    for _ in range(rng.integers(2, max_arguments + 1)):
        if depth > 1 and rng.random() < _NESTED:
            tokens += _expression(rng, depth - 1, max_arguments)
        else:
            tokens.append(_TOKEN_OF[str(rng.integers(10))])
    return [*tokens, _TOKEN_OF["]"]]


def _shuffled(
    rows: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Mix rows (n_classes, n, length) that lie class by class."""
    n_classes, n = rows.shape[:2]
    order = rng.permutation(n_classes * n)
    labels = np.repeat(np.arange(n_classes, dtype=np.int64), n)
    return rows.reshape(n_classes * n, *rows.shape[2:])[order], labels[order]


def pathfinder(
    n_train: int = 4000, n_test: int = 1000, *, side: int = 16, seed: int = 0
) -> SequenceTask:
    """Draw two dashed curves and two dots; the label says whether one curve joins the dots.

    Along a curve every third pixel is left out, so that its pixels are at most 2 apart (in rows
    and in columns), and pixels of different curves are at least 3 apart. The label thus follows
    from the image. It does not follow from where the dots are: a picture is used only if two
    ends of one curve, and ends of both, are equally far apart up to a pixel, and either pair
    is marked with the same probability.

    Parameters
    ----------
    n_train, n_test : int
        Even. Half of the rows are of either class; no image comes twice.
    side : int, default=16
        Of the image, in pixels; rows have side² values: 0, 0.5 on a curve, 1 on a dot.
    seed : int, default=0

    References
    ----------
    Linsley et al. (2018), Learning Long-Range Spatial Dependencies with Horizontal Gated
    Recurrent Units.
    Tay et al. (2021), Long Range Arena, section 2.2.5.
    """
    if n_train % 2 or n_test % 2:
        raise ValueError(f"n_train and n_test must be even, got {n_train}, {n_test}.")
    rng = np.random.default_rng(seed)
    wanted = (n_train + n_test) // 2
    found: list[dict[bytes, Image]] = [{}, {}]
    while any(len(kind) < wanted for kind in found):
        for first, second in _curve_pairs(rng, side):
            pairs = _equally_far_pairs(first, second)
            if not pairs:
                continue
            connected = int(rng.integers(2))
            image = _draw(side, (first, second), pairs[rng.integers(len(pairs))][connected])
            if len(found[connected]) < wanted:
                found[connected][image.tobytes()] = image.ravel()
    rows = np.array([list(kind.values()) for kind in found])
    train, y = _shuffled(rows[:, : n_train // 2], rng)
    test, y_test = _shuffled(rows[:, n_train // 2 :], rng)
    return SequenceTask(train, y, test, y_test, None, 2)


def _curve_pairs(rng: np.random.Generator, side: int) -> Iterator[tuple[Cells, Cells]]:
    """Yield pairs of curves that are far enough apart to be told apart."""
    curves = _curves(rng, 2 * _PICTURES, side)
    half = len(curves) // 2
    first, second = curves[:half], curves[half : 2 * half]
    apart = np.abs(first[:, :, None] - second[:, None]).max(axis=3).min(axis=(1, 2))
    # 2 more than the gap: a dot, which either may have, is a pixel wider on all sides.
    far = apart > _GAP + 2
    yield from zip(first[far], second[far], strict=True)


def _curves(rng: np.random.Generator, n: int, side: int) -> Cells:
    """Draw up to n smooth curves, each a row of pixels that touch, at a place where they fit."""
    n_cells = side * 3 // 4
    turns = rng.normal(scale=_TURN, size=(n, 1)) + rng.normal(scale=_TURN, size=(n, n_cells - 1))
    headings = rng.uniform(0, 2 * np.pi, size=(n, 1)) + turns.cumsum(axis=1)
    steps = np.stack((np.cos(headings), np.sin(headings)), axis=2)
    # One pixel in rows or columns at each step, so that no pixel comes twice in a row.
    steps /= np.abs(steps).max(axis=2, keepdims=True)
    path = np.concatenate((np.zeros((n, 1, 2)), steps.cumsum(axis=1)), axis=1)
    low, high = path.min(axis=1, keepdims=True), path.max(axis=1, keepdims=True)
    room = side - 3 - (high - low)  # a dot at an end takes the pixels around it
    placed = path - low + 1 + rng.uniform(size=room.shape) * room
    fits = (room >= 0).all(axis=(1, 2))
    cells: Cells = np.rint(placed[fits]).astype(np.int64)
    return cells


def _equally_far_pairs(first: Cells, second: Cells) -> list[tuple[Dots, Dots]]:
    """List ends of both curves, beside ends of one that are as far apart, up to a pixel."""
    along: list[Dots] = [(curve[0].tolist(), curve[-1].tolist()) for curve in (first, second)]
    across = list(itertools.product(along[0], along[1]))
    return [
        (apart, joined)
        for apart, joined in itertools.product(across, along)
        if abs(math.dist(*apart) - math.dist(*joined)) <= 1.0
    ]


def _draw(side: int, curves: Sequence[Cells], dots: Dots) -> Image:
    """Draw dashed curves, and dots of 3 x 3 pixels over them."""
    image = np.zeros((side, side), dtype=np.float32)
    for curve in curves:
        drawn = np.arange(len(curve)) % _PERIOD < _DASH
        drawn[-1] = True
        image[tuple(curve[drawn].T)] = _ON_CURVE
    for row, column in dots:
        image[row - 1 : row + 2, column - 1 : column + 2] = _ON_DOT
    return image


TASKS: dict[str, Callable[..., SequenceTask]] = {
    "digits": sequential_digits,
    "listops": list_ops,
    "pathfinder": pathfinder,
}
