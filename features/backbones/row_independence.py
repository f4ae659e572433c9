"""A row's features depend on that row alone: looked at before the first private row, always.

A sum over private rows has a known sensitivity only if removing a row changes no other. A
network that scales, normalises or attends over its batch breaks that. So each backbone embeds
made-up rows beside different neighbours first; one that mixes rows then gets one row at a time,
and one that remembers rows is refused.
"""

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpfc._support.callers import warn_caller
from dpfc.features.backbones.made_up_rows import Batch, MadeUpRows, largest_move
from dpfc.features.exceptions import OutOfDeviceMemoryError

__all__ = ["RowCheck", "check_rows", "independent_rows", "one_by_one"]

# Rows of the smallest full batch that is looked at, and of the largest: no pass has more.
_FEW_ROWS, _MANY_ROWS = 8, 1024

B = TypeVar("B")
P = ParamSpec("P")
Embed = Callable[[Batch], NDArray[np.float32]]
Method = Callable[Concatenate[B, P], NDArray[np.float32]]


@dataclass(frozen=True)
class RowCheck:
    """How the rows of a backbone go through it, as the check found.

    Attributes
    ----------
    alone : bool
        Whether each goes by itself.
    n_rows : int
        Rows of the largest pass that was looked at, or was to be where the device's memory is
        short; none has more.
    """

    alone: bool
    n_rows: int

    def describe(self) -> dict[str, str]:
        """For the manifest: how rows go, and that this was looked at."""
        return {"rows": "one by one" if self.alone else "in batches", "checked": "made-up rows"}


@dataclass
class _State:
    """What is known of one method of one object."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    known: RowCheck | None = None


_LOCK = threading.Lock()
# By the object's identity: one that compares by value has no hash. The weak reference tells when
# an identity is free again.
_STATES: dict[int, tuple[Any, dict[object, _State]]] = {}
# The methods that look at themselves, and what they were made of.
_GUARDED: dict[object, tuple[Any, bool]] = {}


def independent_rows(*, any_code: bool) -> Callable[[Method[B, P]], Method[B, P]]:
    """Wrap a backbone's `embed`: one row at a time if its rows would depend on each other.

    The check runs once a backbone, before its first batch, on made-up inputs; a `UserWarning`
    says what it found.

    Parameters
    ----------
    any_code : bool
        Whether the network may be of anybody's code, so that it may hold conditions on a batch
        that no made-up row meets.
    """

    def guard(embed: Method[B, P]) -> Method[B, P]:
        def checked(self: B, /, *args: P.args, **kwargs: P.kwargs) -> NDArray[np.float32]:
            batch: Any = args[0] if args else kwargs["batch"]
            raw: Any = embed
            if len(batch) == 0:  # refused there
                return embed(self, *args, **kwargs)
            check = check_rows(self, method=checked)
            if len(batch) <= (1 if check.alone else check.n_rows):
                return embed(self, *args, **kwargs)
            return _in_parts(lambda part: raw(self, part), batch, check)

        update_wrapper(checked, embed)
        _GUARDED[checked] = (embed, any_code)
        return checked

    return guard


def check_rows(backbone: Any, n_rows: int = 0, *, method: object = None) -> RowCheck:
    """Find out how rows may go through a backbone, of whatever origin; made-up rows only.

    Parameters
    ----------
    backbone : Backbone
    n_rows : int
        Rows that a pass is to have; at least its `best_batch_size` are looked at.
    method : callable, optional
        The guarded method to look at, which a subclass may have put another in the place of;
        the object's own `embed` by default.

    Returns
    -------
    RowCheck
        Kept for the object as long as it lives.

    Raises
    ------
    ValueError
        If what a row becomes hangs on the passes before it, or the features have another shape
        than (n, n_features).
    """
    key = method or getattr(backbone.embed, "__func__", None)
    if not (isinstance(key, FunctionType) and key in _GUARDED):
        key = None
    n_rows = min(max(n_rows, _FEW_ROWS, int(backbone.best_batch_size)), _MANY_ROWS)
    state = _state(backbone, key)
    with state.lock:
        if state.known is None or not (state.known.alone or state.known.n_rows >= n_rows):
            raw, any_code = _GUARDED.get(key, (None, True))
            embed = backbone.embed if raw is None else partial(raw, backbone)
            state.known = _look(backbone, embed, n_rows, any_code)
        return state.known


def one_by_one(backbone: Any, batch: Batch, check: RowCheck) -> NDArray[np.float32]:
    """Features, shape (n, n_features), of n rows, each by itself where it must be."""
    return _in_parts(backbone.embed, batch, check)


def _in_parts(embed: Embed, batch: Batch, check: RowCheck) -> NDArray[np.float32]:
    step = 1 if check.alone else check.n_rows
    parts = [embed(batch[i : i + step]) for i in range(0, len(batch), step)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _state(backbone: Any, key: object) -> _State:
    with _LOCK:
        place = id(backbone)
        states = _STATES.get(place, (None, {}))[1]
        if place not in _STATES:
            try:
                reference = weakref.ref(backbone, lambda _: _STATES.pop(place, None))
            except TypeError:  # it has slots, and no place for one: looked at each time
                return _State()
            _STATES[place] = (reference, states)
        return states.setdefault(key, _State())


def _look(backbone: Any, embed: Embed, n_rows: int, any_code: bool) -> RowCheck:
    rows = MadeUpRows.of(backbone)
    compute_dtype = str(backbone.preprocessing.get("compute_dtype", "float32"))
    stacked = backbone.modality == "image"
    wanted = n_rows
    with _looking(any_code) as found:
        while n_rows > 1:
            try:
                moved, afterwards = largest_move(
                    _of_shape(backbone, embed), rows, n_rows, stacked, compute_dtype
                )
                break
            except OutOfDeviceMemoryError:
                n_rows //= 2
        else:  # one row has room, if any: they go alone in any case
            return RowCheck(alone=True, n_rows=1)
    if afterwards is not None:
        raise ValueError(
            f"{backbone.spec} gives one made-up row other features after other rows went through "
            f"it (by {afterwards:.2g} of their length): it keeps something of the rows, or draws "
            "at random. Take a network that does neither."
        )
    reason = _reason(backbone, moved, bool(found))
    if reason:
        warn_caller(
            f"{backbone.spec} {reason}. Rows go through it one by one, so that removing one "
            "changes no other; that is slower.",
            UserWarning,
        )
    return RowCheck(alone=bool(reason), n_rows=wanted)


def _reason(backbone: Any, moved: float | None, reads: bool) -> str:
    """Why rows cannot go in batches; empty if they can."""
    if moved is not None:
        return (
            "mixes the rows of a batch: a made-up row's features move by "
            f"{moved:.2g} of their length with the rows beside it"
        )
    operators = getattr(backbone, "mixing_operators", ())
    if operators:
        return f"may mix the rows of a batch: {', '.join(operators)} in it looks at all of them"
    if reads:
        return (
            "may mix the rows of a batch: it reads numbers out of tensors, as a condition on a "
            "whole batch does"
        )
    return ""


def _looking(any_code: bool) -> AbstractContextManager[list[str] | None]:
    """See what operations tell a condition, where there may be some of PyTorch's."""
    if not any_code or "torch" not in sys.modules:
        return nullcontext()
    from dpfc._support.value_reads import looking_for_reads

    return looking_for_reads(memory=False)


def _of_shape(backbone: Any, embed: Embed) -> Embed:
    def checked(batch: Batch) -> NDArray[np.float32]:
        features = np.asarray(embed(batch))
        if features.shape != (len(batch), backbone.n_features):
            raise ValueError(
                f"{backbone.spec} must return features of shape (n, {backbone.n_features}), got "
                f"{features.shape} for {len(batch)} made-up rows."
            )
        return features

    return checked
