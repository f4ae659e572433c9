"""Speed of an extraction from end to end, as a share of the bare forward pass of its network.

Run `python -m dpfc.experiments.benchmarks.extract_speed --data cifar10-test.parquet --rows 4000`.
The extraction decodes, resizes, computes and writes; the bare pass gets arrays that are ready,
in the same process. On a CPU the bare pass is ONNX Runtime's at its best batch size and number of
threads, with EfficientNet-Lite0 at 128 px. With `--device cuda` it is PyTorch's in bfloat16 on
data that lies on the GPU already, with EfficientNet-Lite0 and a ViT-B/16 of random weights.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.cli.console import print_json, run_command
from dpfc.experiments.cli.options import Json
from dpfc.features import extract, load_backbone, open_dataset
from dpfc.features.backbones.base import Backbone, available_cores
from dpfc.features.datasets.base import Dataset, ImageDataset

__all__ = ["SomeRows", "Speed", "main", "measure"]

_CPU_BATCHES = (16, 32, 64, 128, 256)
_CUDA_BATCHES = (128, 256, 512)

Forward = Callable[[NDArray[np.uint8]], object]


class SomeRows(ImageDataset):
    """Consecutive rows of a data set of images."""

    def __init__(self, dataset: Dataset, start: int, stop: int) -> None:
        self.name, self.class_names = dataset.name, dataset.class_names
        self.has_labels = dataset.has_labels
        self._dataset = dataset
        self._start, self._stop = start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def items(self, start: int = 0) -> Iterator[Any]:
        """Yield the rows from position `start` on."""
        return islice(self._dataset.items(self._start + start), max(len(self) - start, 0))

    @property
    def fingerprint(self) -> str:
        """The whole data set's, and which rows."""
        return f"{self._dataset.fingerprint}:{self._start}:{self._stop}"


class Speed(NamedTuple):
    """Images a second of one backbone, end to end and bare, in one run."""

    backbone: str
    end_to_end: float
    bare: float
    bare_setting: str

    @property
    def ratio(self) -> float:
        """Share of the bare pass's speed that is reached end to end."""
        return self.end_to_end / self.bare


def measure(
    dataset: Dataset,
    backbone: Backbone,
    bare_passes: dict[str, tuple[Forward, int, int]],
    *,
    workers: int | None = None,
) -> Speed:
    """Find the fastest bare pass, then time half a bare run, the extraction, the other half.

    Halves, because other processes on the machine slow whatever runs beside them. The bare pass
    runs for as many images as the extraction, so its time is not shorter.

    Parameters
    ----------
    dataset : Dataset
    backbone : Backbone
    bare_passes : dict of str to (callable, int, int)
        A setting's name, and its forward pass, batch size and number of calling threads.
    workers : int, optional
        As in `extract`.
    """
    prepared = _prepared(dataset, backbone, max(rows for _, rows, _ in bare_passes.values()))
    backbone.embed(prepared[: backbone.best_batch_size])  # builds the network
    rates = {name: _bare_rate(*setting, prepared) for name, setting in bare_passes.items()}
    best = max(rates, key=lambda name: rates[name])
    dataset.fingerprint  # noqa: B018 - hashed once, before the clock starts
    half = len(dataset) // 2
    bare_seconds = half / _bare_rate(*bare_passes[best], prepared, half)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        extract(dataset, backbone, Path(folder, "cache"), workers=workers, progress=False)
        seconds = time.perf_counter() - began
    rest = len(dataset) - half
    bare_seconds += rest / _bare_rate(*bare_passes[best], prepared, rest)
    return Speed(backbone.spec, len(dataset) / seconds, len(dataset) / bare_seconds, best)


def _prepared(dataset: Dataset, backbone: Backbone, rows: int) -> NDArray[np.uint8]:
    """Pixels of `rows` images, shape (rows, side, side, 3); the first ones again if too few."""
    items = islice(dataset.items(), rows)
    pixels = np.stack([backbone.preparer(i.decode(at_least=backbone.decode_size)) for i in items])
    return np.resize(pixels, (rows, *pixels.shape[1:]))


def _bare_rate(
    forward: Forward, batch_size: int, threads: int, prepared: NDArray[np.uint8], rows: int = 512
) -> float:
    """Images a second of a forward pass, called side by side by some threads."""
    batch = prepared[:batch_size]
    passes = threads * max(rows // (batch_size * threads), 1)
    forward(batch)
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(forward, [batch] * passes))
        return passes * batch_size / (time.perf_counter() - began)


def _onnx_passes(backbone: Backbone) -> dict[str, tuple[Forward, int, int]]:
    """ONNX Runtime on the exported network: one pass on all cores, or one a core side by side."""
    import onnxruntime

    from dpfc.features.backbones.onnx_session import cache_folder

    pixels = np.zeros((1, backbone.decode_size or 128, backbone.decode_size or 128, 3), np.uint8)
    backbone.embed(pixels)  # exports the network if it has not been
    stem = f"{backbone.spec}-{backbone.weights_sha256[:16]}-{pixels.shape[1]}px"
    model = max(cache_folder().glob(f"{stem}-*.onnx"), key=lambda path: path.stat().st_mtime)
    cores = available_cores()
    passes: dict[str, tuple[Forward, int, int]] = {}
    for threads, callers in {(cores, 1), (1, cores)}:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def forward(batch: NDArray[np.uint8], session: Any = session) -> object:
            return session.run(None, {"pixels": batch})

        for rows in _CPU_BATCHES:
            name = f"{callers} × {threads} threads, batches of {rows}"
            passes[name] = (forward, rows, callers)
    return passes


def _torch_passes(network: Any, device: str) -> dict[str, tuple[Forward, int, int]]:
    """A network in bfloat16, on normalised images that lie on the device already."""
    import torch

    network = network.eval().requires_grad_(False).to(device, torch.bfloat16)
    network = network.to(memory_format=torch.channels_last)
    held: dict[int, Any] = {}

    def forward(batch: NDArray[np.uint8]) -> object:
        rows = len(batch)
        if rows not in held:
            images = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).to(torch.bfloat16)
            held[rows] = images.contiguous(memory_format=torch.channels_last) / 128 - 1
        with torch.inference_mode():
            network(held[rows])
        if device == "cuda":
            torch.cuda.synchronize()
        return None

    return {f"batches of {rows}": (forward, rows, 1) for rows in _CUDA_BATCHES}


def _save_vit(folder: str) -> Any:
    """A ViT-B/16 of random weights as transformers saves it; gives the network."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    network = ViTModel(ViTConfig(), add_pooling_layer=False)
    network.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return network


def _speeds(dataset: Dataset, device: str, workers: int | None) -> Iterator[Speed]:
    if device == "cpu":
        backbone = load_backbone("efficientnet-lite0", device="cpu")
        yield measure(dataset, backbone, _onnx_passes(backbone), workers=workers)
        return
    from efficientnet_lite_pytorch import EfficientNet

    backbone = load_backbone("efficientnet-lite0", device="cuda", dtype="bfloat16")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.forward = network.extract_features
    yield measure(dataset, backbone, _torch_passes(network, "cuda"), workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        network = _save_vit(folder)
        backbone = load_backbone(f"hf:{folder}", device="cuda", dtype="bfloat16")
        speed = measure(dataset, backbone, _torch_passes(network, "cuda"), workers=workers)
        yield speed._replace(backbone="ViT-B/16, random weights")


def _command(
    data: Annotated[
        str, typer.Option(metavar="SPEC", help="Images, as for `dpfc extract`.")
    ] = "mnist5k",
    rows: Annotated[int, typer.Option(help="Only the first so many images.", min=1)] = 10**9,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where networks run.")] = "cpu",
    workers: Annotated[int | None, typer.Option(help="As for `dpfc extract`.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="How often all is measured.", min=1)] = 1,
    json: Json = False,
) -> None:
    """Time an extraction beside the bare forward pass of its network."""
    whole = open_dataset(data)
    if whole.modality != "image":
        raise ValueError(f"--data must hold images, {data!r} holds {whole.modality}s.")
    dataset = SomeRows(whole, 0, min(rows, len(whole)))
    speeds = [s for _ in range(repeats) for s in _speeds(dataset, device, workers)]
    if json:
        results = [{**speed._asdict(), "ratio": speed.ratio} for speed in speeds]
        print_json({"data": data, "rows": len(dataset), "device": device, "results": results})
        return
    print(f"{len(dataset):,} images of {dataset.name}, images/s")
    for speed in speeds:
        print(
            f"{speed.backbone}: {speed.end_to_end:,.0f} end to end, {speed.bare:,.0f} bare "
            f"({speed.bare_setting}), ratio {speed.ratio:.2f}"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
