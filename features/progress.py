"""How an extraction or an import tells where it stands."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "reporting"]

Report = Callable[[int, int], object]
Note = Callable[[str], object]


class Progress:
    """Rows done of all rows, and a note to the user now and then.

    Parameters
    ----------
    report : callable
        Called with the rows done and the rows in all.
    note : callable
        Called with a sentence.
    """

    def __init__(self, report: Report, note: Note) -> None:
        self.report = report
        self.note = note


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
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False or (progress is None and not console.is_terminal):
        yield Progress(lambda done, total: None, warn)
        return
    with _bar(console) as bar:
        task = bar.add_task(doing, total=total, completed=done, speed="")
        began, first = time.monotonic(), done

        def show(done: int, total: int) -> None:
            speed = (done - first) / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=done, total=total, speed=f"{speed:,.0f} rows/s")

        yield Progress(show, lambda text: bar.update(task, description=f"{doing} ({text})"))


def _bar(console: Any) -> Any:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(),
        console=console,
    )
