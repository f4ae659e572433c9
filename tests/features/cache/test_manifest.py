"""A manifest whose checksum is right and whose content is not is refused by the field."""

import json

import pytest

from dpfc.experiments.cli.app import main
from dpfc.features import CacheDescription, FeatureCache, FeatureCacheError
from dpfc.features.cache.manifest import Manifest, Shard, Skipped, _checksum

BODY = Manifest(
    CacheDescription(4, class_names=("a", "b")),
    (Shard("part-00000.parquet", 3, "0" * 64),),
    complete=True,
    skipped=(Skipped("7", "no image", 0),),
).to_dict()
DELETED = object()
OTHERS = (None, 3, -1, 1.5, "text", [], [1, "a"], {}, {"a": 1}, True, 10**400, [[]], DELETED)
# What each field may be, of the values above; the backbone's and others' content is free.
ALLOWED = {
    "n_features": (3,),
    "shard_rows": (3,),
    "class_names": (None, []),
    "has_labels": (True,),
    "has_ids": (True,),
    "complete": (True,),
    "n_samples": (3,),
    "backbone": ({}, {"a": 1}),
    "preprocessing": ({}, {"a": 1}),
    "dataset": ({}, {"a": 1}),
    "skipped": ([], DELETED),
    "shards": ([],),  # then the list of skipped rows is wrong
    "shards.0.rows": (3,),
    "skipped.0.id": ("text",),
    "skipped.0.reason": ("text",),
}
FIELDS = [name for name in BODY if name not in ("sha256", "format", "format_version")]
FIELDS += [f"shards.0.{name}" for name in ("file", "rows", "sha256")]
FIELDS += [f"skipped.0.{name}" for name in ("id", "reason", "shard")]
FIELDS += ["shards.0", "skipped.0"]


def write(folder, field, value):
    body = json.loads(json.dumps(BODY))
    del body["sha256"]
    *way, name = (int(part) if part.isdigit() else part for part in field.split("."))
    node = body
    for part in way:
        node = node[part]
    if value is DELETED:
        del node[name]
    else:
        node[name] = value
    body["sha256"] = _checksum(body)
    (folder / "manifest.json").write_text(json.dumps(body, indent=2) + "\n")


def same(value, other):
    return type(value) is type(other) and value == other


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_field_of_a_manifest_is_named(tmp_path, field):
    refused = 0
    for value in OTHERS:
        if any(same(value, allowed) for allowed in ALLOWED.get(field, ())):
            continue
        if value is DELETED and field.endswith(".0"):
            continue  # a list without its entry is another manifest
        write(tmp_path, field, value)
        with pytest.raises(FeatureCacheError, match=r"lacks a field or has one of") as error:
            FeatureCache.open(tmp_path)
        assert field in str(error.value)
        assert str(tmp_path / "manifest.json") in str(error.value)
        refused += 1
    assert refused > 8


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    write(tmp_path, "shards.0.rows", "many")
    assert main(["features", "info", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "manifest.json" in said
    assert "shards.0.rows must be an int" in said
