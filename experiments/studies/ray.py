"""Runs of a sweep on Ray, on this machine or on a cluster that shares its files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from dpfc._support.packages import require
from dpfc.experiments.studies.worker import use_threads

__all__ = ["RayExecutor"]


class RayExecutor(Executor):
    """Hand calls to Ray, a task each.

    Parameters
    ----------
    address : str
        "local" starts Ray here; "auto" or an address joins a cluster.
    threads : int
        Of each task, which asks for as many cores.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    ConnectionError
        If there is no cluster at the address.
    """

    def __init__(self, address: str, threads: int):
        require("ray", "--ray", "ray")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        self._task = ray.remote(_call).options(num_cpus=threads, max_retries=0)
        self._threads = threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call; its future is of `concurrent.futures`."""
        future: Future[Any] = self._task.remote(self._threads, fn, args, kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave Ray; a cluster goes on without us."""
        self._ray.shutdown()


def _call(threads: int, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    use_threads(threads)
    return fn(*args, **kwargs)
