"""`dpfc export`: a model as files for people who have no dpfc."""

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
    """Write a model for use without dpfc, as one ONNX file.

    The file gives a label and probabilities for each row, those of `dpfc predict` to 1e-5 (whole
    networks: 1e-4), which is tried on made-up rows before it is written. It takes features, or
    with --backbone what the backbone takes. The privacy statement is in its metadata. Needs no
    data and spends nothing.

    Examples: dpfc export model.safetensors --onnx model.onnx

    dpfc export model.safetensors --onnx whole.onnx --backbone efficientnet-lite0
    """
    if onnx is None:
        raise ValueError("say what to write: --onnx FILE.")
    source = Path(backbone.removeprefix("onnx:")) if backbone is not None else None
    check_writable(onnx, reads=(model, source), force=force, suffixes=(".onnx",), option="--onnx")
    from dpfc import load_model
    from dpfc.exporting.onnx_file import onnx_bytes

    fitted = load_model(model)
    content = onnx_bytes(fitted, _network(fitted, backbone))
    write_whole(onnx, content)
    if json:
        print_json({"command": "export", "model": str(model), "onnx": str(onnx)})
        return
    print(onnx)


def _network(model: Any, spec: str | None) -> Any:
    if spec is None:
        return None
    from dpfc.experiments.cli.new_rows import load_matching_backbone

    return load_matching_backbone(getattr(model, "features_from_", None), spec)
