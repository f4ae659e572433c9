"""From a decoded image to the pixels that a model's own configuration asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.datasets.decoding import describe_preprocessing, square_pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ProcessorPixels", "SquarePixels", "read_processor"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The far ends of an image more than this many times as long as it is wide are cut off first:
# resized, they would take gigabytes, and the crop does not reach them.
_LONGEST = 16
_RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class SquarePixels:
    """Pixels of the largest centred square, resized to `side`; see `square_pixels`."""

    side: int

    def __call__(self, image: "Image.Image") -> NDArray[np.uint8]:
        """Pixels, shape (side, side, 3), of an RGB image."""
        return square_pixels(image, self.side)


@dataclass(frozen=True)
class ProcessorPixels:
    """Resize and crop as the image processors of transformers and timm do, with Pillow.

    Scaling and normalisation happen on the device, behind the 8-bit pixels.

    Parameters
    ----------
    resize : tuple of int
        (shorter side,) to keep the image's proportions, or (height, width) to stretch it.
    crop : tuple of int
        (height, width) of the centred part that is kept; missing borders are black.
    resample : int
        Pillow's number of the filter.
    scale : float
        Factor of each pixel.
    mean, std : tuple of float
        Taken off, and divided by, after scaling: one value a channel.
    rounded : bool
        Whether half a pixel of the crop's offset is rounded to even, as torchvision does, and
        not down.
    """

    resize: tuple[int, ...]
    crop: tuple[int, int]
    resample: int = 3
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    rounded: bool = False

    @property
    def decode_size(self) -> int:
        """Side in pixels that images are shrunk to; a JPEG may be decoded at twice that."""
        return max(self.resize)

    def __call__(self, image: "Image.Image") -> NDArray[np.uint8]:
        """Pixels, shape (height, width, 3) of the crop, of an RGB image."""
        from PIL import Image

        if len(self.resize) == 1:
            image = _without_far_ends(image)
            width, height = _fit_shorter(image.size, self.resize[0])
        else:
            height, width = self.resize
        resized = image.resize((width, height), Image.Resampling(self.resample))
        if (height, width) != self.crop:
            left = _offset(width, self.crop[1], self.rounded)
            top = _offset(height, self.crop[0], self.rounded)
            resized = resized.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.array(resized, dtype=np.uint8)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        size = f"{self.crop[0]} x {self.crop[1]}"
        if len(self.resize) == 1:
            resize = f"shorter side to {self.resize[0]}, centre {size}"
        else:
            resize = f"stretched to {self.resize[0]} x {self.resize[1]}, centre {size}"
        normalisation = f"(pixel * {self.scale:.6g} - {list(self.mean)}) / {list(self.std)}"
        return {
            **describe_preprocessing(self.crop[0], normalisation),
            "resize": f"{resize}, Pillow {_RESAMPLES[self.resample]} with antialiasing",
            "jpeg": f"decoded at the smallest scale of at least 2 times {self.decode_size} px",
        }

    def at_size(self, side: int | None) -> "ProcessorPixels":
        """The same for squares of `side`, with the share that is cropped away kept."""
        if side is None:
            return self
        factor = side / self.crop[0]
        return replace(
            self, resize=tuple(round(edge * factor) for edge in self.resize), crop=(side, side)
        )


def _without_far_ends(image: "Image.Image") -> "Image.Image":
    """The centre of an image, at most `_LONGEST` times as long as it is wide."""
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(edge, longest) for edge in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _fit_shorter(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side as given, the longer one rounded down."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _offset(length: int, crop: int, rounded: bool) -> int:
    """Where the centred part starts; before the border if it is longer than the image."""
    if rounded and length >= crop:
        return round((length - crop) / 2)
    return (length - crop) // 2 if length >= crop else -((crop - length + 1) // 2)


def read_processor(config: Mapping[str, Any], where: str) -> ProcessorPixels:
    """What a ``preprocessor_config.json`` asks for.

    Parameters
    ----------
    config : mapping
        Content of the file, defaults filled in.
    where : str
        Name of the model in errors.

    Raises
    ------
    ValueError
        If it asks for what is not done here, such as tiles, padding or a size by area.
    """
    odd = [key for key in ("do_pad", "do_pan_and_scan", "do_image_splitting") if config.get(key)]
    if odd or not config.get("do_resize", True):
        what = ", ".join(odd) or "do_resize=False"
        raise ValueError(f"{where}: preprocessor_config.json asks for {what}, which is unknown.")
    size = config.get("size")
    if isinstance(size, int) and config.get("do_center_crop"):  # as older files mean it
        size = {"shortest_edge": size}
    resize = _sides(size, "size", where)
    crop = resize
    if config.get("do_center_crop"):
        crop = _sides(config.get("crop_size"), "crop_size", where)
    # A crop of one number is a square.
    height, width = (crop[0], crop[-1])
    if len(resize) == 1 and not config.get("do_center_crop"):
        raise ValueError(
            f"{where}: images of one size are needed, and preprocessor_config.json keeps their "
            "proportions without a crop: set do_center_crop and crop_size there."
        )
    resample = config.get("resample", 3)
    if type(resample) is not int or resample not in _RESAMPLES:
        raise ValueError(f"{where}: resample {resample!r} in preprocessor_config.json is unknown.")
    factor = config.get("rescale_factor", 1 / 255)
    if not _is_number(factor):
        raise ValueError(
            f"{where}: rescale_factor in preprocessor_config.json must be a number, got {factor!r}."
        )
    scale = float(factor) if config.get("do_rescale", True) else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean = _channels(config.get("image_mean", IMAGENET_MEAN), "image_mean", where)
        std = _channels(config.get("image_std", IMAGENET_STD), "image_std", where)
    if not all(value > 0 for value in std):
        raise ValueError(f"{where}: image_std in preprocessor_config.json must be > 0.")
    return ProcessorPixels(resize, (height, width), resample, scale, mean, std)


def _sides(size: Any, name: str, where: str) -> tuple[int, ...]:
    """(shorter side,) or (height, width)."""
    if isinstance(size, int):
        sides: tuple[Any, ...] = (size, size)
    elif isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        sides = (size["height"], size["width"])
    elif isinstance(size, Mapping) and size.keys() == {"shortest_edge"}:
        sides = (size["shortest_edge"],)
    else:
        sides = ()
    if not sides or not all(type(side) is int and 1 <= side <= 4096 for side in sides):
        raise ValueError(
            f"{where}: {name} in preprocessor_config.json must be height and width, or "
            f"shortest_edge, in pixels, got {size!r}."
        )
    return sides


def _channels(values: Any, name: str, where: str) -> tuple[float, float, float]:
    if isinstance(values, list | tuple) and len(values) == 3 and all(map(_is_number, values)):
        return float(values[0]), float(values[1]), float(values[2])
    raise ValueError(f"{where}: {name} in preprocessor_config.json must have three values.")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30
