"""The command `dpfc`: from images to a private classifier, its accuracy and its statement.

Commands live beside this file, one file a step. They import what is slow (PyTorch,
scikit-learn, matplotlib) when they run, so that help is immediate.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from dpfc.experiments.cli.budget import budget_app
from dpfc.experiments.cli.console import run_guarded
from dpfc.experiments.cli.demo import demo
from dpfc.experiments.cli.evaluate import evaluate
from dpfc.experiments.cli.export import export
from dpfc.experiments.cli.extract import extract
from dpfc.experiments.cli.features import features_app
from dpfc.experiments.cli.fit import fit
from dpfc.experiments.cli.forecast import forecast
from dpfc.experiments.cli.predict import predict
from dpfc.experiments.cli.report import report_app
from dpfc.experiments.cli.schema import schema_app
from dpfc.experiments.cli.search import search
from dpfc.experiments.cli.summarize import summarize
from dpfc.experiments.cli.sweep import results, sweep
from dpfc.experiments.cli.train import train

__all__ = ["app", "main"]

# Without boxes, so that the help of every command fits a screen.
app = typer.Typer(rich_markup_mode=None, context_settings={"max_content_width": 100})
_FIRST = (
    *(demo, extract, summarize, forecast),
    *(fit, train, search, evaluate, predict, export, sweep, results),
)
for command in _FIRST:
    app.command()(command)
app.add_typer(budget_app, name="budget")
app.add_typer(features_app, name="features")
app.add_typer(report_app, name="report")
app.add_typer(schema_app, name="schema")


def _first_sentence(function: Callable[..., object] | None) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())


def _say_first_sentences(group: typer.Typer) -> None:
    """Let lists of commands have their first sentences in whole; Typer cuts them to a line."""
    for command in group.registered_commands:
        command.short_help = _first_sentence(command.callback)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            callback = inner.typer_instance.registered_callback
            inner.short_help = _first_sentence(None if callback is None else callback.callback)
            _say_first_sentences(inner.typer_instance)


_say_first_sentences(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from dpfc._version import __version__

        print(f"dpfc {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _dpfc(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks; so does the environment's DPFC_DEBUG=1."),
    ] = False,
) -> None:
    """Train the most accurate private classifier that a budget buys, from frozen features.

    Images or texts go through a public network once (extract), a classifier is trained on them
    under (ε, δ)-differential privacy (fit), and the model can then be published.

    Example, to start with: dpfc demo
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `dpfc.experiments.cli.console.run_guarded` for exit codes."""
    code = run_guarded(
        lambda arguments: app(arguments, prog_name="dpfc", standalone_mode=False), argv, app
    )
    if argv is None:  # the process ends with this: a late Ctrl-C changes nothing any more
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code
