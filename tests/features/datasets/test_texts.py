import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import DatasetError, open_dataset
from dpfc.features.exceptions import UnreadableTextError
from dpfc.features.extraction import _describe


def test_a_csv_with_bom_and_quoted_lines_is_read_in_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,label\n"x, ""y""\nz",pos\nb,neg\nc,pos\n'.encode())
    dataset = open_dataset(path)
    found = [(item.decode(), item.label, item.id) for item in dataset.items(1)]
    assert found == [("b", 0, "row-000001"), ("c", 1, "row-000002")]
    assert next(dataset.items()).decode() == 'x, "y"\nz'
    assert (len(dataset), dataset.modality, dataset.class_names) == (3, "text", ["neg", "pos"])


def test_only_stated_class_names_reach_the_manifest(tmp_path, fake_backbone):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,pos\nb,neg\n")
    derived, stated = open_dataset(path), open_dataset(path, class_names=["pos", "neg"])
    assert (derived.class_names_from_labels, stated.class_names_from_labels) == (True, False)
    assert _describe(derived, fake_backbone, "float16", 10).class_names is None
    assert _describe(stated, fake_backbone, "float16", 10).class_names == ("pos", "neg")
    assert [item.label for item in stated] == [0, 1]


@pytest.mark.parametrize("start", [0, 1, 299, 300, 556, 999, 1000])
def test_parquet_texts_from_a_position_are_the_tail(tmp_path, start):
    table = pa.table({"text": [str(i) for i in range(1000)], "y": [i % 3 for i in range(1000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    dataset = open_dataset(tmp_path / "a.parquet", label_column="y")
    expected = [(str(i), i % 3, f"row-{i:06d}") for i in range(start, 1000)]
    assert [(i.decode(), i.label, i.id) for i in dataset.items(start)] == expected


def test_a_null_text_is_refused_when_it_is_decoded(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence":"a","label":2}\n\n{"sentence":null,"label":0}\n')
    items = list(open_dataset(path))
    assert [item.label for item in items] == [2, 0]
    with pytest.raises(UnreadableTextError, match="'row-000001' holds no text"):
        items[1].decode()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"text,label\na,1,2\n", {}, "row 0 of .* has 3 fields, the header 2"),
        ("a.csv", b'text,label\n"a,1\n', {}, "a quote that is not closed"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", {}, "is not UTF-8"),
        ("a.csv", b"words,label\na,1\n", {}, "its columns are words, label"),
        ("a.csv", b"text,label\na,1\n", {"label_column": "lable"}, "no column 'lable'.*are text"),
        ("a.csv", b"text,text\na,1\n", {}, "names a column twice"),
        ("a.csv", b"", {}, "has no column 'text' or 'sentence'"),
        ("a.csv", b"text,label\n", {}, "holds no rows"),
        ("a.csv", b"text,label\na,\n", {}, "row-000000 of a.csv has no label"),
        ("a.csv", b"text,label\na,SECRET\n", {"class_names": ["p", "q"]}, "outside its classes"),
        ("a.csv", b"text,label\na,2\n", {"class_names": ["p", "q"]}, "outside its classes"),
        ("a.jsonl", b'{"text":"a"}\n{"SECRET\n', {}, "line 2 of .* is not valid JSON"),
        ("a.jsonl", b'{"text":"a"}\n[1]\n', {}, "line 2 of .* one JSON object"),
        ("a.jsonl", b'{"text":"a","label":[1]}\n', {}, "neither text nor number"),
        (
            "a.jsonl",
            b'{"text":"a","label":"SECRET"}\n{"text":"b","label":7}\n',
            {},
            "row-000001 .* an integer, where others are strings",
        ),
        ("a.foo", b"", {}, "of no kind that is read"),
    ],
)
def test_a_bad_table_is_refused_without_showing_what_it_holds(
    tmp_path, name, content, options, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        open_dataset(tmp_path / name, **options)
    assert "SECRET" not in str(error.value)
