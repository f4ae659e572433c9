"""`dpfc forecast`: what accuracy to expect at an ε and a number of rows, from public data alone."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc.experiments.cli.console import print_json, print_table, to_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import (
    Delta,
    Force,
    Json,
    Method,
    Relation,
    Settings,
    parse_numbers,
)
from dpfc.experiments.estimators import make_estimator

if TYPE_CHECKING:
    from dpfc.linear.forecast import Forecast

__all__ = ["forecast"]

_KINDS = (".csv", ".json", ".png", ".svg")


def forecast(
    n_samples: Annotated[
        str, typer.Option(metavar="N,N,…", help="Numbers of private rows to forecast for.")
    ],
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε to forecast for.")
    ] = "0.1,0.5,1,2,8",
    delta: Delta = 1e-5,
    method: Method = "fc",
    public_features: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Feature cache of a similar data set that is PUBLIC, with labels, same backbone. "
            "Never the private one.",
        ),
    ] = None,
    same_source: Annotated[
        bool,
        typer.Option(
            "--same-source",
            help="Public and private rows are random parts of one whole: narrow intervals.",
        ),
    ] = False,
    n_features: Annotated[
        int | None, typer.Option(metavar="D", help="Without public rows: width of a row.")
    ] = None,
    n_classes: Annotated[
        int | None, typer.Option(metavar="K", help="Without public rows: number of classes.")
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Without public rows: accuracy without privacy on many rows, in (0, 1), as "
            "published for such data.",
        ),
    ] = None,
    class_shares: Annotated[
        str | None,
        typer.Option(metavar="P,P,…", help="Without public rows: shares of classes, if unequal."),
    ] = None,
    spectrum_decay: Annotated[
        float,
        typer.Option(metavar="A", help="Without public rows: variances of features fall as i^-A."),
    ] = 1.3,
    neighboring_relation: Relation = "add_or_remove_one",
    n_test: Annotated[
        int | None,
        typer.Option(metavar="N", help="Held-out rows that will judge the fit; many by default."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Fits a cell; each takes what a fit takes.")] = 10,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of a forecast's own draws, which protect nobody.")
    ] = 0,
    settings: Settings = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Table (.csv, .json) or picture (.png, .svg); may be repeated."
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Forecast accuracy by ε and number of rows, before anything is spent.

    It reads no private row and writes into no ledger. Give it a similar data set that is public,
    or what is publicly known of such data: it fits the method on public or made-up rows, with
    the noise of each budget. One fit ends within the interval four times out of five.

    Example: dpfc forecast --public-features features/public --n-samples 1000,10000

    Without public rows: dpfc forecast --n-samples 1000 --n-features 64 --n-classes 3 --accuracy 0.9
    """
    files = list(out or ())
    for path in files:
        check_writable(path, reads=(public_features,), force=force, suffixes=_KINDS)
    if any(path.suffix.lower() in (".png", ".svg") for path in files):
        from dpfc._support.packages import require

        require("vl_convert", "a picture", "sweep")
    estimator = make_estimator(
        method,
        settings or (),
        delta=delta,
        neighboring_relation=neighboring_relation,
        verbose=sys.stderr.isatty(),
    )
    found = estimator.forecast(
        [_whole(number) for number in parse_numbers(n_samples, "--n-samples")],
        epsilons=parse_numbers(epsilons, "--epsilons"),
        public_features=_open_public(public_features),
        same_source=same_source,
        n_features=n_features,
        n_classes=n_classes,
        accuracy=accuracy,
        class_shares=None if class_shares is None else _shares(class_shares),
        spectrum_decay=spectrum_decay,
        n_test=n_test,
        repeats=repeats,
        random_state=seed,
    )
    report = {"command": "forecast", "method": method, **found.to_dict()}
    for path in files:
        _write(path, found, report)
    if json:
        print_json(report)
    else:
        _print(found, method, files)


def _whole(number: float) -> int:
    if number != int(number):
        raise ValueError(f"--n-samples takes whole numbers, got {number:g}.")
    return int(number)


def _shares(text: str) -> list[float]:
    """Read comma-separated numbers, which may repeat; the estimator checks what they are."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--class-shares takes numbers with commas between, got {text!r}."
        ) from None


def _open_public(folder: Path | None) -> Any:
    if folder is None:
        return None
    from dpfc.features import FeatureCache

    return FeatureCache.open(folder)


def _write(path: Path, found: Forecast, report: dict[str, Any]) -> None:
    from dpfc._support.files import write_whole

    kind = path.suffix.lower()
    if kind == ".json":
        write_whole(path, to_json(report) + "\n")
    elif kind == ".csv":
        write_whole(path, _csv(report["cells"]))
    else:
        from dpfc.experiments.pictures.charts import forecast_chart
        from dpfc.experiments.pictures.study import render_chart

        write_whole(path, render_chart(forecast_chart(found), "png" if kind == ".png" else "svg"))


def _csv(cells: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["n_samples", "epsilon", "accuracy", "low", "high"])
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def _print(found: Forecast, method: str, files: Iterable[Path]) -> None:
    print(f"{found.estimator} ({method}), δ = {found.delta:g}, from {found.source}\n")
    table = [
        (
            f"{cell.n_samples:,}",
            f"{cell.epsilon:g}",
            f"{cell.accuracy:.1%}",
            f"{cell.low:.1%} to {cell.high:.1%}",
        )
        for cell in found.cells
    ]
    print_table(("rows", "ε", "accuracy", "80% interval"), table, words=0)
    print(f"\nAlways saying the most frequent class: {found.constant:.1%}")
    for path in files:
        print(f"Wrote {path}")
