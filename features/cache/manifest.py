"""The manifest of a feature cache: what the features are, and the checksum of every shard."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpfc._support.files import read_regular
from dpfc.features.exceptions import FeatureCacheError

__all__ = ["MANIFEST_NAME", "CacheDescription", "Manifest", "Shard", "Skipped", "shard_name"]

MANIFEST_NAME = "manifest.json"
FORMAT = "dpfc feature cache"
FORMAT_VERSION = 1
# Caches with groups, which a dpfc that does not know of them must not take for rows alone.
_GROUPED_VERSION = 2
DTYPES = ("float16", "float32")
SHARD_NAME = re.compile(r"part-\d{5}\.parquet")
# What Arrow's lists and NumPy's shapes hold everywhere.
_MAX_SIZE = 2**31 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


def shard_name(index: int) -> str:
    """File name of the shard at a position."""
    return f"part-{index:05d}.parquet"


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a cache: its name, rows and SHA-256."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A row of the data set that could not be read: its id, why, and the shard it is missing in."""

    id: str
    reason: str
    shard: int


# What a data set's "labels" are where class names were collected from private labels.
NUMBERED_BY_ROWS = "numbered in the order of the names that occur"


@dataclass(frozen=True)
class CacheDescription:
    """What the rows of a cache are; decided before the first is written.

    Attributes
    ----------
    n_features : int
        Length of a feature row.
    dtype : {"float16", "float32"}
        How features are stored.
    class_names : tuple of str or None
        Names of the labels 0, 1, ….
    has_labels, has_ids, has_groups : bool
        Whether the columns ``label``, ``id`` and ``group`` exist. A group says which person, or
        other unit of privacy, a row belongs to.
    shard_rows : int
        Rows of the data set that a shard covers: its own rows and those skipped; fewer in the
        last.
    backbone, preprocessing, dataset : dict
        Where the features come from (JSON); empty if unknown.
    """

    n_features: int
    dtype: str = "float16"
    class_names: tuple[str, ...] | None = None
    has_labels: bool = True
    has_ids: bool = False
    shard_rows: int = 8192
    backbone: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    has_groups: bool = False

    def __post_init__(self) -> None:
        for name in ("n_features", "shard_rows"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MAX_SIZE:
                raise ValueError(f"{name} must be an int > 0 and < 2^31, got {value!r:.40}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r:.40}.")
        for name in ("has_labels", "has_ids", "has_groups"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be a bool, got {getattr(self, name)!r:.40}.")
        names = self.class_names
        if isinstance(names, str) or not all(isinstance(name, str) for name in names or ()):
            raise ValueError("class_names must be a list of strings.")
        for name in ("backbone", "preprocessing", "dataset"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a dictionary.")

    def differences(self, other: "CacheDescription") -> list[str]:
        """Where two descriptions differ, as ``key (this, that)``; a data set's name may."""
        # Through JSON, because one of the two may have been read from a file.
        mine, theirs = (_flatten(json.loads(json.dumps(asdict(d)))) for d in (self, other))
        keys = [key for key in {**mine, **theirs} if key != "dataset.name"]
        return [
            f"{key} ({mine.get(key)!r}, {theirs.get(key)!r})"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]


@dataclass(frozen=True)
class Manifest:
    """A description, the finished shards with the rows skipped in them, and whether that is all.

    `passes` says how rows went through the backbone, and that it was looked at; None where
    no backbone ran here, and in caches of older versions.
    """

    description: CacheDescription
    shards: tuple[Shard, ...] = ()
    complete: bool = False
    skipped: tuple[Skipped, ...] = ()
    passes: Mapping[str, str] | None = None

    def covered(self, index: int) -> int:
        """Rows of the data set that a shard covers, the skipped ones with it."""
        return self.shards[index].rows + sum(row.shard == index for row in self.skipped)

    def first(self, shards: int) -> "Manifest":
        """The same cache cut after so many shards, incomplete."""
        kept = tuple(row for row in self.skipped if row.shard < shards)
        return Manifest(self.description, self.shards[:shards], skipped=kept, passes=self.passes)

    def to_dict(self) -> dict[str, Any]:
        """Contents of ``manifest.json`` as a dictionary."""
        contents: dict[str, Any] = json.loads(self.to_json())
        return contents

    def to_json(self) -> bytes:
        """Contents of ``manifest.json``; the same for the same manifest, byte by byte."""
        described = asdict(self.description)
        # Left out where there are none: the manifest is then the one of every version.
        grouped = described.pop("has_groups")
        body = {
            "format": FORMAT,
            "format_version": _GROUPED_VERSION if grouped else FORMAT_VERSION,
            "complete": self.complete,
            "n_samples": sum(shard.rows for shard in self.shards),
            **described,
            **({"has_groups": True} if grouped else {}),
            **({} if self.passes is None else {"passes": dict(self.passes)}),
            "shards": [asdict(shard) for shard in self.shards],
            "skipped": [asdict(row) for row in self.skipped],
        }
        body["sha256"] = _checksum(body)
        return _encode(body)

    @classmethod
    def read(cls, folder: Path, *, strict: bool = False) -> "Manifest":
        """Read and check the manifest of a folder.

        Parameters
        ----------
        folder : Path
        strict : bool
            Refuse every byte that differs from what dpfc wrote, spaces between values as well.

        Raises
        ------
        FeatureCacheError
            If it is missing, damaged, of another format, or names files that are not shards.
        """
        path = folder / MANIFEST_NAME
        try:
            content = read_regular(path, limit="json_bytes")
            body = json.loads(content)
        except FileNotFoundError:
            raise FeatureCacheError(
                f"{folder} is not a feature cache: it holds no {MANIFEST_NAME}. "
                "Write one with `dpfc extract`."
            ) from None
        except OSError as error:
            raise FeatureCacheError(f"cannot read {path}: {error.strerror}.") from error
        except (ValueError, RecursionError):
            raise _damaged(path, "is not valid JSON") from None
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise _damaged(path, "is not the manifest of a feature cache, or is damaged")
        if body.get("format_version") not in (FORMAT_VERSION, _GROUPED_VERSION):
            raise FeatureCacheError(
                f"{path} has format version {body.get('format_version')!r}, this dpfc reads "
                f"versions {FORMAT_VERSION} and {_GROUPED_VERSION}: use the dpfc that wrote it, or "
                "extract again."
            )
        if body.pop("sha256", None) != _checksum(body):
            raise _damaged(path, "does not match its own checksum")
        if strict and content != _encode(body | {"sha256": _checksum(body)}):
            raise _damaged(path, "is not laid out as dpfc writes it: a byte was changed")
        try:
            return cls._parse(body)
        except ValueError as error:
            said = f"lacks a field or has one of the wrong type ({str(error).rstrip('.')})"
            raise _damaged(path, said) from None

    @classmethod
    def _parse(cls, body: dict[str, Any]) -> "Manifest":
        """Take a manifest apart; a ValueError names the field."""
        wanted = [key for key in CacheDescription.__dataclass_fields__ if key != "has_groups"]
        fields = {key: _field(body, key) for key in wanted}
        fields["has_groups"] = _grouped(body)
        names = fields["class_names"]
        if not isinstance(names, list | None):  # a text's characters would be taken for names
            raise ValueError("class_names must be a list or null")
        fields["class_names"] = None if names is None else tuple(names)
        description = CacheDescription(**fields)
        shards = tuple(map(_shard, *_numbered(_field(body, "shards"), "shards")))
        if type(_field(body, "complete")) is not bool:
            raise ValueError("complete must be true or false")
        # Caches of the first versions have no such list.
        skipped = tuple(map(_skipped, *_numbered(body.get("skipped", []), "skipped")))
        for place, row in enumerate(skipped):
            if not 0 <= row.shard < len(shards):
                raise ValueError(f"skipped.{place}.shard must be the place of one of the shards")
        emptied = {row.shard for row in skipped}
        # A shard without rows is one whose rows were all skipped.
        for index, shard in enumerate(shards):
            if shard.rows == 0 and index not in emptied:
                raise ValueError(f"shards.{index}.rows must be above 0")
        n_samples = _field(body, "n_samples")
        if type(n_samples) is not int or n_samples != sum(shard.rows for shard in shards):
            raise ValueError("n_samples must be the sum of the rows of all shards")
        return cls(description, shards, body["complete"], skipped, _passes(body.get("passes")))


def _grouped(body: Mapping[str, Any]) -> bool:
    """Whether the rows have groups, which the version says too."""
    grouped = body.get("has_groups", False)
    if grouped is not (body["format_version"] == _GROUPED_VERSION):
        raise ValueError(f"has_groups must be true in version {_GROUPED_VERSION}, and only there")
    return bool(grouped)


def _field(node: Mapping[str, Any], name: str, at: str = "") -> Any:
    if name not in node:
        raise ValueError(f"{at}{name} is missing")
    return node[name]


def _numbered(nodes: object, name: str) -> tuple[list[dict[str, Any]], range]:
    """The objects of a list, and their places."""
    if not isinstance(nodes, list):
        raise ValueError(f"{name} must be a list")
    for index, node in enumerate(nodes):
        if not isinstance(node, dict):
            raise ValueError(f"{name}.{index} must be an object")
    return nodes, range(len(nodes))


def _shard(node: dict[str, Any], index: int) -> Shard:
    at = f"shards.{index}."
    # Plain names in order: nothing outside the folder, and no shard twice.
    if _field(node, "file", at) != shard_name(index):
        raise ValueError(f"{at}file must be {shard_name(index)}")
    rows, sha256 = _field(node, "rows", at), _field(node, "sha256", at)
    if type(rows) is not int or not 0 <= rows <= _MAX_SIZE:
        raise ValueError(f"{at}rows must be an int >= 0 and < 2^31")
    if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise ValueError(f"{at}sha256 must be 64 digits of base 16")
    return Shard(node["file"], rows, sha256)


def _skipped(node: dict[str, Any], index: int) -> Skipped:
    at = f"skipped.{index}."
    for name in ("id", "reason"):
        if not isinstance(_field(node, name, at), str):
            raise ValueError(f"{at}{name} must be a text")
    if unknown := node.keys() - Skipped.__dataclass_fields__:
        raise ValueError(f"{at}{min(unknown)} is not known")
    if type(_field(node, "shard", at)) is not int:
        raise ValueError(f"{at}shard must be an int")
    return Skipped(node["id"], node["reason"], node["shard"])


def _passes(node: object) -> dict[str, str] | None:
    if node is None:
        return None
    if not (isinstance(node, dict) and all(isinstance(value, str) for value in node.values())):
        raise ValueError("passes must be an object of texts, or be left out")
    return node


def _damaged(path: Path, what: str) -> FeatureCacheError:
    return FeatureCacheError(f"{path} {what}: write it afresh with `dpfc extract --overwrite`.")


def _encode(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=2) + "\n").encode()


def _checksum(body: dict[str, Any]) -> str:
    """SHA-256 of everything else in the manifest, whatever its layout."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
