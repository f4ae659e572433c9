"""Test accuracy of dpfc with default parameters beside its peers at their best.

Run `python -m dpfc.experiments.benchmarks.accuracy`. Every method gets the same raw features,
δ = 1e-5, add or remove one row, and the seeds 0, 1, …. dpfc's classifiers are fitted as they
come. For a peer, a grid of settings is searched on the test rows at every ε (`peers.search`),
which flatters it: where five seeds of every setting are affordable, by the mean over all seeds;
otherwise by seed 0, and the best two settings then run on all seeds. What is affordable is
counted in floating-point operations, never in seconds, so that the same command tries the same
settings on every machine.

Finished runs are kept in the output folder as those of a study are. The same command again uses
what is there and goes on; runs of dpfc are made again when its source has changed, runs of peers
when `PEERS_REVISION` has.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from dpfc._support.files import write_whole
from dpfc.experiments.benchmarks.accuracy_table import (
    CEILING,
    SEARCH_SEED,
    accuracy_panels,
    make_results,
    to_markdown,
)
from dpfc.experiments.benchmarks.common import DELTA, load_caches
from dpfc.experiments.benchmarks.peers import PEERS, Peer, Rows, Setting, search
from dpfc.experiments.benchmarks.peers_opacus import OPACUS_PEERS
from dpfc.experiments.benchmarks.peers_paper import PAPER_PEERS
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import LABELS, make_estimator
from dpfc.experiments.pictures.study import budgets_grid, render_chart
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import DATA_SETS, NamedData, load_named
from dpfc.experiments.studies.runs import Rows as StudyRows
from dpfc.experiments.studies.runs import RunSpec
from dpfc.experiments.studies.store import RUNS, RunStore
from dpfc.experiments.studies.versions import code_version
from dpfc.experiments.studies.worker import run_head

__all__ = ["METHODS", "PEERS_REVISION", "main", "run_cells", "write_report"]

# Raise it when a peer's results change: its old runs then no longer count.
PEERS_REVISION = 2
# Floating-point operations for the search of one peer at one ε: 25 to 40 s on a core.
SEARCH_WORK = 1e12
# The first ε has no neighbour to start from.
_FIRST_FACTOR = 3.0
_FINALISTS = 2
_SEARCH_SEEDS = 5  # runs of a setting while settings are chosen, at most
_CEILING_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

_ALL_PEERS = {peer.name: peer for peer in (*PAPER_PEERS, *PEERS, *OPACUS_PEERS)}
_METHOD_LABELS = {
    **LABELS,
    **{name: peer.label for name, peer in _ALL_PEERS.items()},
    CEILING: "logistic regression, not private",
}
METHODS = tuple(_METHOD_LABELS)
_LEGEND = {label: label for name, label in _METHOD_LABELS.items() if name != CEILING}
_DEFAULT_METHODS = ",".join(method for method in METHODS if method != "newton")


class Job(NamedTuple):
    """What one command line asks for."""

    epsilons: Sequence[float]
    seeds: int
    methods: Sequence[str]


class _Bench:
    """Runs on one data set: looked up, or made and kept."""

    def __init__(self, named: NamedData, store: RunStore):
        self.name, self.data, self._digest = named
        self._store = store

    @cached_property
    def rows(self) -> Rows:
        """What peers see."""
        return Rows(self.data)

    def run(
        self, method: str, setting: Setting, epsilon: float, seed: int, make: Callable[[], float]
    ) -> float:
        """Accuracy of one run, from the file or from `make`."""
        source = f"peers {PEERS_REVISION}" if method in _ALL_PEERS else code_version()
        source = "scikit-learn" if method == CEILING else source
        spec = self._spec(method, setting, epsilon, seed, source)
        known = self._store.get(spec.key)
        if known is None:
            began = time.perf_counter()
            found = {"accuracy": make(), "seconds": time.perf_counter() - began}
            known = _head(spec) | found | {"status": "ok"}
            self._store.add(known)
        return float(known["accuracy"])

    def leave_out(self, peer: Peer, epsilon: float, reason: str) -> None:
        """Say why a peer does not run, now and in the report."""
        text = f"{peer.label} was left out: {reason}."
        print(f"{self.name}: {text}", file=sys.stderr)
        spec = self._spec(peer.name, {}, epsilon, 0, f"peers {PEERS_REVISION}")
        self._store.add(_head(spec) | {"status": "failed", "error": text})

    def _spec(
        self, method: str, setting: Setting, epsilon: float, seed: int, source: str
    ) -> RunSpec:
        rows = StudyRows(self.name, None, None, None, None, self._digest)
        label, versions = _METHOD_LABELS[method], {"rows": self._digest}
        return RunSpec(rows, method, label, epsilon, DELTA, seed, setting, source, versions)


def _head(spec: RunSpec) -> dict[str, Any]:
    # To the microsecond: of two runs, that which ended last counts.
    return run_head("accuracy", spec) | {"finished": datetime.now(UTC).isoformat()}


def run_cells(sets: Sequence[NamedData], job: Job, store: RunStore) -> Iterator[tuple[str, float]]:
    """Run what is missing, and yield words and mean accuracy as each method and ε is done."""
    for named in sets:
        bench = _Bench(named, store)
        for method in job.methods:
            for epsilon, accuracy in _run_method(bench, method, job):
                budget = "" if epsilon == math.inf else f", ε = {epsilon:g}"
                yield f"{named.name}, {_METHOD_LABELS[method]}{budget}", accuracy


def _run_method(bench: _Bench, method: str, job: Job) -> Iterator[tuple[float, float]]:
    if method == CEILING:
        yield math.inf, bench.run(CEILING, {}, math.inf, 0, lambda: _ceiling(bench.data))
    elif method in _ALL_PEERS:
        yield from _run_peer(bench, _ALL_PEERS[method], job)
    else:
        for epsilon in job.epsilons:
            scores = [_run_ours(bench, method, epsilon, seed) for seed in range(job.seeds)]
            yield epsilon, sum(scores) / job.seeds


def _ceiling(data: Data) -> float:
    from dpfc.experiments.ceiling import logistic_ceiling

    return logistic_ceiling(data.X, data.y, data.X_test, data.y_test, _CEILING_STRENGTHS)[1]


def _run_ours(bench: _Bench, method: str, epsilon: float, seed: int) -> float:
    def make() -> float:
        from dpfc import PrivacyWarning

        data = bench.data
        model = make_estimator(
            method,
            epsilon=epsilon,
            delta=DELTA,
            classes=range(data.n_classes),
            random_state=seed,
        )
        with warnings.catch_warnings():  # the table says that its runs are seeded
            warnings.simplefilter("ignore", PrivacyWarning)
            model.fit(data.X, data.y)
        return float(model.score(data.X_test, data.y_test))

    return bench.run(method, {}, epsilon, seed, make)


def _run_peer(bench: _Bench, peer: Peer, job: Job) -> Iterator[tuple[float, float]]:
    """Search settings at every ε, from the best ones of the ε before."""
    if (reason := peer.left_out(bench.rows)) is not None:
        bench.leave_out(peer, job.epsilons[0], reason)
        return
    last: Setting | None = None
    for epsilon in job.epsilons:

        def mean(setting: Setting, seeds: Sequence[int], epsilon: float = epsilon) -> float:
            runs = (
                bench.run(
                    peer.name,
                    setting,
                    epsilon,
                    seed,
                    partial(peer.run, bench.rows, setting, epsilon, seed),
                )
                for seed in seeds
            )
            return sum(runs) / len(seeds)

        last, accuracy = _best(bench.rows, peer, mean, job.seeds, last)
        yield epsilon, accuracy


def _best(
    rows: Rows,
    peer: Peer,
    mean: Callable[[Setting, Sequence[int]], float],
    seeds: int,
    last: Setting | None,
) -> tuple[Setting, float]:
    """Give the best setting at one ε and its mean accuracy with noise that did not choose it."""
    everyone = range(SEARCH_SEED, SEARCH_SEED + min(seeds, _SEARCH_SEEDS))
    dearest = max(peer.work(rows, start) for start in peer.starts)
    all_seeds = peer.max_settings * len(everyone) * dearest <= SEARCH_WORK
    screen = everyone if all_seeds else everyone[:1]
    factor = _FIRST_FACTOR if last is None else 1.0
    starts = peer.starts if last is None else (last, *peer.starts)
    budget = left = factor * SEARCH_WORK
    places = factor * peer.max_settings

    def afford(setting: Setting) -> bool:
        nonlocal left, places
        cost = len(screen) * peer.work(rows, setting)
        # The first one runs whatever it costs: there has to be a best one.
        if (cost > left and left < budget) or places < 1:
            return False
        left, places = left - cost, places - 1
        return True

    tried = search(peer, starts, lambda setting: mean(setting, screen), afford)
    best = max(tried[:_FINALISTS], key=lambda setting: mean(setting, everyone))
    return best, mean(best, range(seeds))


def write_report(store: RunStore, out: Path) -> list[Path]:
    """Write table and plots of all runs that are kept; returns their paths."""
    records = store.records()
    results = make_results(records)
    notes = [f"{r['dataset']}: {r['error']}" for r in records if r["status"] == "failed"]
    peers = tuple(name for name, peer in _ALL_PEERS.items() if peer.published)
    variations = tuple(name for name in _ALL_PEERS if name not in peers)
    files: dict[str, bytes | str] = {
        "table.md": to_markdown(results, _METHOD_LABELS, peers, notes, variations),
    }
    if panels := accuracy_panels(results, _METHOD_LABELS):
        chart = budgets_grid(panels, _LEGEND, [DELTA])
        files |= {f"accuracy.{kind}": render_chart(chart, kind) for kind in ("png", "svg")}
    for name, content in files.items():
        write_whole(out / name, content)
    return [out / name for name in files]


def _command(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="D,D,…",
            help=f"Of {', '.join(DATA_SETS)}. By default all of them; none where --cache is given.",
        ),
    ] = None,
    caches: Annotated[
        list[str] | None,
        typer.Option(
            "--cache",
            metavar="NAME=TRAIN:TEST",
            help="Feature caches of `dpfc extract` to run on as well; may be repeated.",
        ),
    ] = None,
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")
    ] = "0.05,0.1,0.25,0.5,1,2,4,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=1)] = 5,
    methods: Annotated[
        str, typer.Option(metavar="M,M,…", help=f"Of {', '.join(METHODS)}.")
    ] = _DEFAULT_METHODS,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for runs, table and plots.")
    ] = Path("runs/accuracy"),
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write table and plots again.")
    ] = False,
) -> None:
    """Test accuracy of dpfc with defaults beside its peers, tuned on the test rows.

    Stopped with Ctrl-C, it keeps what is finished; the same command goes on from there.

    Example, a minute: python -m dpfc.experiments.benchmarks.accuracy --data digits
    --epsilons 0.5,2 --seeds 2 --methods fc,dp-raft,prototypes,ceiling
    """
    job = Job(parse_numbers(epsilons, "--epsilons"), seeds, methods.split(","))
    unknown = [name for name in job.methods if name not in METHODS]
    if unknown:
        raise ValueError(f"--methods takes {', '.join(METHODS)}, got {unknown[0]!r}.")
    if report_only and not (out / RUNS).exists():
        raise ValueError(f"--report-only needs runs, and {out / RUNS} does not exist.")
    if not report_only:
        sets = _load(data, caches or ())
        out.mkdir(parents=True, exist_ok=True)
    store = RunStore(out)
    if not report_only:
        _run_with_progress(sets, job, store)
    print(f"wrote {', '.join(map(str, write_report(store, out)))}")


def _load(data: str | None, caches: Sequence[str]) -> list[NamedData]:
    everything = () if caches else tuple(DATA_SETS)
    names = everything if data is None else tuple(data.split(","))
    return [*load_named(names), *load_caches(caches)]


def _run_with_progress(sets: Sequence[NamedData], job: Job, store: RunStore) -> None:
    """One line a cell on standard error, with a guess at the time that is left."""
    cells = [1 if method == CEILING else len(job.epsilons) for method in job.methods]
    total, began = len(sets) * sum(cells), time.perf_counter()
    for done, (words, accuracy) in enumerate(run_cells(sets, job, store), start=1):
        left = (time.perf_counter() - began) / done * (total - done)
        left_text = f"{left / 60.0:.0f} min" if left > 90.0 else f"{left:.0f} s"
        print(
            f"[{done}/{total}] {words}: {100 * accuracy:.2f}  (about {left_text} left)",
            file=sys.stderr,
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
