"""Files that must not become a feature cache, each refused with its place and nothing private."""

import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import DatasetError, import_features

N, WIDTH = 700, 5
X = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
Y = np.arange(N) % 3
IDS = [f"k{i}" for i in range(N)]
NAMES = np.array(["ant", "bee", "cow"])


def save(path, value, **options):
    np.save(path, value, **options)


def cut(path, value):
    np.save(path, value)
    path.write_bytes(path.read_bytes()[:-3])


def bad_npz(path, arrays):
    np.savez(path, **arrays)
    data = bytearray(path.read_bytes())
    data[300] ^= 255
    path.write_bytes(data)


def with_value(row, value, kind=np.float64):
    changed = X.astype(kind)
    changed[row, 2] = value
    return changed


def lists(values):
    return pa.table({"embedding": pa.array(values, pa.list_(pa.float64()))})


E = '{"embedding": [1.5, 2]}\n'
BAD = [
    ("x.npy", lambda p: save(p, X.astype(object), allow_pickle=True), {}, "Python objects.*code"),
    ("x.npy", lambda p: p.write_bytes(pickle.dumps(X)), {}, "is a pickle"),
    ("x.npy", lambda p: cut(p, X), {}, "damaged or cut short"),
    ("x.npy", lambda p: p.write_bytes(b""), {}, "not an array"),
    ("x.npy", lambda p: save(p, X[0]), {}, "1 dimensions"),
    ("x.npy", lambda p: save(p, X[:0]), {}, "is empty"),
    ("x.npy", lambda p: save(p, X[:, :0]), {}, "is empty"),
    ("x.npy", lambda p: save(p, X * 1j), {}, "holds complex64"),
    ("x.npy", lambda p: save(p, X > 0), {}, "holds bool"),
    ("x.npy", lambda p: save(p, X.astype(str)), {}, "real numbers"),
    ("x.npy", lambda p: save(p, with_value(600, np.nan)), {}, "row 600 of .* NaN or infinity"),
    ("x.npy", lambda p: save(p, with_value(3, 7e4)), {}, "row 3 of .* too large .*float32"),
    (
        "x.npy",
        lambda p: save(p, with_value(3, 1e39)),
        {"dtype": "float32"},
        "row 3 of .* too large for float32: scale",
    ),
    ("x.npy", lambda p: save(p, X), {"label_column": "y"}, "label_column='y' does not apply"),
    ("x.npy", lambda p: save(p, X), {"class_names": ["a", "b"]}, "no labels to name"),
    ("x.npy", lambda p: save(p, X), {"dtype": "float64"}, "dtype must be one of"),
    ("x.npy", lambda p: save(p, X), {"on_error": "ignore"}, "on_error must be one of"),
    ("x.npz", lambda p: p.write_bytes(b"PK\x03\x04"), {}, "damaged"),
    ("x.npz", lambda p: bad_npz(p, {"X": X}), {}, "damaged|not an array"),
    ("x.npz", lambda p: np.savez(p, X=X, y=Y[:-1]), {}, r"array 'y' of \S+ has 699 rows"),
    ("x.npz", lambda p: np.savez(p, X=X, y=Y / 2), {}, "row 1 of .* no whole number"),
    ("x.npz", lambda p: np.savez(p, X=X, y=Y.astype(object)), {}, "'y' of .* Python objects"),
    ("x.npz", lambda p: np.savez(p, X=X, y=Y, labels=Y), {}, "y, labels: choose one"),
    ("x.npz", lambda p: np.savez(p, X=X, ids=[*IDS[:-1], "k5"]), {}, "row 699 of .* stands before"),
    ("x.npz", lambda p: np.savez(p, X=X, y=Y), {"class_names": ["a", "b"]}, "row 2 of .*outside"),
    (
        "x.npz",
        lambda p: np.savez(p, X=X, y=Y, class_names=NAMES),
        {"class_names": ["a", "b", "c"]},
        "names its classes otherwise",
    ),
    ("x.npz", lambda p: np.savez(p, X=X), {"features_column": "Z"}, "no array 'Z' .* it has X"),
    ("x.parquet", lambda p: p.write_bytes(b"PAR1 SECRET"), {}, "not a readable Parquet"),
    ("x.parquet", lambda p: pq.write_table(lists([[1.0], None]), p), {}, "row 1 of .* lacks feat"),
    ("x.parquet", lambda p: pq.write_table(lists([[1.0], [None]]), p), {}, "row 1 of .* lacks"),
    ("x.parquet", lambda p: pq.write_table(lists([[1.0], [1, 2]]), p), {}, "row 1 of .* 2 feat"),
    ("x.parquet", lambda p: pq.write_table(lists([[], []]), p), {}, "row 0 of .* 0 features"),
    ("x.parquet", lambda p: pq.write_table(lists([]), p), {}, "holds no rows"),
    ("x.parquet", lambda p: pq.write_table(pa.table({"a": [1]}), p), {}, "none of the columns"),
    (
        "x.parquet",
        lambda p: pq.write_table(pa.table({"f0": [1], "fx": ["SECRET"]}), p),
        {"features_column": "f*"},
        "column 'fx' of .* must hold numbers",
    ),
    (
        "x.parquet",
        lambda p: pq.write_table(pa.table({"f0": pa.array([1.0, None])}), p),
        {"features_column": "f*"},
        "row 1 of .* lacks features",
    ),
    ("e.jsonl", lambda p: p.write_bytes(b""), {}, "holds no embedding"),
    ("e.jsonl", lambda p: p.write_text(E + "\n\n{SECRET"), {}, "line 4 of .* not valid JSON"),
    ("e.jsonl", lambda p: p.write_bytes(E.encode() + b'{"a": "\xff"}'), {}, "line 2 .* not UTF-8"),
    ("e.jsonl", lambda p: p.write_text(E + "[1]"), {}, "line 2 of .* one JSON object"),
    ("e.jsonl", lambda p: p.write_text(E + '\n{"text": "SECRET"}'), {}, "line 3 .* no embedding"),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": [1]}'), {}, "line 2 of .* 1 features"),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": [NaN, 1]}'), {}, "line 2 of .* NaN"),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": [1e999, 1]}'), {}, "line 2 of .* inf"),
    (
        "e.jsonl",
        lambda p: p.write_text(E + f'{{"embedding": [{10**400}, 1]}}'),
        {},
        "line 2 of .* integer too large",
    ),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": [1, "SECRET"]}'), {}, "line 2 .* no num"),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": [1, true]}'), {}, "line 2 .* no number"),
    ("e.jsonl", lambda p: p.write_text(E + '{"embedding": "AACAPw=="}'), {}, "line 2 .* base64"),
    (
        "e.jsonl",
        lambda p: p.write_text(E + '{"embedding": [[1, 2], [3, 4]]}'),
        {},
        "line 2 .* no embedding",
    ),
    (
        "e.jsonl",
        lambda p: p.write_text('{"id": "a", "embedding": [1]}\n' * 2),
        {},
        "line 2 of .* stands before",
    ),
    (
        "e.jsonl",
        lambda p: p.write_text('{"id": "a", "embedding": [1]}\n{"embedding": [1]}'),
        {},
        "line 2 of .* has no id",
    ),
    (
        "e.jsonl",
        lambda p: p.write_text('{"id": "\\ud800", "embedding": [1]}'),
        {},
        "line 1 of .* not valid Unicode",
    ),
    (
        "e.jsonl",
        lambda p: p.write_text('{"label": "SECRET", "embedding": [1]}\n{"embedding": [1]}'),
        {},
        "line 2 of .* has no label",
    ),
    ("e.jsonl", lambda p: p.write_text(E), {"label_column": "y"}, "no field 'y'"),
    (
        "e.jsonl",
        lambda p: p.write_text('{"label": 1, "embeddings": [[1], [2]]}'),
        {},
        "line 1 of .* 2 embeddings and one label",
    ),
    ("e.jsonl", lambda p: p.write_text("[" * 5000), {}, "line 1 of .* not valid JSON"),
    ("x.csv", lambda p: p.write_text("SECRET"), {}, "is a table: its columns become features by"),
    ("x.txt", lambda p: p.write_text("SECRET"), {}, "of no kind that is read as features"),
    ("x", lambda p: p.mkdir(), {}, "is a folder"),
    ("x.npy", lambda p: None, {}, "does not exist"),
]


@pytest.mark.parametrize(("name", "make", "options", "message"), BAD)
def test_bad_features_are_refused_before_anything_is_written(
    tmp_path, name, make, options, message
):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        import_features(tmp_path / name, tmp_path / "c", **options)
    assert "SECRET" not in str(error.value)
    assert str(tmp_path / name) in str(error.value) or "must be" in message or "label" in message
    assert not (tmp_path / "c").exists()


BAD_LABELS = [
    ("y.npy", lambda p: save(p, Y[:-1]), {}, "699 labels for 700 rows"),
    ("y.npy", lambda p: save(p, Y[:, None]), {}, "2 dimensions"),
    ("y.npy", lambda p: save(p, Y + 0.5), {}, "row-000000 of .* no whole number"),
    ("y.npy", lambda p: save(p, Y.astype(object), allow_pickle=True), {}, "Python objects"),
    ("y.npy", lambda p: save(p, Y - 1), {}, "row-000000 of .* outside its classes"),
    ("y.npy", lambda p: save(p, Y), {"label_column": "y"}, "it is no table"),
    ("y.txt", lambda p: p.write_text("SECRET\n" * 700), {"class_names": ["a"]}, "line 1 .*outside"),
    ("y.txt", lambda p: p.write_text("SECRET\n\n"), {}, "line 2 of .* has no label"),
    ("y.txt", lambda p: p.write_bytes(b"\xff\n"), {}, "not UTF-8"),
    # No header: the first label is taken for it, and one is missing then.
    ("y.csv", lambda p: p.write_text("SECRET\n" * 700), {}, "699 labels .* header"),
    ("y.csv", lambda p: p.write_text("SECRET,1\n" * 700), {}, "names no column 'label'"),
    (
        "y.csv",
        lambda p: p.write_text("id,label\n" + "a,1\n"),
        {},
        "give labels alone, in the rows' order",
    ),
    ("y.mat", lambda p: p.write_text("SECRET"), {}, "of no kind that is read as labels"),
    ("y.npy", lambda p: None, {}, "does not exist"),
]


@pytest.mark.parametrize(("name", "make", "options", "message"), BAD_LABELS)
def test_bad_label_files_are_refused(tmp_path, name, make, options, message):
    np.save(tmp_path / "x.npy", X)
    make(tmp_path / name)
    with pytest.raises(DatasetError, match=message) as error:
        import_features(tmp_path / "x.npy", tmp_path / "c", labels=tmp_path / name, **options)
    assert "SECRET" not in str(error.value)
    assert not (tmp_path / "c").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    np.savez(tmp_path / "b.npz", X=X)
    np.savez(tmp_path / "c.npz", X=X[:, :3], y=Y)
    np.save(tmp_path / "d.npy", X)
    for names, message in (
        (["a.npz", "b.npz"], "only one has labels"),
        (["a.npz", "c.npz"], r"row 0 of \S+c.npz has 3 features"),
        (["a.npz", "d.npy"], "one kind of file"),
        (["a.npz", "a.npz"], "named twice"),
        ([], "at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            import_features([tmp_path / name for name in names], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_npz_member_cannot_run_code_or_leave_the_archive(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", pickle.dumps(X))
    with pytest.raises(DatasetError, match="is a pickle"):
        import_features(path, tmp_path / "c")
