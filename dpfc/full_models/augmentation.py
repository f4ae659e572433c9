"""Random copies of each row: its gradient is then the mean over them, clipped once.

References
----------
De, Berrada, Hayes, Smith, Balle (2022), Unlocking High-Accuracy Differentially Private Image
Classification through Scale, section 3.2 (augmentation multiplicity).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from dpfc.full_models.networks.factory import square_image

__all__ = ["AUGMENTATIONS", "Augmentation"]

_PADDING = 4  # pixels on every side of a crop, as De et al. have it for 32 x 32


@dataclass(frozen=True)
class Augmentation:
    """Turns rows (n_rows, ...) into copies (n_rows, multiplicity, ...).

    Parameters
    ----------
    transform : callable or None
        From rows (n_copies, ...) to rows of the same shape and dtype; None gives one copy as it
        is. It draws from the global generators of PyTorch, NumPy and Python. One of
        `AUGMENTATIONS` changes a whole batch at once, each row from itself alone; any other is
        given the copies of one row at a time, and so cannot mix rows.
    multiplicity : int
    """

    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    multiplicity: int = 1

    @property
    def by_row(self) -> bool:
        """Whether rows are changed one at a time."""
        return self.transform is not None and self.transform not in AUGMENTATIONS.values()

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        """Give the copies.

        A row that the user's own callable fails on stays as it is: in training an error, or its
        words, would tell of the row. `check` says so beforehand.
        """
        if self.transform is None:
            return X.unsqueeze(1)
        copies = X.repeat_interleave(self.multiplicity, dim=0)
        if not self.by_row:
            changed = self.transform(copies)
            return changed.reshape(len(X), self.multiplicity, *changed.shape[1:])
        with _seeded_by_torch():
            rows = [self._changed(own) for own in torch.split(copies, self.multiplicity)]
        return torch.stack(rows)

    def check(self, row: torch.Tensor) -> torch.Tensor:
        """Change one row (1, ...), as `__call__` does.

        Raises
        ------
        ValueError
            If the result has another shape, dtype or device.
        Exception
            Whatever the callable raises.
        """
        if self.transform is None:
            return row.unsqueeze(1)
        with _seeded_by_torch():
            return self._checked(row.repeat_interleave(self.multiplicity, dim=0)).unsqueeze(0)

    def _changed(self, copies: torch.Tensor) -> torch.Tensor:
        try:
            return self._checked(copies.clone())
        except Exception:  # whatever a callable of the user's own raises
            return copies

    def _checked(self, copies: torch.Tensor) -> torch.Tensor:
        assert self.transform is not None
        shape, dtype = copies.shape, copies.dtype
        changed = self.transform(copies)
        if not isinstance(changed, torch.Tensor) or changed.shape != shape:
            got = tuple(getattr(changed, "shape", ())) or type(changed).__name__
            raise ValueError(
                f"augmentation must keep the shape of a batch: {tuple(shape)} went in, {got} came "
                "out. It is given the copies of one row at a time."
            )
        if changed.dtype != dtype or changed.device != copies.device:
            raise ValueError(
                f"augmentation must keep dtype and device: {dtype} went in, {changed.dtype} on "
                f"{changed.device} came out."
            )
        return changed.detach()


@contextmanager
def _seeded_by_torch() -> Iterator[None]:
    """Seed the generators of NumPy and Python from PyTorch's, and put them back afterwards."""
    # NumPy's global generator is an old one, but users' callables draw from it.
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seed = int(torch.randint(2**31, ()))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


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
