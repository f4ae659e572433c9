"""What a network or its file declares is weighed before anything is allocated."""

import json
import resource

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dpfc import DPSGDClassifier, ModelFileError, load_model
from dpfc._support.limits import LimitError
from dpfc.full_models.networks.factory import NETWORKS, make_network, network_shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_known_without_building(name):
    shape = (12, 3) if name == "dlr" else (3, 16, 16)
    built = make_network(name, input_shape=shape, n_classes=4, seed=0)
    assert network_shapes(name, shape, 4, None) == {
        key: tuple(tensor.shape) for key, tensor in built.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "shape", "classes", "tokens", "limit"),
    [
        ("cnn", (3, 20_000, 20_000), 10, None, "row_numbers"),
        ("vit-tiny", (3, 20_000, 20_000), 10, None, "row_numbers"),
        ("linear", (10**12,), 10, None, "row_numbers"),
        ("linear", (2**20,), 10**6, None, "network_numbers"),
        ("dlr", (8,), 10, 10**9, "network_numbers"),
    ],
)
def test_a_network_above_its_limit_is_refused_before_it_is_built(
    name, shape, classes, tokens, limit
):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimitError, match=f"the limit {limit} is"):
        make_network(name, input_shape=shape, n_classes=classes, vocabulary_size=tokens)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_limit_is_raised_by_its_variable(monkeypatch):
    monkeypatch.setenv("DPFC_LIMIT_ROW_NUMBERS", "100")
    with pytest.raises(LimitError, match="DPFC_LIMIT_ROW_NUMBERS"):
        make_network("linear", input_shape=(101,), n_classes=2)
    monkeypatch.setenv("DPFC_LIMIT_ROW_NUMBERS", "101")
    make_network("linear", input_shape=(101,), n_classes=2)


@pytest.fixture
def model_file(tmp_path):
    draw = np.random.default_rng(0)
    X = draw.random((64, 1, 12, 12)).astype(np.float32)
    model = DPSGDClassifier("mlp", epsilon=float("inf"), n_steps=1, classes=[0, 1])
    model.fit(X, draw.integers(0, 2, 64)).save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def change(path, **values):
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    save_file(load_file(path), path, metadata=header | values)


@pytest.mark.parametrize(
    "values",
    [
        {"input_shape": json.dumps([3, 20_000, 20_000])},
        {"input_shape": json.dumps([1, 4_000, 4_000])},
        {"input_shape": json.dumps([10**30])},
        {"input_shape": json.dumps([-1, 5])},
        {"input_shape": json.dumps("144")},
        {"input_shape": json.dumps([144.5])},
        {"input_shape": json.dumps(None)},
        {"network": "vit-tiny", "input_shape": json.dumps([3, 4_000, 4_000])},
        {"network": "nothing"},
        {"classes": json.dumps(list(range(100_000)))},
        {"classes": json.dumps({"a": 1})},
        {"parameters": json.dumps([])},
        {"parameters": json.dumps({"vocabulary_size": 10**12})},
        {"gradient_norms": json.dumps("abc")},
        {"privacy": "[]"},
    ],
)
def test_a_model_file_that_declares_another_network_is_refused_in_one_line(model_file, values):
    change(model_file, **values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match=r"m\.safetensors"):
        load_model(model_file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
