"""What every image backbone in PyTorch has in common: batches of pixels in, features out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.processor import ProcessorPixels
from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_forward import TorchBackbone, in_passes

if TYPE_CHECKING:
    import torch

__all__ = ["TorchImageBackbone", "normalising", "stack_images"]

# Rows a forward pass. On a CPU a ViT's activations of 8 images stay in its caches.
_CPU_ROWS, _CUDA_ROWS = 8, 256


class TorchImageBackbone(TorchBackbone):
    """A backbone of images; `model.preparer` is a `ProcessorPixels`."""

    modality = "image"

    @property
    def decode_size(self) -> int:
        """Side in pixels that images are shrunk to, for a faster decoding."""
        return int(self.preparer.decode_size)

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
        return in_passes(self._network, pixels, self.best_batch_size, self.device)


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
