"""Random copies of each row: its gradient is then the mean over them, clipped once.

References
----------
De, Berrada, Hayes, Smith, Balle (2022), Unlocking High-Accuracy Differentially Private Image
Classification through Scale, section 3.2 (augmentation multiplicity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from dpfc.full_models.networks import square_image

__all__ = ["AUGMENTATIONS", "Augmentation"]

_PADDING = 4  # pixels on every side of a crop, as De et al. have it for 32 x 32


@dataclass(frozen=True)
class Augmentation:
    """Turns rows (n_rows, ...) into copies (n_rows, multiplicity, ...).

    Parameters
    ----------
    transform : callable or None
        From a batch (n_copies, ...) to one of the same shape, each row from itself alone; None
        gives one copy as it is. It draws from torch's global generator.
    multiplicity : int
    """

    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    multiplicity: int = 1

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        """Give the copies.

        Raises
        ------
        ValueError
            If the transform changes the shape.
        """
        if self.transform is None:
            return X.unsqueeze(1)
        copies = X.repeat_interleave(self.multiplicity, dim=0)
        changed = self.transform(copies)
        if changed.shape != copies.shape:
            raise ValueError(
                f"augmentation must keep the shape of a batch: {tuple(copies.shape[1:])} a row "
                f"went in, {tuple(changed.shape[1:])} came out."
            )
        return changed.reshape(len(X), self.multiplicity, *changed.shape[1:])


def flip(X: torch.Tensor) -> torch.Tensor:
    """Mirror each image left to right with probability 1/2."""
    return _of_images(_flip, X)


def crop(X: torch.Tensor) -> torch.Tensor:
    """Shift each image by up to 4 pixels either way; what comes in is a mirror image."""
    return _of_images(_crop, X)


def crop_and_flip(X: torch.Tensor) -> torch.Tensor:
    """Shift and mirror."""
    return flip(crop(X))


def _of_images(change: Callable[[torch.Tensor], torch.Tensor], X: torch.Tensor) -> torch.Tensor:
    """Apply to (n, channels, height, width), as which flat rows and grey images are read."""
    square = square_image(X.shape[1]) if X.ndim == 2 else None
    if X.ndim not in (3, 4) and square is None:
        raise ValueError(
            "augmentation by name is for images: rows (channels, height, width), (height, width), "
            f"or flat and square, got {tuple(X.shape[1:])}."
        )
    shape = square or (X.shape[1:] if X.ndim == 4 else (1, *X.shape[1:]))
    return change(X.reshape(len(X), *shape)).reshape(X.shape)


def _flip(X: torch.Tensor) -> torch.Tensor:
    coins = torch.rand(len(X), device=X.device) < 0.5
    return torch.where(coins.view(-1, 1, 1, 1), X.flip(-1), X)


def _crop(X: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(X, (_PADDING,) * 4, mode="reflect")
    height, width = X.shape[-2:]
    tops, lefts = torch.randint(2 * _PADDING + 1, (2, len(X)), device=X.device)
    rows = (tops[:, None] + torch.arange(height, device=X.device))[:, None, :, None]
    columns = (lefts[:, None] + torch.arange(width, device=X.device))[:, None, None, :]
    image = torch.arange(len(X), device=X.device)[:, None, None, None]
    channel = torch.arange(X.shape[1], device=X.device)[None, :, None, None]
    return padded[image, channel, rows, columns]


AUGMENTATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "flip": flip,
    "crop": crop,
    "crop-flip": crop_and_flip,
}
