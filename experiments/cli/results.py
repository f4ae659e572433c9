"""`dpfc results`: what a sweep found, as a table for people or for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpfc.experiments.cli.console import counted, to_json
from dpfc.experiments.cli.files import check_writable, write_whole
from dpfc.experiments.cli.options import Force
from dpfc.experiments.cli.sweep import (
    ConfigPath,
    OldTo,
    Overrides,
    StudyFolder,
    find_config,
    study_and_out,
    study_files,
    study_folder,
)

__all__ = ["results"]

Format = Literal["table", "csv", "json", "latex"]


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
