"""Data sets of the Hugging Face library ``datasets``: from its hub, saved, or local folders."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dpfc._support.files import read_regular
from dpfc._support.limits import check_limit
from dpfc._support.packages import require
from dpfc._support.suggestions import did_you_mean
from dpfc._support.yaml_reading import parse_yaml
from dpfc.features.datasets.base import (
    Dataset,
    ImageDataset,
    ImageItem,
    TextDataset,
    TextItem,
    Wanted,
    fingerprint_of_files,
    refuse_irregular,
    row_id,
)
from dpfc.features.datasets.groups import read_groups
from dpfc.features.datasets.labels import read_labels
from dpfc.features.datasets.texts import TEXT_COLUMNS, choose_column
from dpfc.features.exceptions import DatasetError

__all__ = ["PREFIX", "HubImages", "HubTexts", "open_hub"]

PREFIX = "hf:"
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_WORD = re.compile(r"[\w.-]+")
# Seconds until a hub that does not answer is given up; its client would try for half a minute.
# Where a folder may say which files its data set has.
_NOTES = ("README.md", ".huggingface.yaml")
_FRONT_MATTER = re.compile(r"\s*---[\r\n]+([\s\S]*?)[\r\n]+---(?:\r\n|\n|$)")
_PATIENCE = 10.0
_BATCH_ROWS = 64


class HubRows(Dataset):
    """Rows of one split, read lazily from the library's Arrow files.

    Parameters
    ----------
    name : str
        Short name for people.
    rows : datasets.Dataset
    content : str
        Column of the images or texts.
    wanted : Wanted
        Column of the labels; by default ``label``, else the only column of classes. Class names,
        where a column of classes does not state them. Column of the groups.
    folder : Path, optional
        Where images lie that the rows only name; others are not opened.

    Raises
    ------
    DatasetError
        If there are no rows, no such column, or a label is missing or outside the classes.
    """

    def __init__(
        self,
        name: str,
        rows: Any,
        content: str,
        wanted: Wanted,
        folder: Path | None,
    ) -> None:
        self.name = name
        self._content, self._folder = content, folder
        if len(rows) == 0:
            raise DatasetError(f"{name} holds no rows.")
        self.columns = list(rows.features)
        label = None
        if not wanted.unlabelled:
            label = _label_column(name, rows.features, wanted.label_column)
        self.has_labels = label is not None
        self.class_names: list[str] | None = None
        if label is None and wanted.class_names is not None:
            raise DatasetError(f"{name} has no labels for class_names: name the label_column.")
        self._columns = [content] if label is None else [content, label]
        group = choose_column(name, self.columns, "group_column", wanted.group_column, ())
        self._columns += [] if group is None or group in self._columns else [group]
        self._rows = _as_stored(rows, self._columns)
        if label is not None:
            stated = _stated_names(rows.features[label])
            if wanted.class_names is not None and stated not in (None, wanted.class_names):
                raise DatasetError(f"{name} names its classes otherwise than class_names.")
            found = read_labels(
                self._values(label),
                name,
                stated or wanted.class_names,
                numbered=stated is not None,
                skip_missing=wanted.skip_missing,
            )
            self._labels = found.codes
            self.class_names = found.class_names
            self.class_names_from_labels = found.from_labels
        if group is not None:
            self._groups = read_groups(self._values(group), name)

    def __len__(self) -> int:
        return len(self._rows)

    def _values(self, column: str, start: int = 0) -> Iterator[Any]:
        """A column's values as they are stored, from row `start` on."""
        if start >= len(self):
            return
        try:
            rows = self._rows.select(range(start, len(self))).select_columns([column])
            for batch in rows.iter(_BATCH_ROWS):
                yield from batch.column(column).to_pylist()
        # Arrow's errors are OSError, ValueError and others, and may quote the file.
        except Exception:
            raise DatasetError(f"the files of {self.name} are damaged: fetch them again.") from None

    def _files(self) -> list[Path]:
        return [Path(file["filename"]) for file in self._rows.cache_files]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files that hold the rows, of the images they name, and of the columns."""
        files = self._files()
        # Positions, not names: the library names its files by its own version too.
        names = [str(position) for position in range(len(files))]
        return fingerprint_of_files("datasets", files, names, [self.modality, *self._columns])


class HubImages(HubRows, ImageDataset):
    """Rows with an image; see `HubRows`."""

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on."""
        for position, image in enumerate(self._values(self._content, start), start):
            yield ImageItem(
                self._encoded(image),
                self._label(position),
                row_id(position),
                self._group(position),
            )

    def _encoded(self, image: dict[str, Any] | None) -> bytes | Path | None:
        """The image's bytes, or its file if that lies in the data set's folder."""
        if image is None or image["bytes"] is not None:
            return None if image is None else image["bytes"]
        path = Path(image["path"] or "").absolute()
        inside = self._folder is not None and path.is_relative_to(self._folder)
        return path if inside and ".." not in path.parts else None

    def _files(self) -> list[Path]:
        if self._folder is None:
            return super()._files()
        images = map(self._encoded, self._values(self._content))
        return super()._files() + [image for image in images if isinstance(image, Path)]


class HubTexts(HubRows, TextDataset):
    """Rows with a text; see `HubRows`."""

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on."""
        for position, text in enumerate(self._values(self._content, start), start):
            yield TextItem(text, self._label(position), row_id(position), self._group(position))


def open_hub(spec: str, wanted: Wanted) -> HubImages | HubTexts:
    """Open a data set of the library ``datasets``.

    A folder that exists is read from disk and never touches the network: one that the library
    saved (``save_to_disk``), or files that it knows. Of the latter, and of what comes from the
    hub, the library keeps a copy in its cache (``HF_HOME``). Code that comes with a data set is
    never run.

    Parameters
    ----------
    spec : str
        ``hf:PATH`` or ``hf:OWNER/NAME``; then, where there are several, ``#CONFIG``, and
        ``:SPLIT`` at the end.
    wanted : Wanted
        Column of the texts: given, the rows are texts; by default images are, and ``text`` or
        ``sentence`` where no column holds images. Column of the labels: by default ``label``,
        else the only column of classes. Class names, where a column of classes does not state
        them; without either, labels that are strings are named by the labels themselves, which is
        a look at private data; see `open_dataset`.

    Raises
    ------
    DatasetError
        If there is no such data set, configuration, split or column; if the hub cannot be
        reached; or if a label is missing or outside the classes.
    MissingDependencyError
        If datasets is not installed.
    """
    wanted.refuse(spec)
    wanted.refuse_group_file(spec)
    text_column = wanted.text_column
    require("datasets", f"{PREFIX}…", "datasets")
    place, config, split = _parts(spec)
    local = Path(place).expanduser()
    folder = local.resolve() if place and local.is_dir() else None
    if folder is None:
        _ask_hub(spec, place)
        splits = _built(spec, place, config)
    else:
        splits = _saved(spec, folder, config) or _built(spec, str(folder), config)
    rows = _split(spec, splits, split)
    name = (folder.name if folder else place) + (f":{split}" if split else "")
    image = None if text_column else _image_column(spec, rows.features)
    if image is not None:
        return HubImages(name, rows, image, wanted, folder)
    text = choose_column(spec, list(rows.features), "text_column", text_column, TEXT_COLUMNS)
    if text is None or getattr(rows.features[text], "dtype", "") not in ("string", "large_string"):
        raise DatasetError(
            f"{spec} has no column of images, and none of strings named "
            f"{text_column or ' or '.join(TEXT_COLUMNS)}; its columns are "
            f"{', '.join(rows.features)}. Name the one with the texts: text_column=…"
        )
    return HubTexts(name, rows, text, wanted, folder)


def _parts(spec: str) -> tuple[str, str, str]:
    """Path or name, configuration and split; the last two may be empty."""
    place = spec.removeprefix(PREFIX)
    found = {}
    for mark, what in ((":", "split"), ("#", "configuration")):
        # A folder may be named with these marks.
        before, sign, after = ("", "", "") if Path(place).is_dir() else place.rpartition(mark)
        if sign and not _WORD.fullmatch(after):
            raise DatasetError(
                f"{spec}: {after!r} cannot be the name of a {what}; a data set is named "
                "hf:OWNER/NAME#CONFIG:SPLIT or hf:PATH#CONFIG:SPLIT, without slices."
            )
        place, found[what] = (before, after) if sign else (place, "")
    return place, found["configuration"], found["split"]


def _saved(spec: str, folder: Path, config: str) -> dict[str, Any] | None:
    """Splits of a folder that ``save_to_disk`` wrote; None if it is another."""
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return None
    if config:
        raise DatasetError(f"{spec}: a saved data set has no configurations: leave #{config} away.")
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(folder, keep_in_memory=False)
    # Damaged files raise whatever they like.
    except Exception:
        raise DatasetError(f"{spec}: the saved data set in {folder} is damaged or empty.") from None
    splits = dict(found) if isinstance(found, DatasetDict) else {str(found.split or ""): found}
    files = [Path(file["filename"]) for rows in splits.values() for file in rows.cache_files]
    if not all(file.resolve().is_relative_to(folder) for file in files):
        raise DatasetError(f"{spec}: the saved data set in {folder} names files outside it.")
    return splits


def _ask_hub(spec: str, name: str) -> None:
    """Refuse a name that the hub does not know, or cannot be asked for, before long waiting."""
    if Path(name).is_file():
        raise DatasetError(f"{spec}: {name} is a file: name it without {PREFIX}, or its folder.")
    if not _NAME.fullmatch(name):
        raise DatasetError(
            f"{spec}: there is no folder {name}, nor can a data set of the hub be named so."
        )
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if is_offline_mode():
        return
    try:
        HfApi().dataset_info(name, timeout=_PATIENCE)
    except GatedRepoError as error:
        raise DatasetError(
            f"{spec}: access to it must be asked for on the hub; then log in: hf auth login."
        ) from error
    except RepositoryNotFoundError as error:
        raise DatasetError(
            f"{spec}: there is no folder {name}, and the hub shows no data set {name!r}: check "
            "its name, or log in if it is private."
        ) from error
    # The client raises those of its HTTP library too.
    except Exception as error:
        raise DatasetError(
            f"{spec}: there is no folder {name}, and the hub cannot be asked for a data set of "
            f"this name ({type(error).__name__}). Check the network; give the path of a copy; or "
            "set HF_HUB_OFFLINE=1 to use one that was fetched before."
        ) from error


def _built(spec: str, place: str, config: str) -> dict[str, Any]:
    """Splits of a folder or of the hub, fetched and brought into Arrow files by the library."""
    from datasets import load_dataset_builder

    folder = Path(place) if Path(place).is_absolute() else None
    if folder is not None:
        _refuse_named_outside(spec, folder)
    try:
        builder = load_dataset_builder(place, config or None)
    except ConnectionError as error:
        raise DatasetError(
            f"{spec}: the hub is out of reach, or HF_HUB_OFFLINE is set, and the library datasets "
            "has no copy of it: give the path of one."
        ) from error
    # The library raises errors of many kinds; no row has been read yet.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DatasetError(
            f"{spec}: the library datasets cannot open it ({type(error).__name__}: {reason})."
        ) from error
    if any(kind.__module__.endswith(".webdataset.webdataset") for kind in type(builder).__mro__):
        raise DatasetError(
            f"{spec} holds WebDataset tars, in which the library may decode pickles: name the "
            f".tar files or their folder without {PREFIX}."
        )
    if folder is not None:
        _refuse_found_outside(spec, folder, builder)
    try:
        builder.download_and_prepare()
        return dict(builder.as_dataset())
    # Their texts may quote a row.
    except Exception as error:
        raise DatasetError(
            f"{spec}: the library datasets cannot read its files ({type(error).__name__}). Check "
            "the files, the network and the room on the disk."
        ) from None


def _refuse_named_outside(spec: str, folder: Path) -> None:
    """Refuse files elsewhere that a folder's own notes ask for, before the library looks there."""
    for name in _NOTES:
        if not (folder / name).exists():
            continue
        try:
            text = read_regular(folder / name, limit="json_bytes").decode("utf-8", "replace")
            found = _FRONT_MATTER.match(text)
            header = text if name.endswith(".yaml") else found[1] if found else ""
            check_limit("yaml_bytes", len(header), f"the header has {len(header):,} characters")
            _, content = parse_yaml(header, name)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DatasetError(f"{spec}: {folder / name} cannot be read: {reason}") from None
        asked = content.get("configs") if isinstance(content, dict) else None
        for place in _strings(asked):
            if "://" in place or "::" in place or place[:1] in ("/", "~") or _leads_out(place):
                raise DatasetError(
                    f"{spec}: {name} of the folder asks for files outside it: copy them into it, "
                    "or take the entry out of its configs."
                )


def _leads_out(place: str) -> bool:
    return ".." in place.replace("\\", "/").split("/")


def _strings(content: Any) -> Iterator[str]:
    """All texts below a value."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _strings(part)


def _refuse_found_outside(spec: str, folder: Path, builder: Any) -> None:
    """Refuse files that lie elsewhere behind a link, and what is no file."""
    files = getattr(builder.config, "data_files", None) or {}
    for name in (str(file) for split in files.values() for file in split):
        path = Path(name.partition("::")[0])
        if "://" in name or not path.resolve().is_relative_to(folder):
            raise DatasetError(f"{spec}: the folder asks for files outside it: copy them into it.")
        refuse_irregular(path)


def _split(spec: str, splits: dict[str, Any], wanted: str) -> Any:
    if wanted in splits:
        return splits[wanted]
    if not wanted and len(splits) == 1:
        return next(iter(splits.values()))
    listed = ", ".join(filter(None, splits)) or "one without a name"
    if not wanted:
        raise DatasetError(f"{spec} has several splits ({listed}): name one, {spec}:SPLIT.")
    hint = did_you_mean(wanted, list(splits))
    raise DatasetError(f"{spec}: there is no split {wanted!r}, but {listed}.{hint}")


def _image_column(spec: str, features: Any) -> str | None:
    from datasets import Image

    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    if len(found) > 1 and "image" not in found:
        raise DatasetError(
            f"{spec} has several columns of images ({', '.join(found)}), and none is named 'image'."
        )
    return "image" if "image" in found else next(iter(found), None)


def _label_column(name: str, features: Any, wanted: str | None) -> str | None:
    from datasets import ClassLabel

    label = choose_column(name, list(features), "label_column", wanted, ("label",))
    if label is None:
        found = [key for key, feature in features.items() if isinstance(feature, ClassLabel)]
        if len(found) > 1:
            raise DatasetError(
                f"{name} has several columns of classes ({', '.join(found)}): name one, "
                "label_column=…"
            )
        return found[0] if found else None
    kind = str(getattr(features[label], "dtype", "another type"))
    if not kind.startswith(("int", "uint", "float", "bool", "string", "large_string")):
        raise DatasetError(f"column {label!r} of {name} must hold integers or strings, got {kind}.")
    return label


def _stated_names(feature: Any) -> list[str] | None:
    """Names that a column of classes states, which counts as its owner's statement."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel) or not feature.names:
        return None
    if isinstance(feature.names, str):  # the library takes its characters for names
        raise DatasetError(
            f"the data set states its class names as the text {feature.names!r}, where a list is "
            "meant: correct the README.md of its folder."
        )
    return list(feature.names)


def _as_stored(rows: Any, columns: list[str]) -> Any:
    """The columns as Arrow holds them: images stay encoded."""
    from datasets import Image

    rows = rows.select_columns(columns)
    for column in columns:
        if isinstance(rows.features[column], Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows.with_format("arrow")
