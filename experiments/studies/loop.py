"""Running a study: what is missing, side by side, and nothing lost whatever stops it."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from dpfc.experiments.studies.runs import RunSpec
from dpfc.experiments.studies.sampling import Source
from dpfc.experiments.studies.store import RunStore
from dpfc.experiments.studies.worker import failed_record, run_one, start_worker

__all__ = ["Outcome", "process_pool", "run_sweep"]

_DIED = "its process died, perhaps for want of memory"


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes
    ----------
    runs : list of RunSpec
        All that belong to the study as far as it came, in its order.
    new, failed : int
        Runs that were made now; runs whose record is a failure.
    interrupted : bool
    """

    runs: list[RunSpec]
    new: int
    failed: int
    interrupted: bool


class _Pool(ProcessPoolExecutor):
    """Processes that can be made to stop; Python 3.14 has this method itself."""

    def kill_workers(self) -> None:
        """End what runs; Python waits for it at its own end otherwise."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(cancel_futures=True)


def process_pool(workers: int, threads: int) -> ProcessPoolExecutor:
    """Worker processes with so many threads each.

    They are started afresh, not forked: a fork of a process that has run threads may hang.
    """
    return _Pool(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(threads,),
    )


def run_sweep(
    study: str,
    sources: list[Source],
    store: RunStore,
    make_executor: Callable[[], Executor],
    *,
    workers: int,
    retry_failed: bool = False,
    report: Callable[[str, RunSpec, dict[str, Any] | None], None] = lambda *_: None,
) -> Outcome:
    """Run all that is missing.

    Ctrl-C starts nothing more and waits for what runs; a second one ends that too, and raises
    KeyboardInterrupt. Every finished run is on disk before the next one starts, and no worker
    is left at the end.

    Parameters
    ----------
    study : str
        Its name, for the records.
    sources : list of Source
    store : RunStore
    make_executor : callable
        Gives the executor; once more when its processes have died.
    workers : int
        Runs at a time.
    retry_failed : bool
        Run again what has failed before.
    report : callable
        Called with "known", "start" or "end", the run, and its record or None.
    """
    loop = _Loop(study, sources, store, make_executor, workers, retry_failed, report)
    try:
        interrupted = loop.run()
        loop.close(wait=True)  # here, where Ctrl-C is heard, and not when Python ends
    except BaseException:
        loop.kill()
        raise
    runs = list({run.key: run for source in sources for run in source.runs}.values())
    records = [store.get(run.key) for run in runs]
    failed = sum(record is not None and record["status"] == "failed" for record in records)
    return Outcome(runs, loop.new, failed, interrupted)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, also before they can say so themselves.

    They inherit what is blocked. A signal that comes meanwhile waits for this process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Loop:
    """Runs that wait, and runs that run."""

    def __init__(
        self,
        study: str,
        sources: list[Source],
        store: RunStore,
        make_executor: Callable[[], Executor],
        workers: int,
        retry_failed: bool,
        report: Callable[[str, RunSpec, dict[str, Any] | None], None],
    ):
        self._run_one = partial(run_one, study)
        self._study, self._sources, self._store = study, sources, store
        self._make_executor, self._workers = make_executor, workers
        self._retry_failed, self._report = retry_failed, report
        self._executor: Executor | None = None
        self._waiting: deque[RunSpec] = deque()
        # Runs that were there when a pool died, one of which killed it: each runs alone.
        self._suspects: deque[RunSpec] = deque()
        self._suspected: set[str] = set()
        self._running: dict[Future[dict[str, Any]], RunSpec] = {}
        self._done: set[str] = set()
        self.new = 0

    def run(self) -> bool:
        """Work until nothing is left; returns whether Ctrl-C ended it."""
        try:
            self._collect()
            while self._waiting or self._suspects or self._running:
                self._fill()
                self._finish_some()
                self._collect()
        except KeyboardInterrupt:
            while self._running:
                self._finish_some()
            return True
        return False

    def close(self, *, wait: bool = False) -> None:
        """Let the workers go; or see them off."""
        if self._executor is not None:
            self._executor.shutdown(wait=wait, cancel_futures=True)

    def kill(self) -> None:
        """End the workers with what they do."""
        if isinstance(self._executor, _Pool):
            self._executor.kill_workers()
        else:
            self.close()

    def _collect(self) -> None:
        """Ask the sources until they have no more; what is known is told at once."""
        asked = True
        while asked:
            asked = False
            for source in self._sources:
                for spec in source.ready():
                    asked = True
                    record = self._store.get(spec.key)
                    if record is not None and self._counts(record):
                        self._report("known", spec, record)
                        self._tell(spec, record)
                    elif spec.key not in self._done:
                        self._done.add(spec.key)
                        self._waiting.append(spec)

    def _counts(self, record: dict[str, Any]) -> bool:
        return record["status"] == "ok" or record["key"] in self._done or not self._retry_failed

    def _tell(self, spec: RunSpec, record: dict[str, Any]) -> None:
        for source in self._sources:
            source.tell(spec.key, record.get("accuracy"))

    def _fill(self) -> None:
        """Start as many runs as there is room for."""
        while (queue := self._suspects or self._waiting) and len(self._running) < self._room():
            if self._executor is None:
                self._executor = self._make_executor()
            try:
                with _deaf_children():
                    future = self._executor.submit(self._run_one, queue[0])
            except BrokenProcessPool:  # it died just now: those that run will say so
                if not self._running:
                    self.close()
                    self._executor = None
                return
            spec = queue.popleft()
            self._running[future] = spec
            self._report("start", spec, None)

    def _room(self) -> int:
        alone = self._suspects or any(s.key in self._suspected for s in self._running.values())
        return 1 if alone else self._workers

    def _finish_some(self) -> None:
        """Wait for a run to end, and keep what it found."""
        ended, _ = wait(self._running, return_when=FIRST_COMPLETED)
        died = [future for future in ended if isinstance(future.exception(), BrokenProcessPool)]
        for future in ended:
            if future not in died:
                self._keep(self._running.pop(future), future)
        if died:
            self._bury()

    def _keep(self, spec: RunSpec, future: Future[dict[str, Any]]) -> None:
        error = future.exception()
        if error is None:
            record = future.result()
        else:
            record = failed_record(self._study, spec, f"internal error ({type(error).__name__})")
        self._record(spec, record)

    def _record(self, spec: RunSpec, record: dict[str, Any]) -> None:
        self._store.add(record)
        self.new += 1
        self._report("end", spec, record)
        self._tell(spec, record)

    def _bury(self) -> None:
        """A dead pool takes all its runs along. One that was alone is guilty."""
        lost = list(self._running.values())
        self._running.clear()
        self.close()
        self._executor = None
        if len(lost) == 1:
            self._record(lost[0], failed_record(self._study, lost[0], _DIED))
        else:
            self._suspects.extend(lost)
            self._suspected |= {spec.key for spec in lost}
