"""Folders of images: one sub-folder a class, or images without labels."""

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from dpfc.features.datasets.base import (
    FILE_SUFFIXES,
    ImageDataset,
    ImageItem,
    Wanted,
    fingerprint_of_files,
    printable,
)
from dpfc.features.datasets.group_file import groups_of_files
from dpfc.features.datasets.groups import Groups
from dpfc.features.datasets.labels import whole_number
from dpfc.features.exceptions import DatasetError

__all__ = ["FolderImages", "UnsortedImages", "is_clutter", "open_image_folder", "visible_entries"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
# What systems and programs leave beside people's files, besides hidden names.
_CLUTTER = re.compile(
    r"\..*|__MACOSX|__pycache__|@eaDir|#recycle|\$RECYCLE\.BIN|System Volume Information"
    r"|lost\+found|Thumbs\.db|desktop\.ini|Icon\r",
    re.IGNORECASE,
)
# How Hive and Spark name folders of a partitioned table.
_PARTITION = re.compile(r"[^=]+=.*")


def is_clutter(name: str) -> bool:
    """Whether a file or folder is a system's or a program's own, hidden or not."""
    return _CLUTTER.fullmatch(name) is not None


def visible_entries(root: Path) -> list[Path]:
    """What lies in a folder, sorted, without what systems and programs leave there."""
    return sorted(path for path in root.iterdir() if not is_clutter(path.name))


class FolderImages(ImageDataset):
    """A folder with one sub-folder of images per class.

    Classes are the sorted names of the sub-folders, which count as public: whoever made the
    folders stated the classes, and an empty folder is a class too. Names that are all whole
    numbers are sorted as numbers. Files are sorted by relative path and may lie deeper. Hidden
    files and folders are skipped, and so are those of systems (``__MACOSX``); links to folders
    are not followed, which a warning says.

    Parameters
    ----------
    root : Path
        The folder.
    folders : sequence of Path
        The class folders.
    wanted : Wanted
        The public list of class names, which must hold the name of every folder; a table of the
        images' groups.

    Raises
    ------
    DatasetError
        If there are no images, a folder is none of the classes, or an image has no group.
    """

    has_labels = True

    def __init__(self, root: Path, folders: Sequence[Path], wanted: Wanted) -> None:
        self.root, class_names = root, wanted.class_names
        self.name = root.resolve().name
        found = [printable(path.name) for path in folders]
        foreign = [name for name in found if name not in (class_names or found)]
        if foreign:
            raise DatasetError(
                f"the folder {foreign[0]!r} in {root} is none of class_names: correct its name, "
                "state all class_names, or move it away."
            )
        self.class_names: list[str] | None = class_names or _sorted_names(found)
        codes = {name: code for code, name in enumerate(self.class_names)}
        self._files: list[tuple[Path, int]] = []
        others = _Others(root)
        for folder, name in sorted(zip(folders, found, strict=True), key=lambda f: codes[f[1]]):
            self._files += [(path, codes[name]) for path in others.images_in(folder)]
        if not self._files:
            raise _no_images(root, folders)
        others.warn()
        if wanted.groups is not None:
            names = [self._relative(path) for path, _ in self._files]
            self._groups = groups_of_files(wanted.groups, wanted.group_column, names)

    def __len__(self) -> int:
        return len(self._files)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on."""
        for position, (path, label) in enumerate(self._files[start:], start):
            yield ImageItem(path, label, self._relative(path), self._group(position))

    def _relative(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class names, relative paths and contents."""
        paths = [path for path, _ in self._files]
        names = [self._relative(path) for path in paths]
        extra = [*(self.class_names or []), *_fingerprint_of(self._groups)]
        return fingerprint_of_files("images in class folders", paths, names, extra)


class UnsortedImages(ImageDataset):
    """Images without labels, in the order given.

    Parameters
    ----------
    root : Path
        Folder that ids are relative to.
    paths : sequence of Path
        The images, below it.
    name : str
        Short name for people.
    wanted : Wanted, optional
        A table of the images' groups.
    """

    has_labels = False
    class_names = None

    def __init__(
        self, root: Path, paths: Sequence[Path], name: str, wanted: Wanted | None = None
    ) -> None:
        self.name = name
        self._paths = list(paths)
        self._ids = [printable(Path(os.path.relpath(path, root)).as_posix()) for path in paths]
        if wanted is not None and wanted.groups is not None:
            self._groups = groups_of_files(wanted.groups, wanted.group_column, self._ids)

    def __len__(self) -> int:
        return len(self._paths)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on."""
        for position in range(start, len(self)):
            path, name = self._paths[position], self._ids[position]
            yield ImageItem(path, None, name, self._group(position))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of relative paths and contents."""
        extra = _fingerprint_of(self._groups)
        return fingerprint_of_files("images without labels", self._paths, self._ids, extra)


def open_image_folder(root: Path, entries: Sequence[Path], wanted: Wanted) -> ImageDataset:
    """Open a folder of class folders, or of images that lie in no class folder.

    Parameters
    ----------
    root : Path
        The folder.
    entries : sequence of Path
        What lies in it, by `visible_entries`.
    wanted : Wanted
        `class_names`, `unlabelled`, which takes the images of all folders, and `groups`, the table
        of their groups.

    Raises
    ------
    DatasetError
        If there are no images, or images both in class folders and beside them.
    """
    stray = [p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    folders = [p for p in entries if p.is_dir()]
    if wanted.unlabelled or (stray and not folders):
        if wanted.class_names is not None:
            raise DatasetError(
                f"the images in {root} have no labels for class_names: move each into the folder "
                "of its class."
            )
        others = _Others(root)
        images = others.images_in(root)
        if not images:
            raise _no_images(root, folders)
        others.warn()
        return UnsortedImages(root, images, root.resolve().name, wanted)
    if stray or not folders:
        found = f"{len(stray)} images outside them" if stray else "none"
        raise DatasetError(
            f"{root} should hold one sub-folder of images per class, or tables; "
            f"found {found}. Move every image into the folder of its class."
        )
    return FolderImages(root, folders, wanted)


class _Others:
    """What lies beside the images of a data set, and is left out."""

    def __init__(self, root: Path) -> None:
        self.root, self.ignored, self.linked = root, 0, 0

    def images_in(self, folder: Path) -> list[Path]:
        """All images under a folder, sorted by relative path, hidden ones left out."""
        found = []
        for parent, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not is_clutter(name)]
            self.linked += sum(Path(parent, name).is_symlink() for name in folders)
            found += [Path(parent, name) for name in files if not is_clutter(name)]
        images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
        self.ignored += len(found) - len(images)
        return sorted(images, key=lambda path: path.relative_to(folder).parts)

    def warn(self) -> None:
        """Say how much it is."""
        if self.ignored:
            warnings.warn(
                f"{self.ignored} files under {self.root} were ignored: only "
                f"{', '.join(IMAGE_SUFFIXES)} are read.",
                UserWarning,
                stacklevel=6,
            )
        if self.linked:
            warnings.warn(
                f"{self.linked} links to folders under {self.root} were not followed, so their "
                "images are not among the rows: put the folders themselves there.",
                UserWarning,
                stacklevel=6,
            )


def _fingerprint_of(groups: Groups | None) -> list[str]:
    """What tells one table of groups from another: images do not hold them."""
    if groups is None:
        return []
    content = repr((groups.names, groups.codes.tolist())).encode()
    return [hashlib.sha256(content).hexdigest()]


def _sorted_names(names: Sequence[str]) -> list[str]:
    """In the alphabet's order, or by value if all are whole numbers, as in a table of labels."""
    numbers = [whole_number(name) for name in names]
    if None in numbers:
        return sorted(names)
    return [name for _, name in sorted(zip(numbers, names, strict=True))]


def _no_images(root: Path, folders: Sequence[Path]) -> DatasetError:
    """Say what lies in the folders in the place of images."""
    tables = [
        (folder, path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in FILE_SUFFIXES and path.is_file()
    ]
    if not tables:
        return DatasetError(
            f"the class folders of {root} hold no images ({', '.join(IMAGE_SUFFIXES)})."
        )
    folder, path = tables[0]
    if _PARTITION.fullmatch(folder.name):
        return DatasetError(
            f"{root} is a partitioned table, whose folders ({printable(folder.name)}) stand for a "
            "column: these are not read. Write the column into the files, and the files into one "
            "folder."
        )
    return DatasetError(
        f"{root} holds no tables or images itself, but {printable(folder.name)} in it does: name "
        f"{path.parent}, or single files."
    )
