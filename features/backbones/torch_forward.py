"""Forward passes of PyTorch networks: one place for devices, precision and memory errors.

And what all backbones of such a network have in common.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.devices import resolve_device, resolve_dtype
from dpfc.features.exceptions import OutOfDeviceMemoryError

if TYPE_CHECKING:
    import torch

__all__ = ["TorchBackbone", "TorchModel", "TorchNetwork", "in_passes", "padded_rows"]

_ALLOCATION_FAILED = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def padded_rows(n_rows: int, step: int, device: str) -> int:
    """Rows that a batch of `n_rows` is padded to.

    Kernels are chosen by the batch's shape. With few shapes a row's features do not depend on
    how many rows stand beside it: on a CPU there is one shape, of `step` rows; on CUDA, where
    batches are halved when memory runs out, the powers of two.
    """
    return step if device == "cpu" else 1 << (n_rows - 1).bit_length()


def in_passes(
    forward: Callable[[NDArray[Any]], NDArray[np.float32]],
    rows: NDArray[Any],
    step: int,
    device: str,
) -> NDArray[np.float32]:
    """Features of rows, in passes of `step` on a CPU and in one on CUDA; see `padded_rows`."""
    step = step if device == "cpu" else len(rows)
    parts = []
    for start in range(0, len(rows), step):
        part = padded = rows[start : start + step]
        n_rows = padded_rows(len(part), step, device)
        if n_rows > len(part):  # else no copy: rows may lie in memory that a GPU reads fast
            padded = np.zeros((n_rows, *part.shape[1:]), part.dtype)
            padded[: len(part)] = part
        parts.append(forward(padded)[: len(part)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class TorchNetwork:
    """A frozen network, built when it is first used; several threads may call it at once.

    Parameters
    ----------
    build : callable
        Returns the module; it is put into evaluation mode and moved to the device here.
    device : {"auto", "cpu", "cuda"}
        Where to run.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Format of matrix products, by autocast; see `resolve_dtype`.
    """

    def __init__(self, build: "Callable[[], torch.nn.Module]", device: str, dtype: str) -> None:
        self._build = build
        self._device = device
        self._dtype = dtype
        if device != "auto":
            resolve_dtype(dtype, device)  # an impossible pair is refused at once
        self._lock = threading.Lock()
        self._local = threading.local()
        self._module: torch.nn.Module | None = None

    @cached_property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return resolve_device(self._device)

    @cached_property
    def dtype(self) -> str:
        """``"float32"``, ``"bfloat16"`` or ``"float16"``."""
        return resolve_dtype(self._dtype, self.device)

    def __call__(self, *arrays: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs, shape (n, n_features), of arrays whose first axis is the batch.

        Raises
        ------
        OutOfDeviceMemoryError
            If the batch does not fit into the GPU's memory.
        """
        import torch

        try:
            return self._cuda(arrays) if self.device == "cuda" else self._cpu(arrays)
        except RuntimeError as error:
            if not _says_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            raise OutOfDeviceMemoryError(
                f"a batch of {len(arrays[0])} rows does not fit into the GPU's memory: "
                "use a smaller batch_size."
            ) from error

    def _cpu(self, arrays: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
        import torch

        module = self._loaded()
        # One pass at a time: a pass uses all cores by itself.
        with self._lock, torch.inference_mode():
            output: NDArray[np.float32] = module(*map(_tensor, arrays)).float().numpy()
        return output

    def _cuda(self, arrays: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
        """Copies of one thread overlap another's forward pass: each has its own stream."""
        import torch

        module = self._loaded()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        half = self.dtype != "float32"
        # TF32 would move float32 features by 1e-3.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        autocast = torch.autocast("cuda", getattr(torch, self.dtype), enabled=half)
        with torch.cuda.stream(self._local.stream), torch.inference_mode():
            inputs = [_tensor(array).to("cuda", non_blocking=True) for array in arrays]
            # The flags are the process's: the lock is held while kernels are queued, not run.
            with self._lock, exact, autocast:
                output = module(*inputs)
            features: NDArray[np.float32] = output.float().cpu().numpy()
        return features

    def _loaded(self) -> "torch.nn.Module":
        with self._lock:
            if self._module is None:
                self._module = self._build().eval().requires_grad_(False).to(self.device)
                if self.device == "cuda":
                    self._module = _channels_last(self._module)
                    import torch

                    torch.cuda.synchronize()  # the other threads' streams may read it now
            return self._module


@dataclass(frozen=True)
class TorchModel:
    """What a loader finds out about a model before its network is built.

    Parameters
    ----------
    spec : str
        Name that `load_backbone` knows it by.
    n_features : int
        Length of a feature row.
    pooling : str
        How a row is made of the network's output.
    preparer : ProcessorPixels or TokenIds
        From an image to pixels, or from a text to token ids.
    hash_weights : callable
        Returns the SHA-256 of the weights.
    build : callable
        Returns the network. Its features are (n, n_features); in go pixels, uint8 (n, H, W, 3),
        or token ids and their mask, int64 (n, n_tokens).
    """

    spec: str
    n_features: int
    pooling: str
    preparer: Any
    hash_weights: Callable[[], str]
    build: "Callable[[], torch.nn.Module]"


class TorchBackbone:
    """A backbone that runs in PyTorch; see `dpfc.features.Backbone`.

    Parameters
    ----------
    model : TorchModel
        The model, not built yet.
    device, dtype : str
        As in `load_backbone`.
    """

    def __init__(self, model: TorchModel, device: str, dtype: str) -> None:
        self._model = model
        self._network = TorchNetwork(model.build, device, dtype)
        self.spec = model.spec
        self.n_features = model.n_features
        self.preparer = model.preparer

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""
        return self._model.hash_weights()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to a row, and how features are computed; goes into the manifest."""
        return {
            **self.preparer.describe(),
            "pooling": self._model.pooling,
            "compute_dtype": self._network.dtype,
        }

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._network.device


def _says_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory was too small: for PyTorch's allocator, or for a library's own."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return any(name in str(error) for name in _ALLOCATION_FAILED)


def _tensor(array: NDArray[Any]) -> "torch.Tensor":
    import torch

    # PyTorch warns of arrays that it could write to but must not.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _channels_last(module: "torch.nn.Module") -> "torch.nn.Module":
    """The module with its 4-d weights laid out as the GPU's convolutions want them."""
    import torch

    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
