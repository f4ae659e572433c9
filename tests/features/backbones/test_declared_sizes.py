"""What files declare is compared with a limit before anything of that size is allocated."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc._support.limits import LIMITS
from dpfc.features import DatasetError, import_features, load_backbone
from dpfc.features.backbones.hub_folder import _refuse_sizes


def onnx_file(path, side, rows=None):
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["y"]),
        ],
        "pool",
        [helper.make_tensor_value_info("x", float32, [rows or "n", 3, side, side])],
        [helper.make_tensor_value_info("y", float32, [rows or "n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("side", "rows", "limit"), [(20_000, None, "image_side"), (8, 10**6, "image_rows")]
)
def test_an_onnx_file_of_huge_inputs_is_refused_by_its_limit(tmp_path, side, rows, limit):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=f"the limit {limit} is .*DPFC_LIMIT_{limit.upper()}"):
        load_backbone(f"onnx:{onnx_file(tmp_path / 'model.onnx', side, rows)}")


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"num_hidden_layers": 10**6}, "network_layers"),
        ({"vision_config": {"num_hidden_layers": 10**6}}, "network_layers"),
        ({"hidden_size": 2**40}, "network_width"),
        ({"image_size": 10**6}, "image_side"),
    ],
)
def test_a_hub_configuration_of_huge_sizes_is_refused_by_its_limit(config, limit, monkeypatch):
    with pytest.raises(ValueError, match=f"the limit {limit} is "):
        _refuse_sizes(config, "hf:folder")
    monkeypatch.setenv(f"DPFC_LIMIT_{limit.upper()}", str(2**50))
    _refuse_sizes(config, "hf:folder")


def test_an_array_whose_blocks_are_larger_than_their_limit_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "rows.npz"
    np.savez_compressed(
        path, features=np.zeros((3_000, 50), np.float32), labels=np.arange(3_000) % 2
    )
    monkeypatch.setenv("DPFC_LIMIT_ARRAY_BYTES", "10_000")
    with pytest.raises(DatasetError, match="the limit array_bytes is 10,000"):
        import_features(path, tmp_path / "cache")
    monkeypatch.delenv("DPFC_LIMIT_ARRAY_BYTES")
    assert len(import_features(path, tmp_path / "cache")) == 3_000


def test_the_limits_stand_in_the_docs(request):
    page = (request.config.rootpath / "docs" / "command-line.md").read_text()
    assert all(f"`{name}`" in page for name in LIMITS)
