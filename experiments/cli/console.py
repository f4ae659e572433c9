"""How a command talks: one clean line an error or warning, strict JSON, exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any, Literal

import typer

from dpfc._support.words import counted, shown, strict
from dpfc.experiments.cli.spelling import flags_of, in_flags

__all__ = [
    "print_json",
    "print_table",
    "rounded_safely",
    "run_guarded",
    "sized",
    "to_json",
]

_INTERRUPTED = 130  # what shells use for Ctrl-C


class Ended(BaseException):
    """SIGTERM or SIGHUP came; like Ctrl-C, it lets every block clean up on its way."""

    def __init__(self, number: int):
        self.code = 128 + number  # what shells say of a process that a signal ended
        super().__init__(f"ended by {signal.Signals(number).name}.")


# Weights that diverged raise a FloatingPointError.
_IN_OUR_WORDS = (ValueError, OSError, ImportError, RuntimeError, FloatingPointError)
# Columns; more than any row of a table takes.
_WIDEST = 2000
# Characters; more than any message of ours takes.
_LONGEST = 3000


def run_guarded(
    run: Callable[[list[str]], object],
    argv: Sequence[str] | None = None,
    program: typer.Typer | None = None,
) -> int:
    """Run a command line, and turn what goes wrong into one line on standard error.

    Parameters
    ----------
    run : callable
        Takes the arguments without the program's name. An integer that it returns is the
        exit code.
    argv : sequence of str, optional
        `sys.argv` without the program's name by default. ``--debug``, anywhere in it, or the
        environment's ``DPFC_DEBUG=1`` lets a traceback through.
    program : typer.Typer, optional
        What is run: its options take the place of Python's parameters in messages.

    Returns
    -------
    int
        Exit code: 0; 1 for a failure, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM, 129 for
        SIGHUP.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("DPFC_DEBUG") == "1"
    arguments = [argument for argument in arguments if argument != "--debug"]
    # OpenMP threads that spin while they wait make small matrix products on a busy machine
    # ten times slower. It is read when PyTorch is loaded, which is later than here.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

    def spelled(message: str) -> str:
        if program is None:
            return message
        return in_flags(message, flags_of(typer.main.get_command(program), arguments))

    with _clean_warnings(spelled), _ended_by_exception():
        try:
            code = run(arguments)
            if code == _INTERRUPTED:  # Typer swallows the exception
                raise KeyboardInterrupt
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`head`) has gone. Python would complain again when it flushes at exit,
            # and threads of libraries that read ahead may abort there. What was to be kept is on
            # disk already.
            os._exit(1)
        except (Exception, KeyboardInterrupt, Ended) as error:
            if debug:
                traceback.print_exc()
            message, code = _explain(error)
            _print_line("Error", spelled(message))
    return code if isinstance(code, int) else 0


def run_command(command: Callable[..., object], argv: Sequence[str] | None = None) -> int:
    """Run a function with Typer's annotations as a command line of its own, by `run_guarded`."""
    app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
    app.command()(command)
    return run_guarded(lambda arguments: app(arguments, standalone_mode=False), argv, app)


def _explain(error: BaseException) -> tuple[str, int]:
    """Words for an exception, and the exit code."""
    if isinstance(error, Ended):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted.", _INTERRUPTED
    # Typer's own, whose class has a public name from 0.28 on.
    if (words := getattr(error, "format_message", None)) is not None:
        return f"{words().replace('Value error, ', '')} See --help.", getattr(error, "exit_code", 2)
    if isinstance(error, MemoryError):
        return "out of memory.", 1
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}.", 1
    if isinstance(error, _IN_OUR_WORDS) and str(error):
        return str(error), 1
    # The text of an error that nobody foresaw may hold anything, a private value as well.
    return f"internal error ({type(error).__name__}); --debug shows where.", 1


def _print_line(kind: str, message: str) -> None:
    line = shown(message)
    if len(line) > _LONGEST:  # a file's own value, quoted; what to do stands at the end
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(f"{kind}: {line}", file=sys.stderr)


def sized(n_bytes: int) -> str:
    """Write a size in the largest unit of which there is one: never "0.0 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return counted(n_bytes, "byte")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> None:
    """Print a table whose texts are shown as they are, not read as Rich's markup.

    Parameters
    ----------
    headings : sequence of str
    rows : iterable of sequence of str
    words : int, default=1
        So many columns, from the left, are words; the others are numbers, to the right.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        justify: Literal["left", "right"] = "left" if place < words else "right"
        table.add_column(shown(heading), overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*map(shown, row))
    # A file or a pipe has no width, and a record must not be cut.
    width = None if sys.stdout.isatty() else _WIDEST
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Ended`, once; a second one ends the process at once.

    What is ignored, as SIGHUP under nohup, stays ignored; so does what a caller handles.
    """

    def end(number: int, _: object) -> None:
        for taken in before:
            signal.signal(taken, signal.SIG_DFL)
        raise Ended(number)

    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    mine = threading.current_thread() is threading.main_thread()
    before = [n for n in numbers if mine and n and signal.getsignal(n) == signal.SIG_DFL]
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _clean_warnings(spelled: Callable[[str], str]) -> Iterator[None]:
    """Show warnings that are meant for users, one line each, and no others."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        _print_line("Warning", spelled(str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("default", category)
        warnings.showwarning = show
        yield


def print_json(report: Mapping[str, Any]) -> None:
    """Print one strictly valid JSON object on standard output.

    Raises
    ------
    ValueError
        If the report holds NaN.
    """
    print(to_json(report))


def to_json(report: Mapping[str, Any]) -> str:
    """Give one strictly valid JSON object.

    Raises
    ------
    ValueError
        If the report holds NaN.
    """
    return json.dumps(strict(report), indent=2, allow_nan=False)


def rounded_safely(value: float, *, up: bool) -> str:
    """Six digits of a number that people copy: up or down, whichever spends no more."""
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return f"{float(Context(prec=6, rounding=rounding).create_decimal(value)):.6g}"
