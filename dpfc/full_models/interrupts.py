"""Ctrl-C and requests to end between two steps, so that a checkpoint holds whole steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["deferred_signals"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def deferred_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Hold a first Ctrl-C, SIGTERM or SIGHUP back; a second one does at once what it always does.

    What is ignored, as SIGHUP under nohup, stays ignored.

    Yields
    ------
    callable
        Which one came, if any. Outside the main thread, where Python gives signals to nobody, it
        never says so.
    """
    came: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def hold(number: int, _: object) -> None:
        came.append(signal.Signals(number))
        _restore(before)

    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            if (number := getattr(signal, name, None)) is None:
                continue
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: it was not set from Python
                before[number] = handler
        for number in before:
            signal.signal(number, hold)
    try:
        yield lambda: came[0] if came else None
    finally:
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
