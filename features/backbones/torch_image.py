"""What every image backbone in PyTorch has in common: batches of pixels in, features out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.processor import ProcessorPixels
from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import TorchNetwork, padded_rows

if TYPE_CHECKING:
    import torch

__all__ = ["ImageModel", "TorchImageBackbone", "normalising", "stack_images"]

# Rows a forward pass. On a CPU a ViT's activations of 8 images stay in its caches.
_CPU_ROWS, _CUDA_ROWS = 8, 256


@dataclass(frozen=True)
class ImageModel:
    """What a loader finds out about a model before its network is built.

    Parameters
    ----------
    spec : str
        Name that `load_backbone` knows it by.
    n_features : int
        Length of a feature row.
    pooling : str
        How a row is made of the network's output.
    preparer : ProcessorPixels
        From an image to pixels.
    hash_weights : callable
        Returns the SHA-256 of the weights.
    build : callable
        Returns the network: pixels uint8 (n, H, W, 3) in, features (n, n_features) out.
    """

    spec: str
    n_features: int
    pooling: str
    preparer: ProcessorPixels
    hash_weights: Callable[[], str]
    build: "Callable[[], torch.nn.Module]"


class TorchImageBackbone:
    """A backbone of images that runs in PyTorch; see `dpfc.features.Backbone`.

    Parameters
    ----------
    model : ImageModel
        The model, not built yet.
    device, dtype : str
        As in `load_backbone`.
    """

    modality = "image"

    def __init__(self, model: ImageModel, device: str, dtype: str) -> None:
        self._model = model
        self._network = TorchNetwork(model.build, device, dtype)
        self.spec = model.spec
        self.n_features = model.n_features
        self.preparer = model.preparer
        self.decode_size: int | None = model.preparer.decode_size

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""
        return self._model.hash_weights()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image, and how features are computed; goes into the manifest."""
        return {
            **self.preparer.describe(),
            "pooling": self._model.pooling,
            "compute_dtype": self._network.dtype,
        }

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._network.device

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass on this device."""
        return _CPU_ROWS if self.device == "cpu" else _CUDA_ROWS

    @independent_rows(any_code=False)
    def embed(self, batch: "NDArray[Any] | Sequence[NDArray[Any]]") -> NDArray[np.float32]:
        """Features, shape (n, n_features), of prepared images uint8, shape (n, H, W, 3).

        Raises
        ------
        ValueError
            If the batch has another shape or dtype, or no rows.
        OutOfDeviceMemoryError
            If the batch does not fit into the GPU's memory.
        """
        height, width = self.preparer.crop
        pixels = stack_images(batch, (height, width, 3), np.dtype(np.uint8))
        step = self.best_batch_size if self.device == "cpu" else len(pixels)
        parts = [self._forward(pixels[i : i + step], step) for i in range(0, len(pixels), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _forward(self, pixels: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
        n_rows = padded_rows(len(pixels), step, self.device)
        if n_rows == len(pixels):
            return self._network(pixels)
        padded = np.zeros((n_rows, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        return self._network(padded)[: len(pixels)]


def stack_images(
    batch: "NDArray[Any] | Sequence[NDArray[Any]]", shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The batch as one array, checked.

    Raises
    ------
    ValueError
        If a row is not of this shape and dtype, or there are no rows.
    """
    pixels = batch if isinstance(batch, np.ndarray) else np.stack(list(batch) or [np.empty(0)])
    if pixels.dtype != dtype or pixels.shape[1:] != shape or len(pixels) == 0:
        raise ValueError(
            f"batch must be {dtype} of shape (n, {', '.join(map(str, shape))}) with n > 0, "
            f"got {pixels.dtype} of shape {pixels.shape}."
        )
    return pixels


def normalising(
    network: "torch.nn.Module",
    preparer: ProcessorPixels,
    pool: "Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]",
) -> "torch.nn.Module":
    """The network behind the normalisation of pixels and before the pooling.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised images, shape (n, 3, H, W).
    preparer : ProcessorPixels
        Has the factor, mean and standard deviation.
    pool : callable
        Called with the network and the normalised images; returns features (n, n_features).
    """
    import torch

    class PixelsToFeatures(torch.nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("mean", torch.tensor(preparer.mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(preparer.std).view(1, 3, 1, 1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            images = pixels.permute(0, 3, 1, 2).to(torch.float32) * preparer.scale
            return pool(self.network, (images - self.mean) / self.std)

    return PixelsToFeatures()
