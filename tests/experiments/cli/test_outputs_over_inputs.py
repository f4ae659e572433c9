"""No command overwrites what it reads, by whatever name the file is called and however forced."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dpfc.features import FeatureCache, import_features

FIT = "fit --features {cache} --epsilon 1"
TRAIN = "train --features {cache} --epsilon 1 --steps 1"
COMMANDS = {
    f"{FIT} --out": ("cache/manifest.json", "cache/part-00001.parquet", "ledger.db-journal"),
    f"{FIT} --public-features {{public}} --out": ("public/manifest.json",),
    f"{TRAIN} --out": ("cache/part-00000.parquet",),
    f"{TRAIN} --schedule refined --schedule-norms {{model}} --out": ("model",),
    f"{TRAIN} --out {{new}} --checkpoint": ("cache/part-00000.parquet",),
    "search --features {cache} --epsilon 1 --try logit_noise=0.4,0.7 --out": (
        "cache/manifest.json",
    ),
    "predict --model {model} --features {cache} --out": ("cache/part-00000.parquet",),
    "predict --model {model} --text {table} --out": ("table.csv",),
    "features export {cache} --out": ("cache/part-00000.parquet",),
    "report privacy {model} --out": ("model",),
}
CASES = [(line, file, "plain") for line, files in COMMANDS.items() for file in files]
WAYS = ("link", "linked folder", "roundabout", "hard link")
CASES += [(f"{FIT} --out", "cache/manifest.json", way) for way in WAYS]


@pytest.fixture
def places(write_cache, fitted, tmp_path):
    for name in ("cache", "public"):
        write_cache(tmp_path / name)
    shutil.copy(fitted, tmp_path / "model")
    (tmp_path / "table.csv").write_text("text\nwords\n")
    (tmp_path / "ledger.db-journal").write_text("what is undone")
    names = ("cache", "public", "model", "new")
    return {**{name: tmp_path / name for name in names}, "table": tmp_path / "table.csv"}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(dpfc, root, line, out):
    before = contents(root)
    words = [*line, str(out)] + ([] if line[-1] == "--checkpoint" else ["--force"])
    done = dpfc(*words)
    assert done.code == 1 and "a file that this command reads" in done.err, done.err
    assert done.err.count("\n") == 1 and contents(root) == before


@pytest.mark.parametrize(("line", "file", "way"), CASES, ids=map(" ".join, CASES))
def test_no_output_replaces_a_file_that_its_command_reads(dpfc, places, tmp_path, line, file, way):
    out = tmp_path / file
    if way == "link":
        out = tmp_path / f"link{out.suffix}"
        out.symlink_to(tmp_path / file)
    elif way == "hard link":
        out = tmp_path / f"same{out.suffix}"
        out.hardlink_to(tmp_path / file)
    elif way == "linked folder":
        (tmp_path / "elsewhere").symlink_to((tmp_path / file).parent)
        out = tmp_path / "elsewhere" / out.name
    elif way == "roundabout":
        out = out.parent / ".." / out.parent.name / out.name
    words = [part.format(**places) for part in line.split()]
    if "journal" in file:
        words[1:1] = ["--ledger", str(tmp_path / "ledger.db"), "--dataset", "x"]
    refuses(dpfc, tmp_path, words, out)


def test_what_a_link_in_a_cache_leads_to_is_read_too(dpfc, places, tmp_path):
    shard, kept = tmp_path / "cache" / "part-00000.parquet", tmp_path / "kept.parquet"
    shard.rename(kept)
    shard.symlink_to(kept)
    export = ["features", "export", tmp_path / "cache", "--out"]
    refuses(dpfc, tmp_path, export, kept)
    refuses(dpfc, tmp_path, export, shard)


def test_what_was_made_of_a_cache_and_lies_beside_its_files_can_be_overwritten(dpfc, places):
    words = ["features", "export", places["cache"], "--out", places["cache"] / "rows.csv"]
    assert dpfc(*words).code == 0
    assert dpfc(*words, "--force").code == 0


def test_tables_and_pages_of_a_study_do_not_replace_its_configuration_or_runs(dpfc, tmp_path):
    study = tmp_path / "study"
    (study / "runs").mkdir(parents=True)
    (study / "runs" / "1.json").write_text("{}")
    (study / "results.parquet").write_text("rows")
    config = tmp_path / "study.yaml"
    config.write_text(
        "name: s\ndatasets: [{name: d, builtin: digits}]\nmethods: [fc]\nepsilons: [1]\n"
    )
    for command in (["results"], ["report", "sweep"]):
        for file in (config, study / "results.parquet", study / "runs" / "1.json"):
            refuses(dpfc, tmp_path, [*command, config, "--study", study, "--out"], file)


def test_a_cache_is_not_started_afresh_over_what_it_is_made_from(
    dpfc, write_cache, tmp_path, monkeypatch
):
    write_cache(tmp_path / "cache")
    shard = tmp_path / "cache" / "part-00000.parquet"
    np.savez(tmp_path / "rows.npz", X=np.eye(3, dtype=np.float32), y=np.arange(3))
    (tmp_path / "link.npz").symlink_to(tmp_path / "rows.npz")
    before = contents(tmp_path)
    over = ["--out", tmp_path / "cache", "--overwrite"]
    for line in (
        ["features", "import", shard],
        ["features", "import", tmp_path / "link.npz", "--labels", shard],
        ["extract", "--data", shard, "--text-column", "id", "--unlabelled"],
    ):
        done = dpfc(*line, *over)
        assert done.code == 1 and "is what the cache is made from" in done.err, done.err
        assert contents(tmp_path) == before
    assert dpfc("features", "import", tmp_path / "link.npz", *over).code == 0
    assert len(FeatureCache.open(tmp_path / "cache")) == 3
    with pytest.raises(ValueError, match="is what the cache is made from"):
        import_features(shard, tmp_path / "cache", overwrite=True)
