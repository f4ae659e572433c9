"""Images themselves as rows, for networks that are trained as a whole: no network, no weights."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.backbones.base import BackboneOptions
from dpfc.features.backbones.processor import SquarePixels
from dpfc.features.backbones.row_independence import independent_rows
from dpfc.features.backbones.torch_image import stack_images
from dpfc.features.datasets.decoding import describe_preprocessing

__all__ = ["Pixels", "load_pixels"]

_IMAGE_SIZE = 32
_ROWS = 256


def load_pixels(options: BackboneOptions) -> "Pixels":
    """The backbone; see `Pixels`.

    Raises
    ------
    ValueError
        If an option asks for what only a network has: a pooling, a GPU, a format to compute in.
    """
    asked = {
        "pooling": (options.pooling, ("auto",)),
        "device": (options.device, ("auto", "cpu")),
        "dtype": (options.dtype, ("auto", "float32")),
    }
    for name, (value, possible) in asked.items():
        if value not in possible:
            raise ValueError(
                f"pixels: {name} {value!r} is not possible, no network runs; use "
                f"{' or '.join(possible)}."
            )
    return Pixels(options.image_size or _IMAGE_SIZE)


class Pixels:
    """RGB images as rows in [0, 1], channel by channel, each row by row.

    A gray image has three equal channels. In a cache of float16, the default, a value is within
    2^-12 of its own, so that rounding 255 times it gives the 8-bit pixel back.

    Parameters
    ----------
    image_size : int
        Side in pixels that the largest centred square is resized to.
    """

    spec = "pixels"
    modality = "image"
    device = "cpu"
    best_batch_size = _ROWS
    # Of no bytes: there are no weights.
    weights_sha256 = hashlib.sha256().hexdigest()

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.n_features = 3 * image_size * image_size
        self.decode_size: int | None = image_size
        self.preparer = SquarePixels(image_size)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to an image; goes into the manifest."""
        return {
            **describe_preprocessing(self.image_size, "pixel / 255"),
            "layout": "channel, row, column",
        }

    @independent_rows(any_code=False)
    def embed(self, batch: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Rows, shape (n, 3 * image_size²), of prepared images uint8, shape (n, H, W, 3).

        Raises
        ------
        ValueError
            If the batch has another shape or dtype, or no rows.
        """
        pixels = stack_images(batch, (self.image_size, self.image_size, 3), np.dtype(np.uint8))
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        return rows.astype(np.float32) / np.float32(255)
