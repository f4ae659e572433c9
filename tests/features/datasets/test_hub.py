import json
import shutil
import sys

import numpy as np
import pytest

from dpfc.features import DatasetError, MissingDependencyError, extract, open_dataset
from dpfc.features.exceptions import UnreadableImageError, UnreadableTextError
from dpfc.features.extraction import _describe

hub = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="session", autouse=True)
def _own_library_cache(tmp_path_factory):
    """Keep copies of folders out of the user's cache."""
    place = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", place)
        hub.disable_progress_bars()
        yield
        hub.enable_progress_bars()


@pytest.fixture
def pictures(encode):
    return [encode(np.full((8, 8, 3), 10 * i, np.uint8)) for i in range(20)]


@pytest.fixture
def rows(pictures):
    """Images with classes, before they are saved."""
    features = hub.Features(
        {"img": hub.Image(), "label": hub.ClassLabel(names=["owl", "cat"]), "n": hub.Value("int8")}
    )
    images = [{"bytes": picture, "path": None} for picture in pictures]
    columns = {"img": images, "label": [i % 2 for i in range(20)], "n": [i % 3 for i in range(20)]}
    return hub.Dataset.from_dict(columns, features)


@pytest.fixture
def saved(rows, tmp_path):
    rows.save_to_disk(tmp_path / "pets")
    return tmp_path / "pets"


@pytest.fixture
def splits(rows, tmp_path):
    parts = {"train": rows.select(range(15)), "test": rows.select(range(15, 20))}
    hub.DatasetDict(parts).save_to_disk(tmp_path / "both")
    return tmp_path / "both"


def save(tmp_path, columns, features=None):
    features = None if features is None else hub.Features(features)
    hub.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "some")
    return f"hf:{tmp_path / 'some'}"


def test_saved_images_come_encoded_in_order_with_their_classes(saved, pictures):
    dataset = open_dataset(f"hf:{saved}")
    items = list(dataset)
    assert (dataset.modality, dataset.name, len(dataset)) == ("image", "pets", 20)
    assert dataset.class_names == ["owl", "cat"] and not dataset.class_names_from_labels
    assert [item.image for item in items] == pictures
    assert [item.label for item in items] == [i % 2 for i in range(20)]
    assert [item.id for item in items] == [f"row-{i:06d}" for i in range(20)]


@pytest.mark.parametrize("start", [0, 1, 63, 64, 65, 149, 150])
def test_rows_from_a_position_are_the_tail(tmp_path, start):
    spec = save(tmp_path, {"sentence": [str(i) for i in range(150)], "label": list(range(150))})
    found = [(item.decode(), item.label, item.id) for item in open_dataset(spec).items(start)]
    assert found == [(str(i), i, f"row-{i:06d}") for i in range(start, 150)]


def test_a_split_is_named_at_the_end(splits, pictures):
    train, test = (open_dataset(f"hf:{splits}:{split}") for split in ("train", "test"))
    assert (len(train), len(test), test.name) == (15, 5, "both:test")
    assert [item.image for item in test] == pictures[15:]
    assert train.fingerprint != test.fingerprint
    with pytest.raises(DatasetError, match=r"several splits \(train, test\): name one"):
        open_dataset(f"hf:{splits}")
    with pytest.raises(DatasetError, match=r"no split 'tset', but train, test.*mean 'test'"):
        open_dataset(f"hf:{splits}:tset")
    with pytest.raises(DatasetError, match="without slices"):
        open_dataset(f"hf:{splits}:train[:10%]")


def test_other_columns_are_read_where_they_are_named(saved):
    dataset = open_dataset(f"hf:{saved}", label_column="n", class_names=["a", "b", "c"])
    assert [item.label for item in dataset] == [i % 3 for i in range(20)]
    assert dataset.class_names == ["a", "b", "c"]
    assert open_dataset(f"hf:{saved}", class_names=["owl", "cat"]).class_names == ["owl", "cat"]
    with pytest.raises(DatasetError, match="names its classes otherwise than class_names"):
        open_dataset(f"hf:{saved}", class_names=["cat", "owl"])


def test_class_names_that_are_one_text_are_not_taken_letter_by_letter(tmp_path):
    kind = {"text": hub.Value("string"), "label": hub.ClassLabel(names="0123456789")}
    with pytest.raises(DatasetError, match="class names as the text '0123456789'"):
        open_dataset(save(tmp_path, {"text": ["a", "b"], "label": [0, 9]}, kind))


def test_only_names_that_the_source_states_reach_the_manifest(tmp_path, saved, fake_backbone):
    derived = open_dataset(save(tmp_path, {"text": ["a", "b"], "label": ["sad", "glad"]}))
    assert derived.class_names == ["glad", "sad"] and derived.class_names_from_labels
    assert _describe(derived, fake_backbone, "float16", 10).class_names is None
    stated = open_dataset(f"hf:{saved}")
    assert _describe(stated, fake_backbone, "float16", 10).class_names == ("owl", "cat")


def test_texts_are_read_from_their_column(tmp_path):
    columns = {"text": ["a", None], "other": ["c", "d"]}
    spec = save(tmp_path, columns, {"text": hub.Value("string"), "other": hub.Value("string")})
    first, second = open_dataset(spec)
    assert (first.decode(), first.label) == ("a", None)
    with pytest.raises(UnreadableTextError, match="'row-000001' holds no text"):
        second.decode()
    assert [item.decode() for item in open_dataset(spec, text_column="other")] == ["c", "d"]


def test_the_only_column_of_classes_is_the_label(tmp_path):
    kind = hub.ClassLabel(names=["x", "y"])
    features = {"text": hub.Value("string"), "coarse": kind, "fine": kind}
    spec = save(
        tmp_path, {"text": ["a"], "coarse": [1]}, {k: features[k] for k in ("text", "coarse")}
    )
    assert [item.label for item in open_dataset(spec)] == [1]
    shutil.rmtree(tmp_path / "some")
    spec = save(tmp_path, {"text": ["a"], "coarse": [1], "fine": [0]}, features)
    with pytest.raises(DatasetError, match=r"several columns of classes \(coarse, fine\)"):
        open_dataset(spec)
    assert [item.label for item in open_dataset(spec, label_column="fine")] == [0]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"words": ["SECRET"]}, {}, "no column of images, and none of strings .* are words"),
        ({"text": [1]}, {}, "none of strings named"),
        ({"text": ["a"]}, {"label_column": "lable"}, "no column 'lable' .* columns are text"),
        ({"text": ["a"]}, {"text_column": "txt"}, "no column 'txt' .* columns are text"),
        ({"text": ["a"]}, {"class_names": ["a"]}, "no labels for class_names"),
        ({"text": ["a"], "label": [0.5]}, {}, "row-000000 .* that is no whole number"),
        ({"text": ["a"], "label": [[1]]}, {}, "must hold integers or strings"),
        ({"text": ["a", "b"], "label": [1, None]}, {}, "row-000001 of some has no label"),
        ({"text": ["a", "b"], "label": [1, -1]}, {}, "row-000001 of some has a label outside"),
        ({"text": ["a"], "label": ["SECRET"]}, {"class_names": ["x"]}, "row-000000 .* outside"),
        ({"text": []}, {}, "is damaged or empty"),
    ],
)
def test_bad_columns_are_refused_without_showing_a_value(tmp_path, columns, options, message):
    features = {"text": hub.Value("string")} if columns == {"text": []} else None
    spec = save(tmp_path, columns, features)
    with pytest.raises(DatasetError, match=message) as error:
        open_dataset(spec, **options)
    assert "SECRET" not in str(error.value)


def test_a_missing_class_of_the_source_is_refused(tmp_path):
    features = {"text": hub.Value("string"), "label": hub.ClassLabel(names=["x", "y"])}
    spec = save(tmp_path, {"text": ["a", "b"], "label": [1, -1]}, features)
    with pytest.raises(DatasetError, match="row-000001 of some has a label outside its classes"):
        open_dataset(spec)


def test_a_fingerprint_follows_content_and_not_place(saved, rows, tmp_path):
    before = open_dataset(f"hf:{saved}").fingerprint
    shutil.copytree(saved, tmp_path / "elsewhere" / "copy")
    assert open_dataset(f"hf:{tmp_path}/elsewhere/copy").fingerprint == before
    assert open_dataset(f"hf:{saved}", label_column="n").fingerprint != before
    (arrow,) = saved.glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[content.index(b"IDAT") + 5] ^= 1
    arrow.write_bytes(content)
    assert open_dataset(f"hf:{saved}").fingerprint != before


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_saved_data_set_is_refused(saved, name):
    for content in (b"", (saved / name).read_bytes()[:100], b"SECRET"):
        (saved / name).write_bytes(content)
        with pytest.raises(DatasetError, match=r"is damaged|are damaged") as error:
            list(open_dataset(f"hf:{saved}"))
        assert "SECRET" not in str(error.value)


def test_a_saved_data_set_cannot_name_files_outside_its_folder(saved, tmp_path):
    shutil.move(saved / "data-00000-of-00001.arrow", tmp_path / "private.arrow")
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": "../private.arrow"}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(DatasetError, match="names files outside it"):
        open_dataset(f"hf:{saved}")


@pytest.fixture
def folder(tmp_path, pictures):
    root = tmp_path / "folder#1"
    for i, name in enumerate(["train/cat/0", "train/owl/1", "train/owl/2", "test/owl/3"]):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[i])
    return root


def test_a_folder_of_images_gives_splits_classes_and_the_files(folder, pictures):
    dataset = open_dataset(f"hf:{folder}:train")
    assert [item.image.read_bytes() for item in dataset] == pictures[:3]
    assert [item.label for item in dataset] == [0, 1, 1]
    assert dataset.class_names == ["cat", "owl"] and not dataset.class_names_from_labels
    before = dataset.fingerprint
    (folder / "train" / "owl" / "2.png").write_bytes(pictures[9])
    assert open_dataset(f"hf:{folder}:train").fingerprint != before


def test_a_row_cannot_name_a_file_outside_the_folder(tmp_path, encode):
    outside = tmp_path / "private.png"
    outside.write_bytes(encode(np.zeros((4, 4), np.uint8)))
    images = [{"bytes": None, "path": str(outside)}, {"bytes": None, "path": "http://x/a.png"}]
    spec = save(tmp_path, {"image": [{"bytes": b"", "path": None}] * 2}, {"image": hub.Image()})
    dataset = open_dataset(spec)
    for image in images:
        assert dataset._encoded(image) is None
    assert dataset._encoded({"bytes": None, "path": f"{tmp_path}/some/../private.png"}) is None
    with pytest.raises(UnreadableImageError):
        next(iter(dataset)).decode()


def test_a_configuration_of_a_folder_is_named_behind_a_hash(tmp_path):
    root = tmp_path / "reviews"
    root.mkdir()
    for mood in ("good", "bad"):
        (root / f"{mood}.csv").write_text(f"text,label\n{mood},1\n")
    configs = [{"config_name": mood, "data_files": f"{mood}.csv"} for mood in ("good", "bad")]
    (root / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    for mood in ("good", "bad"):
        for spec in (f"hf:{root}#{mood}", f"hf:{root}#{mood}:train"):
            assert [item.decode() for item in open_dataset(spec)] == [mood]
    with pytest.raises(DatasetError, match=r"cannot open it \(ValueError: Config name is missing"):
        open_dataset(f"hf:{root}")
    with pytest.raises(DatasetError, match=r"cannot open it .*'ugly' not found"):
        open_dataset(f"hf:{root}#ugly")


def test_a_file_that_the_library_cannot_read_is_not_quoted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "SECRET"}\n{"text": SECRET}\n')
    with pytest.raises(DatasetError, match="datasets cannot read its files") as error:
        open_dataset(f"hf:{tmp_path}")
    assert "SECRET" not in str(error.value)
    assert error.value.__suppress_context__


def test_code_in_a_folder_is_never_run(tmp_path):
    root = tmp_path / "evil"
    root.mkdir()
    (root / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DatasetError, match="cannot open it"):
        open_dataset(f"hf:{root}")
    assert not (tmp_path / "ran").exists()


def test_tars_are_not_left_to_the_library(tmp_path, pictures):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "tars").mkdir()
    with webdataset.TarWriter(str(tmp_path / "tars" / "train-0.tar")) as writer:
        writer.write({"__key__": "0", "png": pictures[0], "cls": 0})
    with pytest.raises(DatasetError, match=r"may decode pickles: name the .tar files"):
        open_dataset(f"hf:{tmp_path / 'tars'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:owner/nothing", "HF_HUB_OFFLINE is set, and the library .* no copy"),
        ("hf:/no/where", "no folder /no/where, nor can a data set"),
        ("hf:", "nor can a data set of the hub be named so"),
        ("hf:a/b/c", "nor can a data set of the hub be named so"),
        ("hf:owner/name:", "'' cannot be the name of a split"),
        ("hf:owner/name#", "'' cannot be the name of a configuration"),
        ("HF:owner/name", "Did you mean 'hf:owner/name'"),
        ("bigbnch:task.json", "Did you mean 'bigbench:task.json'"),
        ("https://example.org/a.tar", "Addresses are not read"),
    ],
)
def test_what_is_not_there_is_refused_at_once(spec, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(spec)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match="is a file: name it without hf:"):
        open_dataset(f"hf:{tmp_path / 'a.parquet'}")


def test_a_hub_out_of_reach_is_given_up_at_once(monkeypatch):
    def refuse(*args):
        raise ConnectionRefusedError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", refuse)  # the client sleeps before it tries again
    with pytest.raises(DatasetError, match=r"hub cannot be asked .*Check the network"):
        open_dataset("hf:owner/nothing")


def test_without_datasets_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[datasets\]"'):
        open_dataset(f"hf:{saved}")


def test_an_extraction_goes_on_where_it_was_stopped(saved, fake_backbone, folder_hashes, tmp_path):
    options = {"shard_rows": 6, "batch_size": 3, "workers": 1}
    extract(open_dataset(f"hf:{saved}"), fake_backbone, tmp_path / "whole", **options)

    def stop(done, total):
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(
            open_dataset(f"hf:{saved}"), fake_backbone, tmp_path / "cut", progress=stop, **options
        )
    extract(open_dataset(f"hf:{saved}"), fake_backbone, tmp_path / "cut", **options)
    assert folder_hashes(tmp_path / "cut") == folder_hashes(tmp_path / "whole")
    assert sys.modules["datasets"] is hub


@pytest.fixture
def folder_of_texts(tmp_path):
    """A folder as the hub has them, and a file beside it that is none of its business."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "secret.csv").write_text("text,label\nSECRET,0\nSECRET,1\n")
    return folder


@pytest.mark.parametrize(
    "files",
    [
        "../secret.csv",
        "train.csv/../../secret.csv",
        "{outside}/secret.csv",
        "https://example.org/x.csv",
        "hf://datasets/other/x.csv",
        "zip://secret.csv::../secret.zip",
        "~/secret.csv",
    ],
)
@pytest.mark.parametrize("note", ["README.md", ".huggingface.yaml"])
def test_a_folder_reads_no_files_outside_it(folder_of_texts, tmp_path, files, note, monkeypatch):
    files = files.format(outside=tmp_path)
    text = f'configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "{files}"'
    (folder_of_texts / note).write_text(f"---\n{text}\n---\n" if note == "README.md" else text)

    def no_network(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(DatasetError, match="asks for files outside it"):
        open_dataset(f"hf:{folder_of_texts}")


def test_a_folder_reads_no_link_that_leads_out_of_it(folder_of_texts, tmp_path):
    (folder_of_texts / "train.csv").unlink()
    (folder_of_texts / "train.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(DatasetError, match="asks for files outside it"):
        open_dataset(f"hf:{folder_of_texts}")


def test_a_folder_may_name_its_own_files(folder_of_texts):
    text = "configs:\n- config_name: default\n  data_files: train.csv"
    (folder_of_texts / "README.md").write_text(f"---\n{text}\n---\n# Texts\n")
    assert [item.text for item in open_dataset(f"hf:{folder_of_texts}")] == ["a", "b"]
