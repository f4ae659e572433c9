"""`dpfc report sweep`: a study's results as one page, and its pictures as files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dpfc._support.files import read_regular
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

__all__ = ["report_sweep"]


def report_sweep(
    config: ConfigPath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page to write; report.html of the study."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Write pictures too, as PNG and SVG."),
    ] = None,
    folder: StudyFolder = None,
    to: OldTo = None,
    force: Force = False,
) -> None:
    """Write what a sweep found as one page that opens offline, with charts and statements.

    It has accuracy versus ε, time and parameters, every run in a table that sorts and filters,
    the privacy statement of any run, and the command and configuration to repeat it.

    Example: dpfc report sweep study.yaml --out study.html --figures pictures
    """
    from dpfc.experiments.pictures.page import report_html
    from dpfc.experiments.studies.config import read_study
    from dpfc.experiments.studies.table import load_results

    folder, out = study_and_out(folder, out, to)
    path = find_config(config)
    study = read_study(path, overrides or ())
    folder = study_folder(study, folder)
    page = out or folder / "report.html"
    check_writable(page, reads=(path, *study_files(folder)), force=force or out is None)
    table = load_results(folder)
    words = ["dpfc", "sweep", str(config), *(overrides or ())]
    content = report_html(
        table,
        title=study.name,
        description=study.description,
        command=shlex.join(words),
        config_text=read_regular(path, limit="yaml_bytes").decode(),
    )
    write_whole(page, content)
    print(page)
    for picture in _write_figures(table, figures) if figures is not None else ():
        print(picture)


def _write_figures(table: object, folder: Path) -> list[Path]:
    from dpfc.experiments.pictures.study import study_figures
    from dpfc.experiments.pictures.style import render

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in study_figures(table).items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            write_whole(path, render(figure, kind))
            written.append(path)
    return written
