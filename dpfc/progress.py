"""A progress bar over private releases, for long fits on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["release_progress"]


@contextmanager
def release_progress(n_releases: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error; yields what to call with each release's name."""
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("private releases", total=n_releases)

        def advance(name: str) -> None:
            progress.update(task, advance=1, description=f"released {name}")

        yield advance
