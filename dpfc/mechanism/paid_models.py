"""A model that is paid for is not lost: its room is taken before the spend, and it is saved first.

A command opens a `PaidModel` around a fit. The fit asks it for room, by `reserve_room`, once it
knows what it will need, and hands it, by `once_saved`, what is left to do when the model is on
disk: to complete the charge, and to forget the checkpoint. Without a `PaidModel`, a fit takes no
room, and does that at once.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Self

from dpfc._support.files import ReservedFile, remove_stale
from dpfc.exceptions import ModelFileError

__all__ = ["PaidModel", "linear_room", "model_room", "once_saved", "reserve_room"]

_HEADER_BYTES = 1 << 20
_open: ContextVar[PaidModel | None] = ContextVar("dpfc_paid_model", default=None)


def reserve_room(n_bytes: int) -> None:
    """Take a model's room on the disk; to be called before a spend.

    Raises
    ------
    ModelFileError
        If there is no such room; nothing was spent.
    """
    if (target := _open.get()) is not None:
        target.reserve(n_bytes)


def once_saved(action: Callable[[], None]) -> None:
    """Do something when the model is on disk, or now where nobody is going to save it."""
    if (target := _open.get()) is None:
        action()
    else:
        target.actions.append(action)


def model_room(n_numbers: int, n_classes: int, n_names: int = 0) -> int:
    """Bytes that are enough for a model file with so many numbers, classes and names."""
    return 8 * n_numbers + 256 * n_classes + 64 * n_names + _HEADER_BYTES


def linear_room(n_features: int, n_classes: int, *, mapped: bool) -> int:
    """Bytes that are enough for a linear model; a `mapped` one keeps what its rows go through."""
    numbers = (n_features + 4) * (n_classes + 1) + (n_features**2 if mapped else 0)
    return model_room(numbers, n_classes, n_features)


class PaidModel:
    """The file of a model that is about to be paid for.

    Parameters
    ----------
    path : Path
    replace : bool
        Whether a file of this name may be overwritten, also one that appears meanwhile.

    Attributes
    ----------
    actions : list of callable
        What is done once the model is on disk.
    """

    def __init__(self, path: Path, *, replace: bool):
        self.actions: list[Callable[[], None]] = []
        self._path = path
        self._replace = replace
        self._room: ReservedFile | None = None
        self._token: Token[PaidModel | None] | None = None
        remove_stale(path)

    def reserve(self, n_bytes: int) -> None:
        """Take the room; see `reserve_room`."""
        self._close()
        try:
            self._room = ReservedFile(self._path, n_bytes)
        except OSError as error:
            raise ModelFileError(
                f"there is no room for the model, {n_bytes:,} bytes, at {self._path}: "
                f"{error.strerror}. Nothing was spent."
            ) from error

    def save(self, data: bytes) -> None:
        """Write the model, and do what waits for that.

        Raises
        ------
        ModelFileError
            If it could not be saved under its name. It is saved under another one then, which
            the message tells; or nowhere, and what waits is not done.
        """
        try:
            self._write(data)
            problem = None
        except OSError as error:
            problem = f"cannot write the model to {self._path}: {error.strerror}."
            saved = _save_elsewhere(self._path, data)
            if saved is None:
                raise ModelFileError(f"{problem} No other place could be written to.") from error
            problem = f"{problem} It is not lost: it was saved as {saved}, and is paid for."
        for action in self.actions:
            action()
        if problem is not None:
            raise ModelFileError(problem)

    def _write(self, data: bytes) -> None:
        room = self._room or ReservedFile(self._path)
        with room:
            room.write(data)
            room.publish(replace=self._replace)

    def _close(self) -> None:
        if self._room is not None:
            self._room.close()
            self._room = None

    def __enter__(self) -> Self:
        self._token = _open.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _open.reset(self._token)
        self._close()


def _save_elsewhere(path: Path, data: bytes) -> Path | None:
    """Save beside the name, in the folder for temporary files, or where the process stands."""
    for place in _other_names(path):
        with suppress(OSError), ReservedFile(place) as file:
            file.write(data)
            file.publish(replace=False)
            return place
    return None


def _other_names(path: Path) -> Iterator[Path]:
    name = f"{path.stem[:100]}-{secrets.token_hex(4)}{path.suffix[:20]}"
    for folder in (path.parent, Path(tempfile.gettempdir()), Path.cwd(), Path.home()):
        yield folder.absolute() / name
