"""Networks exported once to ONNX, kept in the user's cache folder, run in ONNX Runtime."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import read_regular, write_whole

if TYPE_CHECKING:
    import torch

__all__ = ["onnx_forward"]


def onnx_forward(
    build: "Callable[[], torch.nn.Module]", stem: str, image_size: int
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Forward pass of a network in ONNX Runtime.

    Each call runs on one thread, and several threads may call at once: on a busy machine two
    single-threaded passes side by side are faster than one pass over two threads.

    Parameters
    ----------
    build : callable
        Builds the network; called only if no exported one is in the cache.
    stem : str
        Names weights and image size; the PyTorch version is added.
    image_size : int
        Side of the input square in pixels.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = _exported(build, f"{stem}-torch{version('torch')}", image_size)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(None, {"pixels": batch})[0]
        return features

    return forward


def cache_folder() -> Path:
    """``$DPFC_CACHE_HOME``, else ``~/.cache/dpfc``."""
    home = os.environ.get("DPFC_CACHE_HOME")
    return Path(home) if home else Path("~/.cache/dpfc").expanduser()


def _exported(build: "Callable[[], torch.nn.Module]", stem: str, image_size: int) -> bytes:
    """The exported network, from the cache if it is there and whole.

    A file's name ends with its own checksum: a damaged one is exported anew. Where the folder
    cannot be written, the model stays in memory.
    """
    folder: Path | None = None
    # RuntimeError: no home folder.
    with suppress(OSError, RuntimeError):
        folder = cache_folder()
        for path in sorted(folder.glob(f"{stem}-*.onnx")):
            model = read_regular(path)
            if path.stem.endswith(_checksum(model)):
                return model
    model = _export(build(), image_size)
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{stem}-{_checksum(model)}.onnx", model)
    return model


def _checksum(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()[:16]


def _export(network: "torch.nn.Module", image_size: int) -> bytes:
    import torch

    pixels = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder, "model.onnx")
        # The exporter that replaces this one is 20 times slower for the same graph.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based")
        warnings.filterwarnings("ignore", message="The feature will be removed")
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            network,
            (pixels,),
            file,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "rows"}, "features": {0: "rows"}},
            dynamo=False,
        )
        return file.read_bytes()
