"""A user's own network in one ONNX file: ``onnx:FILE``."""

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import error_words, read_regular, sha256_of_file
from dpfc._support.limits import LimitError, check_limit
from dpfc._support.packages import require
from dpfc.features.backbones.base import available_cores
from dpfc.features.backbones.processor import IMAGENET_MEAN, IMAGENET_STD, SquarePixels
from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import padded_rows
from dpfc.features.backbones.torch_image import stack_images
from dpfc.features.datasets.decoding import describe_preprocessing
from dpfc.features.exceptions import OutOfDeviceMemoryError

if TYPE_CHECKING:
    from dpfc.features.backbones.base import BackboneOptions

__all__ = ["OnnxBackbone", "load_onnx_file"]

_IMAGE_SIZE = 224
_CPU_ROWS, _CUDA_ROWS = 16, 128
# They look at all rows of a batch, or may: a scale or a condition on the whole of it.
_MIXING = ("DynamicQuantize", "If", "Loop", "Scan", "Unique")
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class _Input:
    """The network's input: its name, layout, type, fixed sizes (None where it takes any)."""

    name: str
    channels_first: bool
    dtype: str
    rows: int | None
    side: int | None


def load_onnx_file(name: str, options: "BackboneOptions") -> "OnnxBackbone":
    """Backbone of an ONNX file; see `OnnxBackbone`.

    Raises
    ------
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    ValueError
        If the file cannot be loaded, has other inputs or outputs than a network of images, or
        cannot do what is asked.
    """
    spec = f"onnx:{name}"
    require("onnx", spec, "onnx")
    require("onnxruntime", spec, "onnx")
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"{spec}: there is no file {path}.")
    if options.pooling not in ("auto", "mean"):
        raise ValueError(
            f"{spec}: pooling {options.pooling!r} is not possible; the network's output is taken "
            "as it is, or its mean over a map."
        )
    if options.dtype not in ("auto", "float32"):
        raise ValueError(f"{spec}: dtype is what the file computes in; leave it at 'auto'.")
    return OnnxBackbone(path, spec, options.image_size, options.device)


class OnnxBackbone:
    """An image network in ONNX Runtime.

    It has one input, images of shape (n, 3, H, W) or (n, H, W, 3): float, which get pixels
    as (pixel / 255 - mean) / std, or uint8, which get them as they are. Mean and standard
    deviation are ImageNet's, or the file's ``mean`` and ``std`` metadata (JSON lists of three).
    It has one output: features, shape (n, n_features), or maps, shape (n, n_features, h, w),
    whose mean is taken. A fixed batch size is filled up with black images.

    Parameters
    ----------
    path : Path
        The file; weights in files beside it are not read.
    spec : str
        What the user wrote.
    image_size : int, optional
        Side of the square; the file's own, or 224 where it takes any, by default.
    device : {"auto", "cpu", "cuda"}
        CUDA needs onnxruntime-gpu; "auto" takes it where that is installed.
    """

    modality = "image"

    def __init__(self, path: Path, spec: str, image_size: int | None, device: str) -> None:
        self.spec = spec
        self._path = path
        model = _read_model(path, spec)
        self._metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.mixing_operators = _mixing_operators(model)
        self.mean = self._channels("mean", IMAGENET_MEAN)
        self.std = self._channels("std", IMAGENET_STD)
        if min(self.std) <= 0:
            raise ValueError(f"{spec}: std in the file's metadata must be > 0.")
        self._session = _open_session(path, spec, device)
        self.device = "cpu" if _on_cpu(self._session) else "cuda"
        self._input = _read_input(self._session, spec)
        self.image_size = self._input.side or image_size or _IMAGE_SIZE
        if image_size not in (None, self.image_size):
            raise ValueError(f"{spec}: the network takes images of {self.image_size} px only.")
        self.decode_size: int | None = self.image_size
        self.preparer = SquarePixels(self.image_size)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256_of_file(self._path)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image before the first layer."""
        formula = f"(pixel / 255 - {list(self.mean)}) / {list(self.std)}"
        if self._input.dtype == "uint8":
            formula = "none: the network takes 8-bit pixels"
        return {
            **describe_preprocessing(self.image_size, formula),
            "pooling": "mean of maps",
            "compute_dtype": "as the file",
        }

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass: the file's own number, else 16 on a CPU and 128 on CUDA."""
        return self._input.rows or (_CPU_ROWS if self.device == "cpu" else _CUDA_ROWS)

    @cached_property
    def n_features(self) -> int:
        """Length of a feature row, from one black image."""
        side = self.image_size
        return int(self._forward(np.zeros((1, side, side, 3), np.uint8)).shape[1])

    @independent_rows(any_code=False)
    def embed(self, batch: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Features of prepared images, uint8 of shape (n, image_size, image_size, 3).

        Raises
        ------
        ValueError
            If the batch has another shape or dtype, or no rows, or the network fails on it.
        OutOfDeviceMemoryError
            If the batch does not fit into the GPU's memory.
        """
        side, step = self.image_size, self.best_batch_size
        pixels = stack_images(batch, (side, side, 3), np.dtype(np.uint8))
        parts = [pixels[i : i + step] for i in range(0, len(pixels), step)]
        if len(parts) == 1:
            return self._forward(pixels)
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.concatenate(list(pool.map(self._forward, parts)))

    def _forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of few batch sizes, by which kernels may be chosen; see `padded_rows`."""
        n_rows = self._input.rows or padded_rows(len(pixels), _CPU_ROWS, self.device)
        padded = np.zeros((n_rows, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        images = self.onnx_input(padded)
        try:
            output = self._session.run(None, {self._input.name: images})[0]
        # ONNX Runtime's errors share no public class.
        except Exception as error:
            if self.device == "cuda" and "allocate memory" in str(error):
                raise OutOfDeviceMemoryError(
                    f"a batch of {len(pixels)} rows does not fit into the GPU's memory: "
                    "use a smaller batch_size."
                ) from error
            raise ValueError(f"{self.spec}: the network fails: {error}") from error
        features = np.asarray(output, np.float32)
        if features.ndim == 4:
            features = features.mean((2, 3))
        if features.ndim != 2 or len(features) != len(padded):
            raise ValueError(
                f"{self.spec}: the output must be features (n, n_features) or maps "
                f"(n, n_features, h, w), got shape {output.shape} for {len(padded)} images."
            )
        return features[: len(pixels)]

    def onnx_network(self) -> bytes:
        """The file's content."""
        return read_regular(self._path, limit="onnx_bytes")

    def onnx_input(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Prepared images, uint8 (n, side, side, 3), as the network takes them."""
        images: NDArray[Any] = pixels
        if self._input.dtype != "uint8":
            scaled = pixels.astype(np.float32) / 255
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            images = ((scaled - mean) / std).astype(self._input.dtype)
        if self._input.channels_first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return images

    def _channels(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        if key not in self._metadata:
            return default
        try:
            values = tuple(float(value) for value in json.loads(self._metadata[key]))
        except (ValueError, TypeError):
            values = ()
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise ValueError(f"{self.spec}: {key} in the metadata must be a JSON list of three.")
        return values


def _read_model(path: Path, spec: str) -> Any:
    """The file, parsed; refuses weights in other files."""
    import onnx

    try:
        content = read_regular(path, limit="onnx_bytes")
    except OSError as error:
        raise ValueError(f"{spec}: {path} cannot be read: {error.strerror}.") from error
    except LimitError as error:
        raise ValueError(f"{spec}: {error}") from error
    try:
        model = onnx.load_from_string(content)
    # protobuf's DecodeError has changed its home.
    except Exception as error:
        raise ValueError(f"{spec}: {path} is not an ONNX file.") from error
    if _uses_other_files(model):
        raise ValueError(
            f"{spec}: the weights lie in other files, which the checksum would not cover: save "
            "them in one file with onnx.save(model, path, save_as_external_data=False)."
        )
    return model


def _mixing_operators(model: Any) -> tuple[str, ...]:
    """Names of the operators that may look at all rows, in the graph and in functions."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return tuple(sorted({node.op_type for node in nodes if node.op_type.startswith(_MIXING)}))


def _uses_other_files(message: Any) -> bool:
    """Whether any tensor lies elsewhere: a weight, a constant, or one in a branch or function."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        return bool(message.external_data) or message.data_location == TensorProto.EXTERNAL
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            entries = [value] if hasattr(value, "ListFields") else value
            if any(map(_uses_other_files, entries)):
                return True
    return False


def _open_session(path: Path, spec: str, device: str) -> Any:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ValueError(
            f"{spec}: device 'cuda' needs onnxruntime-gpu in place of onnxruntime: install it, or "
            "use device='cpu'."
        )
    if device != "cpu" and has_cuda:
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    # One thread a call; calls run side by side.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(read_regular(path), options, providers=providers)
    # ONNX Runtime's errors share no public class.
    except Exception as error:
        words = f"{spec}: ONNX Runtime cannot load {path}: {error_words(error)}."
        raise ValueError(words) from error


def _on_cpu(session: Any) -> bool:
    return "CUDAExecutionProvider" not in session.get_providers()


def _read_input(session: Any, spec: str) -> _Input:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{spec}: the network must have one input and one output, got {len(inputs)} and "
            f"{len(outputs)}."
        )
    (entry,) = inputs
    # Sizes that are free are names or None.
    sizes = [size if isinstance(size, int) else None for size in entry.shape]
    dtype = _TYPES.get(entry.type)
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]) or dtype is None:
        raise ValueError(
            f"{spec}: the input must be images (n, 3, H, W) or (n, H, W, 3) of float or uint8, "
            f"got {entry.type} of shape {entry.shape}."
        )
    if outputs[0].type not in ("tensor(float)", "tensor(float16)"):
        raise ValueError(f"{spec}: the output must be float, got {outputs[0].type}.")
    first = sizes[1] == 3
    height, width = sizes[2:] if first else sizes[1:3]
    if height != width and None not in (height, width):
        raise ValueError(f"{spec}: images must be square, got {height} x {width} px.")
    side = height or width
    try:
        check_limit("image_side", side or 0, f"the network takes images of {side} px")
        check_limit("image_rows", sizes[0] or 0, f"the network takes {sizes[0]} images at once")
    except LimitError as error:
        raise ValueError(f"{spec}: {error}") from error
    return _Input(entry.name, first, dtype, sizes[0], side)
