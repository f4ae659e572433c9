import json

import pytest

from dpfc.features import open_dataset
from dpfc.features.exceptions import DatasetError


def write_task(folder, examples):
    path = folder / "moods" / "task.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"name": "moods", "examples": examples}), encoding="utf-8")
    return path


def example(text, best, choices=("sad", "glad")):
    return {"input": text, "target_scores": {choice: int(choice == best) for choice in choices}}


@pytest.fixture
def task(tmp_path):
    return write_task(tmp_path, [example(f"text {i}", ("glad", "sad")[i % 2]) for i in range(20)])


def test_texts_labels_and_ids_come_in_the_files_order(task):
    dataset = open_dataset(f"bigbench:{task}")
    assert dataset.modality == "text" and dataset.name == "moods"
    assert dataset.class_names == ["glad", "sad"] and not dataset.class_names_from_labels
    items = list(dataset)
    assert [item.decode() for item in items] == [f"text {i}" for i in range(20)]
    assert [item.label for item in items] == [i % 2 for i in range(20)]
    assert [item.id for item in dataset.items(18)] == ["row-000018", "row-000019"]


def test_every_fifth_row_of_a_class_is_test(task):
    train, test = (open_dataset(f"bigbench:{task}:{split}") for split in ("train", "test"))
    assert [item.id for item in test] == ["row-000008", "row-000009", "row-000018", "row-000019"]
    assert len(train) == 16 and not {i.id for i in train} & {i.id for i in test}
    assert test.name == "moods:test"
    assert (
        len({train.fingerprint, test.fingerprint, open_dataset(f"bigbench:{task}").fingerprint})
        == 3
    )


def test_choices_that_differ_between_rows_are_no_public_list(tmp_path):
    rows = [example("a", "sad"), example("b", "red", ("red", "blue"))]
    dataset = open_dataset(f"bigbench:{write_task(tmp_path, rows)}")
    assert dataset.class_names == ["blue", "glad", "red", "sad"]
    assert dataset.class_names_from_labels


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no BIG-bench task with a list of examples"),
        ("text", "no BIG-bench task with a list of examples"),
        ([example("a", "sad"), {"input": "secret", "target": "x"}], "row-000001 .* lacks an input"),
        ([{"target_scores": {"a": 1}}], "row-000000 .* lacks an input"),
        ([{"input": "secret", "target_scores": {}}], "lacks an input text or target_scores"),
        ([{"input": "secret", "target_scores": {"a": "1"}}], "lacks an input text"),
        (["secret"], "lacks an input text"),
        ([{"input": "secret", "target_scores": {"a": 1, "b": 1}}], "no single best choice"),
    ],
)
def test_what_is_no_multiple_choice_is_refused_without_its_text(tmp_path, examples, message):
    path = write_task(tmp_path, examples)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(f"bigbench:{path}")
    assert "secret" not in str(caught.value)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*none\.json"):
        open_dataset(f"bigbench:{tmp_path / 'none.json'}")
    (tmp_path / "task.json").write_bytes(b"{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        open_dataset(f"bigbench:{tmp_path / 'task.json'}")
    with pytest.raises(DatasetError, match="text_column does not apply"):
        open_dataset("bigbench:task.json", text_column="input")
