"""`dpfc sweep` and `dpfc results`: run a study that one YAML file describes; show what it found."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc._support.files import write_whole
from dpfc._support.words import counted, shown
from dpfc.experiments.cli.console import print_json, print_table, rounded_safely, to_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import Force, Json, old_spelling

if TYPE_CHECKING:
    from dpfc.experiments.studies.config import StudyConfig
    from dpfc.experiments.studies.loop import Outcome
    from dpfc.experiments.studies.plan import DataCost, SweepPlan
    from dpfc.experiments.studies.runs import RunSpec
    from dpfc.experiments.studies.sampling import Source
    from dpfc.experiments.studies.store import RunStore

__all__ = [
    "ConfigPath",
    "OldTo",
    "Overrides",
    "StudyFolder",
    "find_config",
    "results",
    "study_and_out",
    "study_files",
    "study_folder",
    "sweep",
]

_SOME_FAILED, _INTERRUPTED = 1, 130

Format = Literal["table", "csv", "json", "latex"]

ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file of the study, or the name of a ready one: digits, losses, accountants, "
        "ablation, few-shot, step-size, text, full-model, cifar10, cifar100, imagenet.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]…",
        help="Set a value otherwise than the file does, such as seeds=2 or epsilons=[0.5,1].",
    ),
]
# Of commands that read what a sweep wrote: their --out is what they write themselves.
StudyFolder = Annotated[
    Path | None,
    typer.Option("--study", metavar="DIR", help="Folder of the study; runs/NAME by default."),
]
OldTo = Annotated[Path | None, typer.Option("--to", hidden=True)]


def sweep(
    config: ConfigPath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the study; runs/NAME by default."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Runs at a time; the cores by default."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Threads of each run; networks may differ by it.",
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on Ray: 'local' starts it here, 'auto' or an address takes a cluster.",
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Log runs to this MLflow server, database or folder."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and what they cost; run nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what has failed before.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a study: data sets × backbones × methods × ε × parameters × seeds.

    Stopped by Ctrl-C or killed, the same command goes on with what is missing. A run that
    fails is recorded, and does not stop the others. Results: one Parquet table in the study's
    folder; see `dpfc results` and `dpfc report sweep`.

    Exit codes: 0 all runs are there, 1 some failed, 2 wrong usage, 130 interrupted.

    Example: dpfc sweep study.yaml seeds=2 --dry-run
    """
    from dpfc.experiments.studies.config import read_study

    study = read_study(find_config(config), overrides or ())
    folder = study_folder(study, out)
    if dry_run:
        _show_plan(study, folder, workers or _cores(), json)
        return
    from dpfc.experiments.studies.plan import study_sources
    from dpfc.experiments.studies.store import RunStore

    sources = study_sources(study, folder)
    store = RunStore(folder)
    outcome = _run(study, sources, store, workers or _cores(), threads, ray, retry_failed)
    table = store.write_table(study.name, outcome.runs)
    if mlflow is not None:
        from dpfc.experiments.studies.mlflow import log_runs

        log_runs(mlflow, study.name, filter(None, (store.get(run.key) for run in outcome.runs)))
    report = {
        "command": "sweep",
        "study": study.name,
        "results": str(table),
        "runs": len(outcome.runs),
        "new": outcome.new,
        "failed": outcome.failed,
        "interrupted": outcome.interrupted,
    }
    if json:
        print_json(report)
    else:
        print(_words(report, config, out))
    if outcome.interrupted or outcome.failed:
        raise typer.Exit(_INTERRUPTED if outcome.interrupted else _SOME_FAILED)


def results(
    config: ConfigPath,
    overrides: Overrides = None,
    format: Annotated[  # noqa: A002
        Format,
        typer.Option(
            help="table and latex: mean ± standard error over seeds, one column an ε. csv and "
            "json: one line or object a setting, accuracies in [0, 1]."
        ),
    ] = "table",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only runs with this data set, label, epsilon, seed, … or parameter; values may "
            "be joined by |; may be repeated.",
        ),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="Of several settings of a method, only the best at each ε."),
    ] = False,
    across: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What goes across in table and latex: epsilon, dataset, label or a parameter.",
        ),
    ] = "epsilon",
    folder: StudyFolder = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write; standard output without it."),
    ] = None,
    to: OldTo = None,
    force: Force = False,
) -> None:
    """Show what a sweep found: test accuracy, mean ± standard error over seeds.

    Failed runs are left out and counted. The best of several settings is chosen by test
    accuracy, which costs budget where the rows are private.

    Example: dpfc results study.yaml --where label=DP-FC --format csv
    """
    from dpfc.experiments.studies import table as tables
    from dpfc.experiments.studies.config import read_study

    folder, out = study_and_out(folder, out, to)
    path = find_config(config)
    study = read_study(path, overrides or ())
    folder = study_folder(study, folder)
    if out is not None:
        check_writable(out, reads=(path, *study_files(folder)), force=force)
    table = tables.load_results(folder)
    rows = tables.filter_rows(table.to_pylist(), where or ())
    groups = tables.group_rows(rows)
    groups = tables.best_settings(groups) if best else groups
    failed = sum(row["status"] == "failed" for row in rows)
    match format:
        case "json":
            found = [group._asdict() for group in groups]
            text = to_json(
                {"command": "results", "study": study.name, "failed": failed, "results": found}
            )
        case "csv":
            text = tables.to_csv(groups)
        case "latex":
            text = tables.to_latex(groups, across)
        case _:
            left_out = f"\n\n{counted(failed, 'failed run')} left out." if failed else ""
            text = tables.to_text(groups, across) + left_out
    if out is None:
        print(text.rstrip("\n"))
    else:
        write_whole(out, text.rstrip("\n") + "\n")
        print(out)


def find_config(config: Path) -> Path:
    """Give a file as it is, and the file of a ready study for its name."""
    ready = Path(__file__).parents[1] / "configs" / f"{config}.yaml"
    if config.exists() or config.suffix in (".yaml", ".yml") or not ready.exists():
        return config
    return ready


def study_and_out(
    study: Path | None, out: Path | None, to: Path | None
) -> tuple[Path | None, Path | None]:
    """Folder of a study and the file to write, by their old names too: --out, and --to."""
    if out is not None and out.is_dir():
        study, out = old_spelling(study, out, now="--study", before="--out with a folder"), None
    return study, old_spelling(out, to, now="--out", before="--to")


def study_folder(study: StudyConfig, out: Path | None) -> Path:
    """Where a study's runs are kept."""
    return Path("runs") / study.name if out is None else out


def study_files(folder: Path) -> tuple[Path, Path]:
    """What a study's folder keeps of its runs, beside pages and tables made of them."""
    from dpfc.experiments.studies.store import RESULTS, RUNS

    return folder / RESULTS, folder / RUNS


def _cores() -> int:
    from dpfc.features.backbones.base import available_cores

    return available_cores()


def _run(
    study: StudyConfig,
    sources: list[Source],
    store: RunStore,
    workers: int,
    threads: int,
    ray: str | None,
    retry_failed: bool,
) -> Outcome:
    from dpfc.experiments.studies.loop import process_pool, run_sweep

    def pool() -> Executor:
        if ray is None:
            return process_pool(workers, threads)
        from dpfc.experiments.studies.ray import RayExecutor

        return RayExecutor(ray, threads)

    total = sum(source.n_runs for source in sources)
    with _progress(total) as report:
        return run_sweep(
            study.name,
            sources,
            store,
            pool,
            workers=workers,
            retry_failed=retry_failed,
            report=report,
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, RunSpec, dict[str, Any] | None], None]]:
    """A bar and what runs, on a terminal; elsewhere a line a run."""
    from dpfc._support.progress import progress_bar

    running: dict[str, float] = {}
    with progress_bar("starting", total, always=False, stays=True) as update:

        def report(event: str, spec: RunSpec, record: dict[str, Any] | None) -> None:
            words = _name(spec)
            if event == "start":
                running[words] = time.perf_counter()
            else:
                running.pop(words, None)
                update(advance=1)
            update(description=" · ".join(running) or "done")
            if event == "end" and record is not None:
                # On a terminal the bar makes room for it.
                print(f"{words}: {shown(_found(record))}", file=sys.stderr, flush=True)

        yield report


def _name(spec: RunSpec) -> str:
    budget = "" if math.isinf(spec.epsilon) else f", ε = {spec.epsilon:g}"
    seed = "" if spec.seed is None else f", seed {spec.seed}"
    backbone = "" if spec.rows.backbone is None else f" ({spec.rows.backbone})"
    settings = "".join(f", {name} = {value}" for name, value in spec.parameters.items())
    return shown(f"{spec.rows.dataset}{backbone}, {spec.label}{budget}{settings}{seed}")


def _found(record: dict[str, Any]) -> str:
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    return f"{100 * record['accuracy']:.2f}% in {record['seconds']:.1f} s"


def _words(report: dict[str, Any], config: Path, out: Path | None) -> str:
    lines = [f"{counted(report['runs'], 'run')}, {report['new']} of them new: {report['results']}"]
    if report["failed"]:
        lines.append(f"{report['failed']} failed; --retry-failed runs them again.")
    if report["interrupted"]:
        lines.append("Interrupted; the same command goes on with what is missing.")
    else:
        place = shlex.join([str(config), *([] if out is None else ["--study", str(out)])])
        lines.append(f"Next: dpfc results {place}, or dpfc report sweep {place}")
    return "\n".join(lines)


def _show_plan(study: StudyConfig, folder: Path, workers: int, json: bool) -> None:
    """Print what would run, and what it costs; writes nothing."""
    from dpfc.experiments.studies.plan import plan_sweep

    plan = plan_sweep(study, folder, workers)
    if json:
        report = plan._asdict() | {
            "cells": [cell._asdict() for cell in plan.cells],
            "costs": [cost._asdict() for cost in plan.costs],
            "embed": [str(path) for path in plan.embed],
        }
        print_json({"command": "sweep", "dry_run": True, "study": study.name, **report})
        return
    _print_cells(plan)
    print(f"{counted(plan.runs, 'run')}, {plan.known} of them there already.")
    for path in plan.embed:
        print(f"Embedded first: {path}")
    print(_time_words(plan))
    for cost in plan.costs:
        print(_privacy_words(cost))
    if plan.chosen_from > 1:
        print(
            f"Methods are tried with up to {plan.chosen_from} settings. Choosing the best one "
            "looks at private rows as well: its model has the budget of all of them together, not "
            "of one (docs/tuning.md)."
        )


def _print_cells(plan: SweepPlan) -> None:
    rows = []
    for cell in plan.cells:
        epsilons = ", ".join(f"{epsilon:g}" for epsilon in cell.epsilons)
        numbers = (str(cell.settings), str(cell.seeds), str(cell.runs))
        rows.append((cell.dataset, cell.backbone or "", cell.label, epsilons, *numbers))
    headings = ("data set", "backbone", "method", "ε", "settings", "seeds", "runs")
    print_table(headings, rows, words=4)


def _time_words(plan: SweepPlan) -> str:
    parts = []
    if plan.seconds > 0.0:
        parts.append(f"about {max(plan.seconds / 60.0, 0.1):.1f} minutes for runs of known kinds")
    if plan.unknown:
        parts.append(f"{counted(plan.unknown, 'run')} of kinds that were not run here before")
    return f"Time: {'; '.join(parts) or 'nothing is missing'}."


def _privacy_words(cost: DataCost) -> str:
    epsilon = rounded_safely(cost.epsilon, up=True)
    words = (
        f"Privacy: {counted(cost.runs, 'fit')} on {cost.dataset}; published together they would be "
        f"({epsilon}, {cost.delta:g})-differentially private"
    )
    return (
        f"{words}, were they not seeded: seeded runs are not private."
        if cost.seeded
        else f"{words}."
    )
