"""Files that can be parsed and hold the wrong types are refused in words, by file and field."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dpfc import DPFCClassifier, DPSGDClassifier, load_model
from dpfc.exceptions import ModelFileError
from dpfc.experiments.cli.app import main
from dpfc.experiments.studies.store import RunStore, results_schema
from dpfc.experiments.studies.table import load_results
from dpfc.features import DatasetError, FeatureCache, import_features

VALUES = (None, 3, -1, "text", "", [], [1, "a"], {}, {"a": 1}, 10**400, 1e308, True, 1.5, [[]])
X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def spoilt(document):
    """A document with each field, at two depths, deleted and replaced by each value."""
    for key, value in document.items():
        yield {k: v for k, v in document.items() if k != key}
        yield from ({**document, key: other} for other in VALUES)
        if isinstance(value, dict):
            yield from ({**document, key: inner} for inner in spoilt(value))
        elif isinstance(value, list) and value:
            yield from ({**document, key: [other, *value[1:]]} for other in VALUES)


@pytest.fixture(scope="module", params=[DPFCClassifier, DPSGDClassifier], ids=["linear", "network"])
def saved(request, tmp_path_factory):
    options = {"epsilon": 1.0, "delta": 1e-5, "classes": [0, 1, 2]}
    if request.param is DPSGDClassifier:
        options |= {"module": "linear", "n_steps": 1, "sampling_probability": 0.5}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    request.param(**options).fit(X, Y).save(path)
    with safe_open(path, "numpy") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    fields = {name: json.loads(t) if t[:1] in ("{", "[") else t for name, t in header.items()}
    privacy = {"privacy": fields.pop("privacy")}
    return fields, tensors, privacy


def test_a_model_file_with_a_wrong_field_loads_and_predicts_or_is_refused(saved, tmp_path):
    fields, tensors, privacy = saved
    path, refused = tmp_path / "bad.safetensors", 0
    for document in spoilt(fields):
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in {**privacy, **document}.items()
        }
        save_file(tensors, path, metadata=texts)
        try:
            load_model(path).predict(X)
        except ModelFileError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 200


RUN = {
    **dict.fromkeys(results_schema().names),
    "key": "a1",
    "study": "s",
    "dataset": "digits",
    "method": "fc",
    "label": "DP-FC",
    "epsilon": 1.0,
    "delta": 1e-5,
    "seed": 0,
    "parameters": "{}",
    "status": "ok",
    "accuracy": 0.5,
    "class_names": ["a", "b"],
    "confusion": [[1, 1], [1, 1]],
    "n_classes": 2,
    "versions": "{}",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("parameters", text) for text in ("", "null", "3", "[1]", '{"a": [1]}', "[" * 5000)],
        *[("versions", text) for text in ("null", "[]", '{"a": 1}')],
        *[("accuracy", value) for value in (None, float("nan"), float("inf"), -1.0, 5.0)],
        *[("epsilon", value) for value in (None, float("nan"), -1.0, 0.0)],
        *[("status", value) for value in (None, "", "fine")],
        *[("confusion", value) for value in ([], [[1]], [[1, 2], [3]], [None, None])],
        *[("class_names", value) for value in (["a"], [None, None])],
        *[("dataset", None), ("label", None), ("seed", -1), ("seconds", float("inf"))],
    ],
)
def test_a_table_of_results_with_a_wrong_field_is_refused_by_it(tmp_path, field, value):
    table = pa.Table.from_pylist([RUN, {**RUN, field: value}], schema=results_schema())
    pq.write_table(table, tmp_path / "results.parquet")
    with pytest.raises(ValueError, match=r"in row 1, counted from 0, ") as error:
        load_results(tmp_path)
    assert field in str(error.value) or "n_classes" in str(error.value)
    assert str(tmp_path / "results.parquet") in str(error.value)


def test_a_run_with_a_wrong_field_is_refused_by_its_file(tmp_path):
    path = tmp_path / "runs" / "a1.json"
    path.parent.mkdir()
    good = {**RUN, "parameters": {"alpha": 1}, "versions": {"numpy": "2"}}
    path.write_text(json.dumps(good))
    assert RunStore(tmp_path).get("a1") == good
    refused = 0
    for document in spoilt(good):
        path.write_text(json.dumps(document))
        try:
            RunStore(tmp_path).write_table("s", [])
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


def npy(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode("latin1")
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(96)


@pytest.mark.parametrize(
    "shape", ["(-6, 4)", "(True, 4)", "(2**70, 4)", f"({2**70}, 4)", "()", "(6.0, 4)", "None"]
)
def test_an_array_of_a_shape_that_is_none_is_refused(tmp_path, shape, capsys):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(shape))
    with pytest.raises(DatasetError, match=r"x\.npy"):
        import_features(path, tmp_path / "out")
    assert main(["features", "import", str(path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "x.npy" in said and said.count("\n") == 1 and "internal error" not in said


def test_class_names_that_are_a_single_value_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=Y, class_names=np.array("a"))
    with pytest.raises(DatasetError, match=r"'class_names' of .*x\.npz is a single value"):
        import_features(tmp_path / "x.npz", tmp_path / "out")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compressed_archive_with_a_changed_byte_is_refused_by_its_name(tmp_path, compression):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in (("X", X), ("y", Y)):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    data, refused = path.read_bytes(), 0
    for place in range(30, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            import_features(path, tmp_path / "out", overwrite=True)
        except DatasetError as error:
            assert "x.npz" in str(error)
            refused += 1
        else:  # a byte that no reader looks at
            kept, labels = FeatureCache.open(tmp_path / "out").load()
            assert np.array_equal(kept, X.astype(np.float16)) and np.array_equal(labels, Y)
    assert refused > 50


def test_a_parameter_that_a_model_does_not_have_is_named(saved, tmp_path):
    fields, tensors, privacy = saved
    fields = fields | privacy | {"parameters": {**fields["parameters"], "intercep0": 1}}
    header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
    save_file(tensors, tmp_path / "bad.safetensors", metadata=header)
    with pytest.raises(ModelFileError, match=r"bad\.safetensors is damaged: .*'intercep0'"):
        load_model(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_an_array_that_states_fewer_rows_than_it_holds_is_refused(tmp_path, name):
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, X)
    data = (tmp_path / name).read_bytes()
    assert data.count(b"(30, 4)") == 1
    (tmp_path / name).write_bytes(data.replace(b"(30, 4)", b"(20, 4)"))
    with pytest.raises(DatasetError, match=r"x\.np[yz].*(goes on behind|is damaged)"):
        import_features(tmp_path / name, tmp_path / "out")
