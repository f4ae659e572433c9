"""One rule for labels: the same labels give the same classes, whatever holds them."""

import csv
import io
import json
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import DatasetError, import_features, open_dataset

X = np.arange(12.0).reshape(6, 2)


def write_csv(path, values, header=("text", "label"), **options):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerow(header)
        writer.writerows([f"t{i}", value] for i, value in enumerate(values))
    return path


def csv_texts(folder, values, names, encode):
    return open_dataset(write_csv(folder / "a.csv", values), class_names=names)


def tsv_texts(folder, values, names, encode):
    return open_dataset(write_csv(folder / "a.tsv", values, delimiter="\t"), class_names=names)


def semicolons(folder, values, names, encode):
    return open_dataset(write_csv(folder / "a.csv", values, delimiter=";"), class_names=names)


def jsonl_texts(folder, values, names, encode):
    records = [{"text": f"t{i}", "label": value} for i, value in enumerate(values)]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return open_dataset(folder / "a.jsonl", class_names=names)


def parquet_texts(folder, values, names, encode):
    table = pa.table({"text": [f"t{i}" for i in range(len(values))], "label": pa.array(values)})
    pq.write_table(table, folder / "a.parquet")
    return open_dataset(folder / "a.parquet", class_names=names)


def category_texts(folder, values, names, encode):
    labels = pa.array(values).dictionary_encode()
    table = pa.table({"text": [f"t{i}" for i in range(len(values))], "label": labels})
    pq.write_table(table, folder / "a.parquet")
    return open_dataset(folder / "a.parquet", class_names=names)


def image_parquet(folder, values, names, encode):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = {"bytes": encode(np.zeros((2, 2), np.uint8)), "path": "a.png"}
    table = pa.table({"image": pa.array([image] * len(values), kind), "label": pa.array(values)})
    pq.write_table(table, folder / "i.parquet")
    return open_dataset(folder / "i.parquet", class_names=names)


def _tar(folder, members):
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "a.tar"


def tar_of_cls(folder, values, names, encode):
    pytest.importorskip("webdataset")
    members = [(f"{i}.txt", b"t") for i in range(len(values))]
    members += [(f"{i}.cls", str(value).encode()) for i, value in enumerate(values)]
    return open_dataset(_tar(folder, sorted(members)), class_names=names)


def tar_of_json(folder, values, names, encode):
    pytest.importorskip("webdataset")
    members = [(f"{i}.txt", b"t") for i in range(len(values))]
    members += [(f"{i}.json", json.dumps({"label": v}).encode()) for i, v in enumerate(values)]
    return open_dataset(_tar(folder, sorted(members)), class_names=names)


def class_folders(folder, values, names, encode):
    for i, value in enumerate(values):
        text = str(int(value)) if isinstance(value, float) else str(value)
        (folder / "f" / text).mkdir(parents=True, exist_ok=True)
        (folder / "f" / text / f"{i}.png").write_bytes(encode(np.zeros((2, 2), np.uint8)))
    return open_dataset(folder / "f", class_names=names)


def hub_rows(folder, values, names, encode):
    hub = pytest.importorskip("datasets")
    rows = hub.Dataset.from_dict({"text": [f"t{i}" for i in range(len(values))], "label": values})
    rows.save_to_disk(folder / "hub")
    return open_dataset(f"hf:{folder / 'hub'}", class_names=names)


def npy_labels(folder, values, names, encode):
    np.save(folder / "x.npy", X[: len(values)])
    np.save(folder / "y.npy", np.array(values))
    return import_features(
        folder / "x.npy", folder / "c", labels=folder / "y.npy", class_names=names
    )


def txt_labels(folder, values, names, encode):
    np.save(folder / "x.npy", X[: len(values)])
    (folder / "y.txt").write_text("".join(f"{value}\n" for value in values))
    return import_features(
        folder / "x.npy", folder / "c", labels=folder / "y.txt", class_names=names
    )


def table_of_labels(folder, values, names, encode):
    np.savez(folder / "x.npz", X=X[: len(values)], ids=[f"t{i}" for i in range(len(values))])
    labels = write_csv(folder / "y.csv", values, header=("id", "label"))
    return import_features(folder / "x.npz", folder / "c", labels=labels, class_names=names)


def npz_arrays(folder, values, names, encode):
    np.savez(folder / "x.npz", X=X[: len(values)], y=np.array(values))
    return import_features(folder / "x.npz", folder / "c", class_names=names)


def parquet_features(folder, values, names, encode):
    lists = pa.array(X[: len(values)].tolist(), pa.list_(pa.float64()))
    pq.write_table(pa.table({"features": lists, "label": pa.array(values)}), folder / "x.parquet")
    return import_features(folder / "x.parquet", folder / "c", class_names=names)


def jsonl_features(folder, values, names, encode):
    records = [{"embedding": x, "label": v} for x, v in zip(X.tolist(), values, strict=False)]
    (folder / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return import_features(folder / "x.jsonl", folder / "c", class_names=names)


CONTAINERS = [
    *(csv_texts, tsv_texts, semicolons, jsonl_texts, parquet_texts, category_texts),
    *(image_parquet, tar_of_cls, tar_of_json, class_folders, hub_rows),
    *(npy_labels, txt_labels, table_of_labels, npz_arrays, parquet_features, jsonl_features),
]

# Labels, public names, and what each row's class must be, by name or else by number.
NUMBERS = [3, 1, 4, 2, 1, 10]
CASES = {
    "integers": (NUMBERS, None, NUMBERS),
    "whole floats": ([float(n) for n in NUMBERS], None, NUMBERS),
    "digits": ([str(n) for n in NUMBERS], None, NUMBERS),
    "integers from 1": ([1, 2, 3, 4], list("12345"), ["1", "2", "3", "4"]),
    "floats from 1": ([1.0, 2.0, 3.0, 4.0], list("12345"), ["1", "2", "3", "4"]),
    "digits from 1": (["1", "2", "3", "4"], list("12345"), ["1", "2", "3", "4"]),
    "all the names": ([1, 2, 2, 1], ["1", "2"], ["1", "2", "2", "1"]),
    "another order": ([1, 2, 2, 0], ["2", "1", "0"], ["1", "2", "2", "0"]),
    "negative": ([-1, 1, 1, -1], ["-1", "1"], ["-1", "1", "1", "-1"]),
    "strings": (["b", "a", "c", "a"], None, [1, 0, 2, 0]),
    "strings and names": (["b", "a", "c", "a"], ["c", "a", "b"], ["b", "a", "c", "a"]),
    "padded": (["02", "01", "10", "01"], ["01", "02", "10"], ["02", "01", "10", "01"]),
    "padded, no names": (["02", "01", "a", "01"], None, [1, 0, 2, 0]),
    "bools": ([True, False, True, True], None, [1, 0, 1, 1]),
    "bools and names": ([True, False, True], ["True", "False"], ["True", "False", "True"]),
}
POSITIONS = ([1, 0, 1], ["bad", "good"], ["good", "bad", "good"])


def classes_of(source):
    """What each row's class is, and the names that are public."""
    if hasattr(source, "items"):
        rows = [(item.id, item.label) for item in source]
        if source.name == "f":  # a folder is sorted by class: back to the files' order
            rows.sort(key=lambda row: row[0].split("/")[-1])
        codes = [label for _, label in rows]
        names = None if source.class_names_from_labels else source.class_names
    else:
        codes, names = source.read_labels().tolist(), source.class_names
    return codes if names is None else [names[code] for code in codes], names


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_labels_give_the_same_classes_in_every_container(
    tmp_path, encode, container, case
):
    values, names, expected = case
    found, public = classes_of(container(tmp_path, values, names, encode))
    if container is class_folders and names is None:
        # Folders state their names; these stand in the order that numbers would have.
        texts = [str(int(v)) if isinstance(v, float) else str(v) for v in values]
        order = [n for _, n in sorted(set(zip(expected, texts, strict=True)))]
        assert public == order
        assert found == texts
    else:
        assert found == expected
        assert public == names


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c is not class_folders])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False, True], ["false", "true"]),
        (["TRUE", "FALSE", "TRUE"], ["False", "True"]),
        ([2.5, 1.5, 2.5], ["1.5", "2.5"]),
    ],
)
def test_bools_in_any_capitals_and_fractions_find_their_names_in_every_container(
    tmp_path, encode, container, values, names
):
    found, _ = classes_of(container(tmp_path, values, names, encode))
    assert found == [names[1], names[0], names[1]]


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c is not class_folders])
def test_numbers_with_fractions_are_no_classes_in_any_container(tmp_path, encode, container):
    with pytest.raises(DatasetError, match=r"no whole number: name the column .* class_names"):
        classes_of(container(tmp_path, [1.0, 2.5, 10.5], None, encode))


def test_a_set_of_class_names_is_refused_for_it_has_no_order(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["a", "b"])
    with pytest.raises(DatasetError, match="in an order, which a set has not"):
        open_dataset(path, class_names={"a", "b"})


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c is not class_folders])
@pytest.mark.parametrize("kind", [int, float, str])
def test_whole_numbers_are_positions_only_where_no_name_is_a_number(
    tmp_path, encode, container, kind
):
    values, names, expected = POSITIONS
    found, _ = classes_of(container(tmp_path, [kind(v) for v in values], names, encode))
    assert found == expected


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c is not class_folders])
@pytest.mark.parametrize(
    ("values", "names", "bad", "message"),
    [
        ([1, 2, 0, 0], ["1", "2"], 2, "outside its classes"),
        ([1, 2, 2, 1], ["bad", "good"], 1, "positions, from 0"),
        ([0, 1, -1, 1], None, 2, "outside its classes"),
        ([0, 1, 3_000_000_000, 1], None, 2, "outside its classes"),
        (["a", "b", "d", "a"], ["a", "b", "c"], 2, "outside its classes"),
    ],
)
def test_what_cannot_keep_its_value_is_refused_and_the_right_row_named(
    tmp_path, encode, container, values, names, bad, message
):
    with pytest.raises(DatasetError, match=message) as error:
        classes_of(container(tmp_path, values, names, encode))
    by_line = container in (txt_labels, jsonl_features)
    place = rf"^line {bad + 1} " if by_line else rf"^(row-00000{bad}|row {bad}|{bad}) "
    assert re.search(place, str(error.value))
    assert "3000000000" not in str(error.value)


def test_a_label_outside_the_names_is_reported_at_its_own_row(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["a", "b", "a", "SECRET", "b"])
    with pytest.raises(DatasetError, match=r"row-000003 of a.csv .* outside") as error:
        open_dataset(path, class_names=["a", "b"])
    assert "SECRET" not in str(error.value)


def test_names_with_blanks_around_them_are_the_names(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["a", "b ", "c"])
    dataset = open_dataset(path, class_names=["a", " b", " c"])
    assert dataset.class_names == ["a", "b", "c"]
    assert [item.label for item in dataset] == [0, 1, 2]


def test_numbers_among_strings_are_refused_where_types_are_known(tmp_path):
    for values, what in (([1, "a"], "an integer"), ([True, "a"], "a bool"), ([True, 1], "int")):
        with pytest.raises(DatasetError, match=what):
            jsonl_texts(tmp_path, values, None, None)
    with pytest.raises(DatasetError, match="a number, where others are names"):
        jsonl_texts(tmp_path, [1, "a"], ["a", "b"], None)


def test_a_column_of_classes_numbers_its_own_integers_whatever_their_names(tmp_path):
    labels = {"label": {"names": list("12345"), "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": labels}})
    lists = pa.array(X.tolist(), pa.list_(pa.float64()))
    table = pa.table({"features": lists, "label": [0, 1, 2, 3, 4, 0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "x.parquet")
    cache = import_features(tmp_path / "x.parquet", tmp_path / "c")
    assert classes_of(cache)[0] == ["1", "2", "3", "4", "5", "1"]


def test_a_column_with_a_string_of_its_own_for_each_row_holds_no_classes(tmp_path):
    path = write_csv(tmp_path / "a.csv", [f"SECRET{i}" for i in range(200)])
    with pytest.raises(DatasetError, match="200 different labels for 200 rows") as error:
        open_dataset(path)
    assert "SECRET" not in str(error.value)
