"""`dpfc export`: a model as files for people who did not train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpfc._support.files import write_whole
from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import Force, Json

__all__ = ["export"]


def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Model file that `dpfc fit`, `search` or `train` wrote."
        ),
    ],
    onnx: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="ONNX file to write (.onnx): runs without Python."),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Model card to write (.md), as Hugging Face's hub reads it."
        ),
    ] = None,
    license: Annotated[  # noqa: A002
        str | None,
        typer.Option(metavar="ID", help="Licence that the card names, such as apache-2.0."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Network of the model's features, efficientnet-lite0 or onnx:FILE, to be part of "
            "the ONNX file; without it, the file takes features.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model for use without dpfc, as one ONNX file, and a card that describes it.

    The ONNX file gives a label and probabilities for each row, those of `dpfc predict` to 1e-5
    (whole networks: 1e-4), which is tried on made-up rows before it is written. It takes
    features, or with --backbone what the backbone takes. The privacy statement is in its
    metadata, and in the card. Needs no data and spends nothing.

    Examples: dpfc export model.safetensors --onnx model.onnx --card README.md

    dpfc export model.safetensors --onnx whole.onnx --backbone efficientnet-lite0
    """
    if onnx is None and card is None:
        raise ValueError("say what to write: --onnx FILE, --card FILE or both.")
    if onnx is None and backbone is not None:
        raise ValueError("--backbone is part of an ONNX file: name that with --onnx.")
    if card is None and license is not None:
        raise ValueError("--license is for the card: name that with --card.")
    reads = (model, None if backbone is None else Path(backbone.removeprefix("onnx:")))
    if onnx is not None:
        check_writable(onnx, reads=reads, force=force, suffixes=(".onnx",), option="--onnx")
    if card is not None:
        check_writable(card, reads=reads, force=force, suffixes=(".md",), option="--card")
    from dpfc import load_model, model_card
    from dpfc.exporting.onnx_file import onnx_bytes

    fitted = load_model(model)
    contents: dict[Path, bytes | str] = {}
    if onnx is not None:
        contents[onnx] = onnx_bytes(fitted, _network(fitted, backbone))
    if card is not None:
        contents[card] = model_card(fitted, license=license)
    for path, content in contents.items():
        write_whole(path, content)
        if not json:
            print(path)
    if json:
        written = {"onnx": onnx and str(onnx), "card": card and str(card)}
        print_json({"command": "export", "model": str(model), **written})


def _network(model: Any, spec: str | None) -> Any:
    if spec is None:
        return None
    from dpfc.experiments.cli.new_rows import load_matching_backbone

    return load_matching_backbone(getattr(model, "features_from_", None), spec)
