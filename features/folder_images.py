"""Folders with one sub-folder of images per class."""

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from dpfc.features.datasets import ImageDataset, ImageItem, fingerprint_of_files, printable
from dpfc.features.exceptions import DatasetError

__all__ = ["FolderImages"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")


class FolderImages(ImageDataset):
    """A folder with one sub-folder of images per class.

    Classes are the sorted names of the sub-folders, which count as public: whoever made the
    folders stated the classes, and an empty folder is a class too. Files are sorted by relative
    path and may lie deeper. Hidden files and folders are skipped; links to folders are not
    followed.

    Parameters
    ----------
    root : Path
        The folder.
    entries : sequence of Path
        What lies in it, sorted, without hidden names.

    Raises
    ------
    DatasetError
        If there are no class folders, no images in them, or images beside them.
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
                f"{root} should hold one sub-folder of images per class, or tables; "
                f"found {found}. Move every image into the folder of its class."
            )
        self.class_names: list[str] = [printable(p.name) for p in folders]
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
        return printable(path.relative_to(self.root).as_posix())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class names, relative paths and contents."""
        paths = [path for path, _ in self._files]
        names = [self._relative(path) for path in paths]
        return fingerprint_of_files("images in class folders", paths, names, self.class_names)


def _visible_files(folder: Path) -> list[Path]:
    """All files under a folder, sorted by relative path, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)
