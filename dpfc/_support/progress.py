"""How long work says where it stands: a bar on standard error, a call back, or nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from rich import progress as rich
from rich.console import Console

__all__ = ["Progress", "Report", "progress_bar", "reporting"]

Report = Callable[[int, int], object]


class Progress(NamedTuple):
    """Rows done of all rows, and a note to the user now and then.

    Attributes
    ----------
    report : callable
        Called with the rows done and the rows in all.
    note : callable
        Called with a sentence.
    """

    report: Report
    note: Callable[[str], object]


@contextmanager
def progress_bar(
    doing: str, total: int, *, done: int = 0, always: bool = True, stays: bool = False
) -> Iterator[Callable[..., None]]:
    """Show a bar; yields what updates it: `rich.progress.Progress.update` of its task.

    Parameters
    ----------
    doing : str
        Names the work, until it is updated.
    total, done : int
        Steps in all, and those that were done before.
    always : bool
        Show it even where standard error is no terminal.
    stays : bool
        Leave the last state on the screen.
    """
    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not (always or console.is_terminal)
    with rich.Progress(*columns, console=console, transient=not stays, disable=hidden) as bar:
        yield partial(bar.update, bar.add_task(doing, total=total, completed=done, speed=""))


@contextmanager
def reporting(
    progress: bool | Report | None, done: int, total: int, *, doing: str = "extracting"
) -> Iterator[Progress]:
    """Show a bar with rows a second and the time left, call back, or keep silent.

    Parameters
    ----------
    progress : bool, callable or None
        See `dpfc.features.extract`.
    done, total : int
        Rows that are there already, and rows in all.
    doing : str
        Names the work in the bar and in notes.
    """

    def warn(text: str) -> None:
        warnings.warn(f"{doing}: {text}.", RuntimeWarning, stacklevel=2)

    if callable(progress):
        yield Progress(progress, warn)
        return
    if progress is False or (progress is None and not Console(stderr=True).is_terminal):
        yield Progress(lambda done, total: None, warn)
        return
    with progress_bar(doing, total, done=done, stays=True) as update:
        began, first = time.monotonic(), done

        def show(done: int, total: int) -> None:
            speed = (done - first) / max(time.monotonic() - began, 1e-9)
            update(completed=done, total=total, speed=f"{speed:,.0f} rows/s")

        yield Progress(show, lambda text: update(description=f"{doing} ({text})"))
