"""One rule for groups: the same persons are the same, whatever holds them."""

import csv
import io
import json
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import (
    DatasetError,
    FeatureCache,
    FeatureCacheError,
    extract,
    import_features,
    open_dataset,
)
from dpfc.features.datasets.groups import group_texts, read_groups

X = np.arange(12.0).reshape(6, 2)
COLUMN = {"group_column": "who"}


def texts(values):
    return [f"t{i}" for i in range(len(values))]


def write_csv(path, values, header=("text", "who"), **options):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerow(header)
        writer.writerows(zip(texts(values), values, strict=True))
    return path


def csv_texts(folder, values, encode):
    return open_dataset(write_csv(folder / "a.csv", values), **COLUMN)


def tsv_texts(folder, values, encode):
    return open_dataset(write_csv(folder / "a.tsv", values, delimiter="\t"), **COLUMN)


def jsonl_texts(folder, values, encode):
    records = [{"text": t, "who": value} for t, value in zip(texts(values), values, strict=True)]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return open_dataset(folder / "a.jsonl", **COLUMN)


def parquet_texts(folder, values, encode):
    table = pa.table({"text": texts(values), "who": pa.array(values)})
    pq.write_table(table, folder / "a.parquet")
    return open_dataset(folder / "a.parquet", **COLUMN)


def category_texts(folder, values, encode):
    table = pa.table({"text": texts(values), "who": pa.array(values).dictionary_encode()})
    pq.write_table(table, folder / "a.parquet")
    return open_dataset(folder / "a.parquet", **COLUMN)


def image_parquet(folder, values, encode):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = {"bytes": encode(np.zeros((2, 2), np.uint8)), "path": "a.png"}
    table = pa.table({"image": pa.array([image] * len(values), kind), "who": pa.array(values)})
    pq.write_table(table, folder / "i.parquet")
    return open_dataset(folder / "i.parquet", **COLUMN)


def _tar(folder, members):
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "a.tar"


def tar_of_files(folder, values, encode):
    pytest.importorskip("webdataset")
    members = [(f"{i}.txt", b"t") for i in range(len(values))]
    members += [(f"{i}.who", str(value).encode()) for i, value in enumerate(values)]
    return open_dataset(_tar(folder, sorted(members)), **COLUMN)


def tar_of_json(folder, values, encode):
    pytest.importorskip("webdataset")
    members = [(f"{i}.txt", b"t") for i in range(len(values))]
    members += [(f"{i}.json", json.dumps({"who": v}).encode()) for i, v in enumerate(values)]
    return open_dataset(_tar(folder, sorted(members)), **COLUMN)


def _images(folder, values, encode):
    (folder / "f").mkdir()
    for i in range(len(values)):
        (folder / "f" / f"t{i}.png").write_bytes(encode(np.zeros((2, 2), np.uint8)))
    lines = [(f"t{i}.png", value) for i, value in enumerate(values)]
    with (folder / "who.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "who"), *reversed(lines), ("absent.png", "z")])
    return folder / "who.csv"


def image_folder(folder, values, encode):
    table = _images(folder, values, encode)
    return open_dataset(folder / "f", groups=table, group_column="who")


def hub_rows(folder, values, encode):
    hub = pytest.importorskip("datasets")
    rows = hub.Dataset.from_dict({"text": texts(values), "who": values})
    rows.save_to_disk(folder / "hub")
    return open_dataset(f"hf:{folder / 'hub'}", **COLUMN)


def npy_groups(folder, values, encode):
    np.save(folder / "x.npy", X[: len(values)])
    np.save(folder / "g.npy", np.array(values))
    return import_features(folder / "x.npy", folder / "c", groups=folder / "g.npy")


def txt_groups(folder, values, encode):
    np.save(folder / "x.npy", X[: len(values)])
    (folder / "g.txt").write_text("".join(f"{value}\n" for value in values))
    return import_features(folder / "x.npy", folder / "c", groups=folder / "g.txt")


def table_of_groups(folder, values, encode):
    np.savez(folder / "x.npz", X=X[: len(values)][::-1], ids=texts(values)[::-1])
    table = write_csv(folder / "g.csv", [*values, "unused"], header=("id", "group"))
    return import_features(folder / "x.npz", folder / "c", groups=table)


def npz_arrays(folder, values, encode):
    np.savez(folder / "x.npz", X=X[: len(values)], who=np.array(values))
    return import_features(folder / "x.npz", folder / "c", **COLUMN)


def parquet_features(folder, values, encode):
    lists = pa.array(X[: len(values)].tolist(), pa.list_(pa.float64()))
    pq.write_table(pa.table({"features": lists, "who": pa.array(values)}), folder / "x.parquet")
    return import_features(folder / "x.parquet", folder / "c", **COLUMN)


def parquet_columns(folder, values, encode):
    table = {"f0": X[: len(values), 0], "who": pa.array(values)}
    pq.write_table(pa.table(table), folder / "x.parquet")
    return import_features(folder / "x.parquet", folder / "c", features_column="*", **COLUMN)


def jsonl_features(folder, values, encode):
    records = [{"embedding": x, "who": v} for x, v in zip(X.tolist(), values, strict=False)]
    (folder / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return import_features(folder / "x.jsonl", folder / "c", **COLUMN)


CONTAINERS = [
    *(csv_texts, tsv_texts, jsonl_texts, parquet_texts, category_texts, image_parquet),
    *(tar_of_files, tar_of_json, image_folder, hub_rows, npy_groups, txt_groups, table_of_groups),
    *(npz_arrays, parquet_features, parquet_columns, jsonl_features),
]
CASES = {
    "texts": (["b", "a", "b", "c"], ["b", "a", "b", "c"]),
    "integers": ([7, 2, 7, 10], ["7", "2", "7", "10"]),
    "whole floats": ([7.0, 2.0, 7.0, 10.0], ["7", "2", "7", "10"]),
    "digits": (["7", "2.0", "7.0", "10"], ["7", "2", "7", "10"]),
    "padded": (["07", "7", " 07 ", "a"], ["07", "7", "07", "a"]),
    "letters beyond ASCII": (["Åse", "名", "Åse", "b"], ["Åse", "名", "Åse", "b"]),
}


def groups_of(source):
    """What each row's group is, in the rows' order by their ids."""
    if isinstance(source, FeatureCache):
        assert source.has_groups
        tables = pa.concat_tables(source.tables())
        rows = dict(zip(tables["id"].to_pylist(), tables["group"].to_pylist(), strict=True))
        return [rows[name] for name in sorted(rows)]
    assert source.has_groups
    return [item.group for item in source]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_groups_are_the_same_in_every_container(tmp_path, encode, container, case):
    values, expected = case
    assert groups_of(container(tmp_path, values, encode)) == expected


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c is not category_texts])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["secret-a", "secret-a", "", "secret-b"], "has no group: say whose row it is"),
        ([77.0, 88.0, 99.5, 66.0], "neither text nor a whole number"),
    ],
)
def test_a_row_without_a_group_is_refused_by_its_place_and_never_by_a_value(
    tmp_path, encode, container, values, message
):
    wholly_text = (csv_texts, tsv_texts, tar_of_files, image_folder, txt_groups, table_of_groups)
    if container in wholly_text and isinstance(values[0], float):
        return  # a text that is no whole number is a group
    with pytest.raises(DatasetError, match=message) as error:
        groups_of(container(tmp_path, values, encode))
    told = str(error.value).replace(str(tmp_path), "")
    place = r"^(row-000002|row 2|line 3|2|the line for 't2.png') of "
    assert re.search(place, told)
    assert not any(str(value) in told for value in values if value)


def test_a_missing_group_of_any_kind_is_refused():
    for missing in (None, float("nan"), "", "  ", np.float64("nan")):
        with pytest.raises(DatasetError, match=r"^row-000001 of here has no group"):
            read_groups(["a", missing], "here")
    for wrong in (True, 1.5, float("inf"), 2.0**53, b"a", ["a"], {"a": 1}, "\ud800"):
        with pytest.raises(DatasetError, match=r"^row 1 has a group that is neither"):
            group_texts(["a", wrong], "row {}".format)


def test_large_integers_stay_different_persons():
    assert group_texts([2**63, 2**63 + 1, np.int64(5)], str) == [str(2**63), str(2**63 + 1), "5"]


def test_codes_are_numbered_as_persons_appear():
    found = read_groups(["b", 2, "a", 2.0, "b"], "here")
    assert found.codes.tolist() == [0, 1, 2, 1, 0]
    assert found.names == ["b", "2", "a"]
    assert found.texts(found.codes[2:4]) == ["a", "2"]


def test_a_column_that_is_not_there_is_named(tmp_path, encode):
    path = write_csv(tmp_path / "a.csv", ["a", "b"])
    with pytest.raises(DatasetError, match=r"no column 'patient' \(group_column\)"):
        open_dataset(path, group_column="patient")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DatasetError, match="groups go into files of their own"):
        import_features(tmp_path / "x.npy", tmp_path / "c", group_column="patient")


def test_where_groups_cannot_stand_they_are_refused(tmp_path, encode):
    table = _images(tmp_path, ["a", "b"], encode)
    with pytest.raises(DatasetError, match=r"have no columns: .* groups=…"):
        open_dataset(tmp_path / "f", group_column="who")
    with pytest.raises(DatasetError, match="group_column does not apply to digits"):
        open_dataset("digits", group_column="who")
    path = write_csv(tmp_path / "a.csv", ["a", "b"])
    with pytest.raises(DatasetError, match=r"for folders of images, .* group_column=…"):
        open_dataset(path, groups=table)
    with pytest.raises(DatasetError, match="names no column 'group'"):
        open_dataset(tmp_path / "f", groups=table)


def test_a_file_that_the_table_names_twice_or_not_at_all_is_refused(tmp_path, encode):
    table = _images(tmp_path, ["a", "b", "c"], encode)
    whole = table.read_text()
    table.write_text(whole.replace("t1.png,b", "t0.png,b"))
    with pytest.raises(DatasetError, match=r"^row-00000\d of .* names a file that stands there"):
        image = open_dataset(tmp_path / "f", groups=table, group_column="who")
    table.write_text(whole.replace("t1.png,b", "t9.png,b"))
    with pytest.raises(DatasetError, match=r"^the line for 't1.png' of .* has no group"):
        open_dataset(tmp_path / "f", groups=table, group_column="who")
    table.write_text(whole)
    image = open_dataset(tmp_path / "f", groups=table, group_column="who")
    other = whole.replace("t1.png,b", "t1.png,a")
    table.write_text(other)
    assert (
        image.fingerprint
        != open_dataset(tmp_path / "f", groups=table, group_column="who").fingerprint
    )


def test_class_folders_take_groups_by_their_paths(tmp_path, encode):
    for name in ("cat/0.png", "dog/0.png", "dog/1.png"):
        path = tmp_path / "f" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.zeros((2, 2), np.uint8)))
    table = tmp_path / "who.jsonl"
    lines = [("dog/1.png", 4), ("cat/0.png", 4), ("dog/0.png", "x")]
    table.write_text("".join(json.dumps({"file": f, "group": g}) + "\n" for f, g in lines))
    found = open_dataset(tmp_path / "f", groups=table)
    rows = [(item.id, item.label, item.group) for item in found]
    assert rows == [("cat/0.png", 0, "4"), ("dog/0.png", 1, "x"), ("dog/1.png", 1, "4")]
    assert [item.group for item in found.items(2)] == ["4"]


def test_extracted_groups_are_in_the_cache_and_skipped_rows_are_not(
    tmp_path, fake_backbone, write_parquet
):
    path = write_parquet(tmp_path / "images.parquet", 23, group=5)
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    images[3] = {"bytes": b"none", "path": "x"}
    who = [f"p{i % 4}" for i in range(23)]
    table = table.set_column(0, "image", pa.array(images, table.schema.field("image").type))
    pq.write_table(table.append_column("who", pa.array(who)), path)
    cache = extract(
        open_dataset(path, **COLUMN),
        fake_backbone,
        tmp_path / "c",
        shard_rows=10,
        on_error="skip",
    )
    kept = [i for i in range(23) if i != 3]
    assert pa.concat_tables(cache.tables())["group"].to_pylist() == [who[i] for i in kept]
    assert cache.groups().tolist() == _by_appearance([who[i] for i in kept])
    assert cache.groups().dtype == np.int64


def _by_appearance(values):
    known = {}
    return [known.setdefault(value, len(known)) for value in values]


def test_a_cache_with_other_groups_is_another_cache(tmp_path, fake_backbone, write_parquet):
    path = write_parquet(tmp_path / "images.parquet", 12, group=5)
    table = pq.read_table(path)
    for name in ("who", "ward"):
        table = table.append_column(name, pa.array([f"{name}{i % 3}" for i in range(12)]))
    pq.write_table(table, path)
    extract(open_dataset(path, group_column="who"), fake_backbone, tmp_path / "c")
    for options in ({}, {"group_column": "ward"}):
        with pytest.raises(FeatureCacheError, match=r"it differs .*(has_groups|fingerprint)"):
            extract(open_dataset(path, **options), fake_backbone, tmp_path / "c")


# Imports


def test_an_import_goes_on_where_it_was_stopped_with_its_groups(tmp_path, folder_hashes):
    n = 700
    rng = np.random.default_rng(0)
    who = rng.integers(0, 90, n)
    np.savez(tmp_path / "x.npz", X=rng.normal(size=(n, 3)), y=np.arange(n) % 2, who=who)
    options = {"shard_rows": 100, "group_column": "who"}
    whole = import_features(tmp_path / "x.npz", tmp_path / "whole", **options)
    assert np.array_equal(whole.groups(), _by_appearance(who.tolist()))

    def stop(done, total):
        if done >= 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_features(tmp_path / "x.npz", tmp_path / "c", progress=stop, **options)
    assert len(list((tmp_path / "c").glob("part-*"))) < 7
    import_features(tmp_path / "x.npz", tmp_path / "c", **options)
    assert folder_hashes(tmp_path / "c") == folder_hashes(whole.path)


def test_rows_without_a_label_are_left_out_with_their_groups(tmp_path):
    labels = ["a", None, "b", None, "a", "b"]
    records = [
        {"id": f"k{i}", "embedding": x, "label": label, "who": i // 2}
        for i, (x, label) in enumerate(zip(X.tolist(), labels, strict=True))
    ]
    records.insert(2, {"id": "k9", "error": "busy"})
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    cache = import_features(
        tmp_path / "x.jsonl", tmp_path / "c", on_error="skip", group_column="who"
    )
    assert pa.concat_tables(cache.tables())["group"].to_pylist() == ["0", "1", "2", "2"]


def test_a_request_of_several_texts_belongs_to_one_person(tmp_path):
    record = {"id": "k", "embeddings": [[1.0, 2.0], [3.0, 4.0]], "who": "p"}
    (tmp_path / "x.jsonl").write_text(json.dumps(record) + "\n")
    cache = import_features(tmp_path / "x.jsonl", tmp_path / "c", group_column="who")
    assert cache.groups().tolist() == [0, 0]


def test_a_file_of_groups_must_say_of_each_row_whose_it_is(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, ids=[f"t{i}" for i in range(6)])
    np.save(tmp_path / "g.npy", np.arange(5))
    with pytest.raises(DatasetError, match="holds 5 groups for 6 rows"):
        import_features(tmp_path / "x.npz", tmp_path / "c", groups=tmp_path / "g.npy")
    table = write_csv(tmp_path / "g.csv", ["secret"] * 5, header=("id", "group"))
    for on_error in ("stop", "skip"):
        with pytest.raises(DatasetError, match=r"row 5 .* has an id without a group") as error:
            import_features(tmp_path / "x.npz", tmp_path / "c", groups=table, on_error=on_error)
        assert "secret" not in str(error.value)
    assert not (tmp_path / "c").exists()


def test_a_star_takes_no_column_of_groups_and_says_how_to_name_it(tmp_path):
    table = pa.table({"f0": X[:, 0], "patient_id": np.arange(6) // 2, "label": [0, 1] * 3})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"id_column \(or group_column, if it says whose"):
        import_features(tmp_path / "x.parquet", tmp_path / "c", features_column="*")
    cache = import_features(
        tmp_path / "x.parquet", tmp_path / "c", features_column="*", group_column="patient_id"
    )
    assert cache.n_features == 1
    assert cache.groups().tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("suffix", "column"), [("npz", "groups"), ("parquet", "group")])
def test_exported_groups_come_back(tmp_path, suffix, column):
    from dpfc.features.cache.export import export_cache

    cache = txt_groups(tmp_path, ["b", "a", "b", "c"], None)
    export_cache(cache, tmp_path / f"e.{suffix}")
    back = import_features(tmp_path / f"e.{suffix}", tmp_path / "back", group_column=column)
    assert pa.concat_tables(back.tables()).equals(pa.concat_tables(cache.tables()))
    export_cache(cache, tmp_path / "e.csv")
    assert (tmp_path / "e.csv").read_text().splitlines()[0] == "id,group,f0,f1"
