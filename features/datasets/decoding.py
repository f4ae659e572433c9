"""From an encoded image to a square of 8-bit RGB pixels."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import IrregularFileError, open_regular, read_regular
from dpfc.features.exceptions import UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode_image", "describe_preprocessing", "square_pixels"]

# Only what people keep images in. Pillow reads dozens of other formats; some of them start
# other programs (EPS calls Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, never below this many times the target.
_JPEG_MARGIN = 2
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Length, kind and checksum around a chunk's data.
_PNG_FRAME_BYTES = 12


def describe_preprocessing(image_size: int, normalisation: str) -> dict[str, Any]:
    """What happens to an image before the backbone sees it, for the manifest.

    Parameters
    ----------
    image_size : int
        Side of the square in pixels.
    normalisation : str
        Formula that the backbone applies to each pixel.
    """
    return {
        "image_size": image_size,
        "mode": "8-bit RGB; 16-bit gray divided by 256; alpha composited on white",
        "orientation": "EXIF rotation applied",
        "resize": "largest centred square, Pillow bicubic with antialiasing",
        "jpeg": f"decoded at the smallest scale of at least {_JPEG_MARGIN} times image_size",
        "normalisation": normalisation,
    }


def decode_image(
    source: "bytes | Path | Image.Image | None", image_id: str, *, at_least: int | None = None
) -> "Image.Image":
    """Decode an image to 8-bit RGB, upright.

    Gray, palette and CMYK images are converted, 16-bit gray is divided by 256, transparent
    pixels are composited on white, the EXIF orientation is applied (an unreadable EXIF block
    is ignored), and of an animation the first frame is taken.

    Parameters
    ----------
    source : bytes, Path, PIL.Image.Image or None
        Encoded image (PNG, JPEG, BMP, WebP or GIF), its path, or an opened image, whose EXIF
        orientation is applied too; None where the row of a table has none.
    image_id : str
        Name of the image in errors.
    at_least : int, optional
        Side in pixels that the caller will shrink the image to; lets a large JPEG be decoded
        at a reduced scale of at least twice that.

    Raises
    ------
    UnreadableImageError
        If the file is missing, truncated, corrupt, of another format, or larger than
        Pillow's limit against decompression bombs (``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    from PIL import Image

    if source is None:
        raise UnreadableImageError(
            f"image {image_id!r} has no bytes in its file: embed the images' bytes."
        )
    try:
        if isinstance(source, Image.Image):
            source.load()
            return _to_rgb(_upright(source), image_id)
        try:
            return _decoded(source, image_id, at_least)
        except ValueError:  # Pillow's, where a PNG's texts are longer than it holds in memory
            data = source if isinstance(source, bytes) else read_regular(source)
            bare = _without_texts(data)
            if bare == data:
                raise
            return _decoded(bare, image_id, at_least)
    except (MemoryError, UnreadableImageError):
        raise
    # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError and more
    # on damaged files; their texts may quote the file, so the cause is not chained.
    except Exception as error:
        reason = "cannot be decoded (truncated, corrupt, or not PNG, JPEG, BMP, WebP or GIF)"
        if isinstance(error, Image.DecompressionBombError):
            reason = "is larger than Pillow's limit against decompression bombs"
        elif isinstance(error, FileNotFoundError):
            reason = "is missing"
        elif isinstance(error, IrregularFileError):
            reason = "is a pipe, a socket or a device, not a file"
        raise UnreadableImageError(
            f"image {image_id!r} {reason}: repair or remove it and run again."
        ) from None


def _decoded(source: bytes | Path, image_id: str, at_least: int | None) -> "Image.Image":
    from PIL import Image

    with (
        io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file,
        Image.open(file, formats=_FORMATS) as image,
    ):
        _refuse_bomb(image, image_id)
        if at_least is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, (_JPEG_MARGIN * at_least, _JPEG_MARGIN * at_least))
        image.load()
        return _to_rgb(_upright(image), image_id)


def _refuse_bomb(image: "Image.Image", image_id: str) -> None:
    """Refuse what Pillow only warns about between one and two times its limit."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise UnreadableImageError(
            f"image {image_id!r} has more than {limit} pixels, Pillow's limit against "
            "decompression bombs: shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )


def _upright(image: "Image.Image") -> "Image.Image":
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block, of an image that is whole
        return image


def _to_rgb(image: "Image.Image", image_id: str) -> "Image.Image":
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        gray = (values >> 8).astype(np.uint8)
        gray[values == image.info.get("transparency")] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableImageError(
            f"image {image_id!r} has 32-bit pixels, which have no agreed range: "
            "convert it to 8 or 16 bits and run again."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def square_pixels(image: "Image.Image", side: int) -> NDArray[np.uint8]:
    """Pixels of the largest centred square, resized.

    The same as resizing the shorter side to `side` and cropping the centre, for less work.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image of any size.
    side : int
        Side of the result in pixels.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
    """
    from PIL import Image

    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, top, left + edge, top + edge)
    resized = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized, dtype=np.uint8)


def _without_texts(data: bytes) -> bytes:
    """The same image without its text chunks; other files and damaged ones come back as they are.

    References
    ----------
    W3C, Portable Network Graphics (PNG) Specification, Third Edition, sections 5.3 and 11.3.3.
    """
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept = [_PNG_SIGNATURE]
    start = len(_PNG_SIGNATURE)
    while start < len(data):
        end = start + _PNG_FRAME_BYTES + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in _PNG_TEXTS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)
