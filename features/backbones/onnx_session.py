"""Networks exported once to ONNX, kept in the user's cache folder, run in ONNX Runtime."""

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import read_regular, write_whole

if TYPE_CHECKING:
    import torch

__all__ = ["cached_export", "exported_module", "onnx_forward"]

_STANDARD_OUTPUT = 1


def onnx_forward(model: bytes) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Forward pass of an exported network in ONNX Runtime.

    Each call runs on one thread, and several threads may call at once: on a busy machine two
    single-threaded passes side by side are faster than one pass over two threads.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(None, {"pixels": batch})[0]
        return features

    return forward


def cache_folder() -> Path:
    """``$DPFC_CACHE_HOME``, else ``~/.cache/dpfc``."""
    home = os.environ.get("DPFC_CACHE_HOME")
    return Path(home) if home else Path("~/.cache/dpfc").expanduser()


def cached_export(build: "Callable[[], torch.nn.Module]", stem: str, image_size: int) -> bytes:
    """A network of images as ONNX, from the cache if it is there and whole.

    A file's name ends with its own checksum: a damaged one is exported anew. Where the folder
    cannot be written, the model stays in memory.

    Parameters
    ----------
    build : callable
        Builds the network; called only if no exported one is in the cache.
    stem : str
        Names weights and image size; the PyTorch version is added.
    image_size : int
        Side of the input square in pixels.
    """
    stem = f"{stem}-torch{version('torch')}"
    folder: Path | None = None
    # RuntimeError: no home folder.
    with suppress(OSError, RuntimeError):
        folder = cache_folder()
        for path in sorted(folder.glob(f"{stem}-*.onnx")):
            model = read_regular(path)
            if path.stem.endswith(_checksum(model)):
                return model
    import torch

    pixels = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    model = exported_module(build(), pixels, "pixels", "features")
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{stem}-{_checksum(model)}.onnx", model)
    return model


def _checksum(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()[:16]


def exported_module(
    network: "torch.nn.Module", rows: "torch.Tensor", input_name: str, output_name: str
) -> bytes:
    """Write a network of one input and one output as ONNX; the number of rows is left open.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    rows : torch.Tensor of shape (2, ...)
        Any that it takes.
    input_name, output_name : str
    """
    import torch

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _nothing_printed():
        file = Path(folder, "model.onnx")
        # The exporter that replaces this one is 20 times slower for the same graph.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based")
        warnings.filterwarnings("ignore", message="The feature will be removed")
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            network,
            (rows,),
            file,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "rows"}, output_name: {0: "rows"}},
            dynamo=False,
        )
        return file.read_bytes()


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Keep C++ code off standard output: of what it cannot write, it prints the whole graph."""
    sys.stdout.flush()
    kept = os.dup(_STANDARD_OUTPUT)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STANDARD_OUTPUT)
        yield
    finally:
        os.dup2(kept, _STANDARD_OUTPUT)
        os.close(kept)
