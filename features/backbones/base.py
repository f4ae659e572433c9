"""What a backbone is, and the options that all kinds of them know."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpfc._support.validation import Choice, check
from dpfc.features.backbones.devices import DTYPES, check_device

__all__ = ["POOLINGS", "Backbone", "BackboneOptions", "OnnxNetwork", "available_cores"]

POOLINGS = ("auto", "class_token", "mean", "pooler", "last_token")
IMAGE_SIZES = (32, 1024)


@runtime_checkable
class Backbone(Protocol):
    """What `extract` needs of a backbone.

    `embed` may be called from several threads at once. A row's features must depend on that
    row alone, not on the rows beside it in the batch, but for the rounding of kernels that are
    chosen by the batch's shape; the same batch gives the same bytes again.
    """

    @property
    def spec(self) -> str:
        """Name that `load_backbone` knows it by."""

    @property
    def modality(self) -> str:
        """``"image"`` or ``"text"``: what it takes."""

    @property
    def n_features(self) -> int:
        """Length of a feature row."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image or a text, the pooling, the format computed in (JSON)."""

    @property
    def decode_size(self) -> int | None:
        """Side in pixels that images are shrunk to, for a faster decoding; None for texts."""

    @property
    def best_batch_size(self) -> int:
        """Rows a forward pass on this device, for the most rows a second."""

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""

    @property
    def preparer(self) -> Callable[[Any], NDArray[Any]]:
        """From an upright RGB image, or a text, to what `embed` takes a batch of.

        It can be pickled and holds no weights, so that worker processes may call it.
        """

    def embed(self, batch: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of n prepared inputs."""


@runtime_checkable
class OnnxNetwork(Protocol):
    """What a backbone has besides, where its network can be one of ONNX.

    The network has one input; its one output is features (n, n_features), or maps
    (n, n_features, h, w) whose mean they are.
    """

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""

    def onnx_network(self) -> bytes:
        """Content of a file of one network."""

    def onnx_input(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Prepared images, uint8 (n, side, side, 3), as that network takes them."""


@dataclass(frozen=True)
class BackboneOptions:
    """The options of `load_backbone`, checked."""

    image_size: int | None = None
    pooling: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    smallest: int = IMAGE_SIZES[0]

    def __post_init__(self) -> None:
        low, high = self.smallest, IMAGE_SIZES[1]
        side = self.image_size
        if side is not None and (type(side) is not int or not low <= side <= high):
            raise ValueError(f"image_size must be an int in [{low}, {high}] or None, got {side!r}.")
        check("pooling", self.pooling, Choice(POOLINGS))
        check("dtype", self.dtype, Choice(DTYPES))
        check_device(self.device)

    def refuse_image_size(self, spec: str) -> None:
        """Refuse a size of images where there are none.

        Raises
        ------
        ValueError
            If a size is given.
        """
        if self.image_size is not None:
            raise ValueError(f"{spec} takes texts: leave image_size out.")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
