"""`dpfc report`: what a model or a ledger guarantees, for people who were not there."""

from __future__ import annotations

import json
import shlex
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dpfc._support.files import open_regular, read_regular, write_whole
from dpfc.experiments.cli.files import SQLITE_HEADER, check_writable
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

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyStatement

__all__ = ["report_app"]

Format = Literal["text", "markdown", "json", "html"]


report_app = typer.Typer(rich_markup_mode=None)


@report_app.callback(invoke_without_command=True)
def _report(context: typer.Context) -> None:
    """Write reports from models, ledgers and studies; needs no data and spends nothing.

    Example: dpfc report privacy model.safetensors
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@report_app.command()
def privacy(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="LEDGER|MODEL",
            help="Ledger of `dpfc budget create`, model file of `dpfc fit`, or JSON: a statement "
            "that this command wrote, or what `dpfc fit`, `evaluate` and others print with --json.",
        ),
    ],
    format: Annotated[  # noqa: A002
        Format,
        typer.Option(
            help="text and markdown: for reading. html: one page with pictures that opens "
            "offline. json: for programs, after the schema of `dpfc report schema`."
        ),
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; standard output without it."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With a ledger that keeps several data sets: which."),
    ] = None,
    max_sampled_releases: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Most different sampled releases to compute again, about 0.2 s each.",
        ),
    ] = 64,
    force: Force = False,
) -> None:
    """Print the privacy statement of a model, or of all spends from a data set's budget.

    It says what is guaranteed and under which neighboring relation, what that means for an
    attacker, what was released with how much noise, and what the guarantee rests on. A model's
    statement travels in its file; a ledger's covers every spend, finished or not. All figures
    are computed again; a file that claims less than its releases give away is refused.

    Examples: dpfc report privacy model.safetensors

    dpfc report privacy ledger.db --dataset ward-7 --format html --out statement.html
    """
    if out is not None:
        check_writable(out, reads=(source,), force=force)
    statement = _read(source, dataset, max_sampled_releases)
    rendered = {
        "text": statement.to_text,
        "markdown": statement.to_markdown,
        "json": statement.to_json,
        "html": statement.to_html,
    }[format]().rstrip("\n")
    if out is None:
        print(rendered)
    else:
        write_whole(out, rendered + "\n")
        print(out)


@report_app.command()
def schema() -> None:
    """Print the JSON Schema of privacy statements, as published with this version.

    Example: dpfc report schema
    """
    from dpfc.accounting import PrivacyStatement

    print(json.dumps(PrivacyStatement.json_schema(), indent=2, ensure_ascii=False))


@report_app.command("sweep")
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


def _read(source: Path, dataset: str | None, most: int) -> PrivacyStatement:
    """Read the statement of whatever `source` is; its first bytes tell."""
    with open_regular(source) as file:
        start = file.read(16)
    if start == SQLITE_HEADER:
        return _read_ledger(source, dataset)
    if dataset is not None:
        raise ValueError(f"--dataset goes with a ledger, and {source} is none.")
    if _is_safetensors(start):
        from dpfc import load_model

        return _verified(load_model(source).privacy_, source, most)
    if start.removeprefix(BOM_UTF8).lstrip()[:1] == b"{":
        from dpfc.accounting import PrivacyStatement

        return _verified(_from_json(PrivacyStatement, source), source, most)
    raise ValueError(f"{source} is neither a ledger nor a model file of dpfc, nor a statement.")


def _is_safetensors(start: bytes) -> bool:
    """Whether a header of less than a tebibyte, in JSON, follows its length in eight bytes."""
    return start[5:9] == b"\0\0\0{"


def _from_json(model: type[PrivacyStatement], source: Path) -> PrivacyStatement:
    content = _statement_in(read_regular(source, limit="json_bytes"))
    try:
        return model.from_json(content)
    except ValueError as error:
        raise ValueError(f"{source} is {error}") from error


def _statement_in(content: bytes) -> str | bytes:
    """Take the statement out of what a command printed with --json; leave all else as it is."""
    content = content.removeprefix(BOM_UTF8)
    try:
        report = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if "command" in report and isinstance(report.get("privacy"), dict):
        return json.dumps(report["privacy"])
    return content


def _verified(statement: PrivacyStatement, source: Path, most: int) -> PrivacyStatement:
    """Return a statement of which every figure was computed again."""
    try:
        statement.verify(max_sampled_releases=most)
    except ValueError as error:
        raise ValueError(f"the privacy statement in {source} is wrong: {error}") from error
    return statement


def _read_ledger(source: Path, dataset: str | None) -> PrivacyStatement:
    from dpfc.accounting.ledger.ledger import PrivacyLedger
    from dpfc.accounting.ledger.statement import make_ledger_statement

    ledger = PrivacyLedger(source)
    if dataset is None:
        names = [budget.dataset for budget in ledger.budgets()]
        if len(names) != 1:
            listed = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"choose with --dataset; data sets in {source}: {listed}.")
        (dataset,) = names
    return make_ledger_statement(ledger, dataset)


def _write_figures(table: object, folder: Path) -> list[Path]:
    from dpfc.experiments.pictures.study import render_chart, study_charts

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in study_charts(table).items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            write_whole(path, render_chart(chart, kind))
            written.append(path)
    return written
