"""Files that are not what they seem: read rightly, or refused with what is wrong and what to do."""

import json
import warnings
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import DatasetError, extract, import_features, open_dataset
from dpfc.features.exceptions import UnreadableItemError


def rows_of(dataset):
    names = dataset.class_names
    return [(i.decode(), i.label if names is None else names[i.label]) for i in dataset]


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_another_separator_is_read_off_the_header(tmp_path, mark, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("\n".join(mark.join(r) for r in (["text", "label"], ["a", "1"], ["b", "0"])))
    assert rows_of(open_dataset(path)) == [("a", 1), ("b", 0)]
    labels = tmp_path / f"y{suffix}"
    labels.write_text("\n".join(mark.join(r) for r in (["id", "label"], ["k1", "5"], ["k0", "3"])))
    np.savez(tmp_path / "x.npz", X=np.eye(2), ids=["k0", "k1"])
    cache = import_features(tmp_path / "x.npz", tmp_path / "c", labels=labels)
    assert cache.read_labels().tolist() == [3, 5]


@pytest.mark.parametrize("mark", [";", "\t", ",", "|"])
def test_a_table_that_is_named_txt_is_refused_as_labels(tmp_path, mark):
    np.save(tmp_path / "x.npy", np.eye(3))
    (tmp_path / "y.txt").write_text(f"a{mark}SECRET\nb{mark}SECRET\nc{mark}SECRET\n")
    with pytest.raises(DatasetError, match=r"each line holds a separator") as error:
        import_features(tmp_path / "x.npy", tmp_path / "c", labels=tmp_path / "y.txt")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("header", ["text, label", "text,Label", " Text ,LABEL", "text,label "])
def test_capitals_and_blanks_in_a_header_do_not_hide_labels(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header}\nfine, good\nno, bad\n")
    dataset = open_dataset(tmp_path / "a.csv", class_names=["bad", "good"])
    assert rows_of(dataset) == [("fine", "good"), ("no", "bad")]


def test_a_record_without_a_label_hides_none_of_the_others(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a"}\n{"text": "b", "label": 1}\n{"text": "c", "label": 0}\n'
    )
    with pytest.raises(DatasetError, match=r"row-000000 of a.jsonl has no label"):
        open_dataset(tmp_path / "a.jsonl")
    (tmp_path / "e.jsonl").write_text('{"embedding": [1]}\n{"embedding": [2], "label": 1}\n')
    with pytest.raises(DatasetError, match=r"line 1 of .* has no label"):
        import_features(tmp_path / "e.jsonl", tmp_path / "c")


def test_rows_without_label_or_text_are_skipped_and_listed(tmp_path, fakes):
    lines = [{"text": "a"}, {"text": "b", "label": "y"}, {"text": "c", "label": None}]
    lines += [{"text": None, "label": "y"}, {"text": "", "label": "x"}, {"text": "d", "label": "x"}]
    lines += [{"text": "half \ud800", "label": "x"}, {"text": "e", "label": float("nan")}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = open_dataset(tmp_path / "a.jsonl", class_names=["x", "y"], on_error="skip")
    cache = extract(
        dataset, fakes.FakeTextBackbone(), tmp_path / "c", on_error="skip", shard_rows=3
    )
    assert cache.read_labels().tolist() == [1, 0]
    skipped = {row["id"]: row["reason"] for row in cache.manifest["skipped"]}
    assert list(skipped) == [f"row-{i:06d}" for i in (0, 2, 3, 4, 6, 7)]
    for row, why in ((0, "no label"), (3, "no text"), (4, "no text"), (6, "valid Unicode")):
        assert why in skipped[f"row-{row:06d}"]
    with pytest.raises(UnreadableItemError, match=r"'row-000000' has no label"):
        extract(dataset, fakes.FakeTextBackbone(), tmp_path / "d")


def test_imported_rows_without_labels_are_skipped_and_listed(tmp_path, assert_holds, folder_hashes):
    X = np.arange(40.0).reshape(20, 2)
    ids = [f"k{i}" for i in range(20)]
    np.savez(tmp_path / "x.npz", X=X, ids=ids)
    text = ["" if i % 3 == 1 else str(i % 2) for i in range(20)]
    lines = [f"{name},{label}" for name, label in zip(ids, text, strict=True)][:-1]
    (tmp_path / "y.csv").write_text("\n".join(["id,label", *lines]))
    options = {"labels": tmp_path / "y.csv", "on_error": "skip", "shard_rows": 7}
    cache = import_features(tmp_path / "x.npz", tmp_path / "c", **options)
    kept = [i for i in range(19) if i % 3 != 1]
    assert_holds(cache, X[kept], [i % 2 for i in kept], ids=[ids[i] for i in kept])
    assert len(cache.manifest["skipped"]) == 7
    # Over a cache that lost its last shards, the import goes on at the right row.
    whole = folder_hashes(tmp_path / "c")
    (tmp_path / "c" / "part-00001.parquet").write_bytes(b"")
    import_features(tmp_path / "x.npz", tmp_path / "c", **options)
    assert folder_hashes(tmp_path / "c") == whole


def test_a_long_text_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,label\n{'x' * 200_000},1\n")
    assert len(rows_of(open_dataset(tmp_path / "a.csv"))[0][0]) == 200_000


def test_quotes_in_a_tsv_need_not_be_closed_where_every_line_is_a_row(tmp_path):
    (tmp_path / "a.tsv").write_text(
        'text\tlabel\n"ok" she said\tpos\nsay "\tneg\n"all ""of"" it"\tpos\n"open\tneg\n"b"\tneg\n'
    )
    texts = [text for text, _ in rows_of(open_dataset(tmp_path / "a.tsv"))]
    assert texts == ['"ok" she said', 'say "', 'all "of" it', '"open', "b"]
    (tmp_path / "b.tsv").write_text('text\tlabel\n"two\nlines\tand a tab"\tpos\nb\tneg\n')
    assert rows_of(open_dataset(tmp_path / "b.tsv"))[0] == ("two\nlines\tand a tab", "pos")


@pytest.mark.parametrize(
    "first",
    ["I liked it. SECRET,pos", "SECRET,pos", "3,SECRET", "SECRET SECRET SECRET SECRET SECRET,a"],
)
def test_a_csv_without_a_header_shows_no_values_and_is_read_when_one_says_so(tmp_path, first):
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\nbad,neg\nother,pos\nSECRET,neg\n")
    for options in ({}, {"text_column": "review"}):
        with pytest.raises(DatasetError, match=r"looks like values.*header=False") as error:
            open_dataset(path, **options)
        assert "SECRET" not in str(error.value)
    dataset = open_dataset(path, header=False, text_column="1", label_column="2")
    assert len(dataset) == 4
    with pytest.raises(DatasetError, match=r"its columns are 1, 2"):
        open_dataset(path, header=False)


@pytest.fixture
def pets(tmp_path, encode):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        path = tmp_path / "pets" / name / "0.png"
        path.write_bytes(encode(np.zeros((2, 2, 3), np.uint8)))
    return tmp_path / "pets"


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".DS_Store", ".cache", "__pycache__"])
def test_what_systems_leave_beside_class_folders_is_no_class(pets, name):
    for parent in (pets, pets / "cat"):
        (parent / name).mkdir()
        (parent / name / "x.png").write_bytes((pets / "cat" / "0.png").read_bytes())
    dataset = open_dataset(pets)
    assert (dataset.class_names, len(dataset)) == (["cat", "dog"], 2)


def test_a_folder_named_like_packaged_data_is_refused_until_one_says_which(
    pets, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pets.rename(tmp_path / "digits")
    with pytest.raises(DatasetError, match=r"packaged:digits for the data set, .*\./digits"):
        open_dataset("digits")
    assert open_dataset("./digits").class_names == ["cat", "dog"]
    assert open_dataset(tmp_path / "digits").class_names == ["cat", "dog"]
    assert len(open_dataset("packaged:digits")) == len(open_dataset("packaged:digits:train")) + 355


def test_linked_folders_inside_a_class_are_said_to_be_left_out(pets, tmp_path):
    (tmp_path / "more").mkdir()
    (pets / "cat" / "linked").symlink_to(tmp_path / "more")
    with pytest.warns(UserWarning, match=r"1 links to folders .* were not followed"):
        assert len(open_dataset(pets)) == 2


def test_class_names_order_folders_and_may_name_empty_classes(pets):
    dataset = open_dataset(pets, class_names=["owl", "dog", "cat"])
    assert [(item.id, item.label) for item in dataset] == [("dog/0.png", 1), ("cat/0.png", 2)]
    with pytest.raises(DatasetError, match=r"'dog' .* none of class_names"):
        open_dataset(pets, class_names=["cat", "owl"])


def test_a_flat_folder_of_images_is_a_data_set_without_labels(pets):
    flat = open_dataset(pets / "cat")
    assert [(item.id, item.label) for item in flat] == [("0.png", None)]
    assert not flat.has_labels
    unlabelled = open_dataset(pets, unlabelled=True)
    assert [(item.id, item.label) for item in unlabelled] == [
        ("cat/0.png", None),
        ("dog/0.png", None),
    ]


@pytest.mark.parametrize("spec", ["digits", "packaged:digits:test"])
def test_labels_are_left_aside_on_request(spec):
    dataset = open_dataset(spec, unlabelled=True)
    assert (dataset.has_labels, dataset.class_names) == (False, None)
    assert next(iter(dataset)).label is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["label=neg/part-0.parquet", "label=pos/part-0.parquet"], "is a partitioned table"),
        (["data/train-00000.parquet"], "holds no tables or images itself, but data in it"),
        (["data/deep/a.csv"], r"name \S+data/deep"),
    ],
)
def test_tables_in_sub_folders_are_refused_with_where_they_lie(tmp_path, names, message):
    for name in names:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": ["a"], "label": [0]}), path)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "root")


def test_an_image_with_a_large_text_chunk_is_decoded(tmp_path, encode):
    image = encode(np.full((4, 4, 3), 7, np.uint8))
    body = b"iTXtnote\0\1\0\0\0" + zlib.compress(b"x" * (8 << 20))
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    (tmp_path / "big.png").write_bytes(image[:33] + chunk + image[33:])
    (item,) = open_dataset(tmp_path / "big.png")
    assert np.asarray(item.decode()).max() == 7


def test_a_failed_request_that_was_sent_again_counts_once(tmp_path, assert_holds):
    failed = {"key": "b", "error": {"code": 1}}
    good = [{"key": key, "embedding": [i, 1.0]} for i, key in enumerate("abc")]
    for records in ([good[0], failed, *good[1:]], [*good, failed], [failed, failed, *good]):
        path = tmp_path / "e.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        cache = import_features(path, tmp_path / "c", overwrite=True)
        assert_holds(cache, np.array([[0, 1], [1, 1], [2, 1.0]]), ids=["a", "b", "c"])
    path.write_text("".join(json.dumps(record) + "\n" for record in [failed, good[0], failed]))
    cache = import_features(path, tmp_path / "c", overwrite=True, on_error="skip")
    assert [row["id"] for row in cache.manifest["skipped"]] == ["b"]


@pytest.mark.parametrize(
    "record",
    [
        {"key": "b", "embedding": None},
        {"key": "b", "response": {"embedding": {"values": None}}},
        {"key": "b", "response": {"body": {"data": [{"index": 0, "embedding": None}]}}},
    ],
)
def test_an_embedding_that_is_null_is_a_failed_request(tmp_path, record):
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps({"key": "a", "embedding": [1.0]}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DatasetError, match=r"line 2 of .* could not answer"):
        import_features(path, tmp_path / "c")
    cache = import_features(path, tmp_path / "c", on_error="skip")
    assert [row["id"] for row in cache.manifest["skipped"]] == ["b"]


def table(**columns):
    generator = np.random.default_rng(0)
    given = {"f0": generator.normal(size=60), "f1": generator.integers(0, 9, 60)}
    given |= {"label": np.arange(60) % 3, "name": ["x"] * 60}
    return pa.table(given | columns)


def test_a_star_takes_features_alone(tmp_path):
    frame = table(
        id=np.arange(60), __index_level_0__=np.arange(60), age=np.arange(60.0), note=np.ones(60)
    )
    meta = {"pandas": json.dumps({"index_columns": ["age"]})}
    pq.write_table(frame.replace_schema_metadata(meta), tmp_path / "x.parquet")
    cache = import_features(
        tmp_path / "x.parquet", tmp_path / "c", features_column="*", drop=["note"]
    )
    assert cache.manifest["preprocessing"]["columns"] == ["f0", "f1"]
    assert cache.read_labels().tolist() == [i % 3 for i in range(60)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"target": np.arange(60) % 3}, "'target' .* has the name of a label"),
        ({"patient_id": np.arange(60)}, "'patient_id' .* has the name of ids"),
        ({"copy": np.arange(60) % 3}, "'copy' .* equals the label"),
        ({"recoded": np.array([7, 1, 4])[np.arange(60) % 3]}, "'recoded' .* equals the label"),
    ],
)
def test_a_column_that_gives_the_label_away_is_refused_by_name(tmp_path, columns, message):
    pq.write_table(table(**columns), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=message):
        import_features(tmp_path / "x.parquet", tmp_path / "c", features_column="*")
    cache = import_features(
        tmp_path / "x.parquet", tmp_path / "c", features_column="*", drop=list(columns)
    )
    assert cache.n_features == 2


def test_a_column_of_labels_in_a_file_of_its_own_is_found_among_the_features(tmp_path):
    pq.write_table(table(copy=np.arange(60) % 3), tmp_path / "x.parquet")
    np.save(tmp_path / "y.npy", np.arange(60) % 3)
    with pytest.raises(DatasetError, match=r"'copy' .* equals the label"):
        import_features(
            tmp_path / "x.parquet",
            tmp_path / "c",
            features_column="*",
            labels=tmp_path / "y.npy",
        )


def test_opening_says_nothing_where_nothing_is_left_out(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(pets)
