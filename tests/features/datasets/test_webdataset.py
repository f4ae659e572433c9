import io
import itertools
import json
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from dpfc.features import DatasetError, MissingDependencyError, extract, open_dataset
from dpfc.features.exceptions import UnreadableImageError, UnreadableTextError

webdataset = pytest.importorskip("webdataset")


def write_tar(path, files, special=()):
    """Write files by name, in order, then headers that are no plain files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in special:
            tar.addfile(info)
    return path


def header(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.fixture
def pictures(encode):
    """Encoded images that all differ."""
    return [encode(np.full((8, 8, 3), 5 * i, np.uint8)) for i in range(40)]


@pytest.fixture
def shards(tmp_path, pictures):
    """Three tars by webdataset's own writer, with 7, 5 and 1 images."""
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = iter(range(40))
    for shard, n in enumerate((7, 5, 1)):
        with webdataset.TarWriter(str(folder / f"s-{shard:03d}.tar")) as writer:
            for i in itertools.islice(rows, n):
                key = f"a.b/{i:04d}"
                writer.write({"__key__": key, "png": pictures[i], "cls": i % 3})
    return folder


def test_one_tar_gives_its_samples_in_order_with_encoded_images(shards, pictures):
    dataset = open_dataset(shards / "s-000.tar", class_names=["x", "y", "z"])
    items = list(dataset)
    assert (dataset.modality, dataset.name, len(dataset)) == ("image", "s-000.tar", 7)
    assert [item.image for item in items] == pictures[:7]
    assert [item.id for item in items] == [f"a.b/{i:04d}" for i in range(7)]
    assert [item.label for item in items] == [i % 3 for i in range(7)]
    assert dataset.class_names == ["x", "y", "z"] and not dataset.class_names_from_labels


def test_samples_and_keys_are_those_that_webdataset_reads(shards):
    paths = [str(path) for path in sorted(shards.iterdir())]
    read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    items = list(open_dataset(shards))
    assert [sample["png"] for sample in read] == [item.image for item in items]
    assert [sample["__key__"] for sample in read] == [item.id.split("/", 1)[1] for item in items]
    assert [int(sample["cls"]) for sample in read] == [item.label for item in items]


@pytest.mark.parametrize("start", range(14))
def test_shards_of_a_folder_or_pattern_from_a_position_are_the_tail(shards, start):
    expected = [f"s-00{s}.tar/a.b/{i:04d}" for i, s in enumerate([0] * 7 + [1] * 5 + [2])]
    for spec in (shards, f"{shards}/s-{{000..002}}.tar"):
        dataset = open_dataset(spec)
        found = [(item.id, item.label) for item in dataset.items(start)]
        assert found == [(expected[i], i % 3) for i in range(start, 13)]
        assert len({item.id for item in dataset}) == len(dataset) == 13


def test_resuming_reads_nothing_before_its_start(shards, monkeypatch):
    from dpfc.features.datasets import webdataset as webdataset_tars

    dataset = open_dataset(shards)
    read, original = [], webdataset_tars.read_place

    def counted(file, place):
        read.append(place)
        return original(file, place)

    monkeypatch.setattr(webdataset_tars, "read_place", counted)
    rows = dataset.items(9)
    next(rows)
    assert len(read) == 1
    assert len(list(rows)) == 3 and len(read) == 4


def test_a_pattern_keeps_its_own_order_and_tells_shards_of_one_name_apart(tmp_path, pictures):
    for folder in ("a", "b"):
        write_tar(tmp_path / folder / "0.tar", [("k.png", pictures[0])])
    dataset = open_dataset(f"{tmp_path}/{{b,a}}/0.tar")
    assert [item.id for item in dataset] == ["b/0.tar/k", "a/0.tar/k"]
    assert not dataset.has_labels and dataset.class_names is None


def test_labels_come_from_json_or_from_the_files_that_are_named(tmp_path, pictures):
    rows = []
    for i, mood in enumerate(["sad", "glad", "sad"]):
        meta = json.dumps({"label": i, "mood": mood}).encode()
        rows += [(f"{i}.PNG", pictures[i]), (f"{i}.json", meta), (f"{i}.txt", mood.encode())]
    path = write_tar(tmp_path / "a.tar", rows)
    assert [item.label for item in open_dataset(path)] == [0, 1, 2]
    for column in ("mood", "txt", ".txt"):
        dataset = open_dataset(path, label_column=column)
        assert dataset.class_names == ["glad", "sad"] and dataset.class_names_from_labels
        assert [item.label for item in dataset] == [1, 0, 1]
    stated = open_dataset(path, label_column="mood", class_names=["sad", "glad"])
    assert [item.label for item in stated] == [0, 1, 0] and not stated.class_names_from_labels


def test_texts_are_read_where_there_are_no_images_or_where_they_are_named(tmp_path, pictures):
    rows = [("0.txt", b"one\n"), ("0.cls", b" 1\n"), ("1.txt", "zwö".encode()), ("1.cls", b"0")]
    dataset = open_dataset(write_tar(tmp_path / "a.tar", rows))
    assert dataset.modality == "text"
    assert [(item.decode(), item.label, item.id) for item in dataset] == [
        ("one\n", 1, "0"),
        ("zwö", 0, "1"),
    ]
    rows = [("0.png", pictures[0]), ("0.json", b'{"caption": "a"}')]
    rows += [("1.png", pictures[1]), ("1.json", b'{"caption": null}')]
    path = write_tar(tmp_path / "b.tar", rows)
    assert open_dataset(path).modality == "image"
    first, second = open_dataset(path, text_column="caption")
    assert first.decode() == "a"
    with pytest.raises(UnreadableTextError, match="'1' holds no text"):
        second.decode()


def test_folders_hidden_files_and_notes_are_left_out(tmp_path, pictures):
    files = [("__info__", b"x"), ("./._0.png", b"x"), ("./0.png", pictures[0]), ("LICENSE", b"x")]
    files += [("deep/._1.png", b"x"), (".trash/2.png", b"x")]
    path = write_tar(tmp_path / "a.tar", files, [header("deep", tarfile.DIRTYPE)])
    assert [item.id for item in open_dataset(path)] == ["0"]


def test_a_sample_without_an_image_is_named_when_it_is_decoded(tmp_path, pictures):
    rows = [("0.png", pictures[0]), ("0.cls", b"0"), ("1.cls", b"0")]
    items = list(open_dataset(write_tar(tmp_path / "a.tar", rows)))
    items[0].decode()
    with pytest.raises(UnreadableImageError, match="'1' has no bytes"):
        items[1].decode()


def test_a_fingerprint_follows_content_columns_and_order(shards, tmp_path):
    before = open_dataset(shards).fingerprint
    assert open_dataset(f"{shards}/s-{{000..002}}.tar").fingerprint == before
    found = {
        before,
        open_dataset(f"{shards}/s-{{002..000}}.tar").fingerprint,
        open_dataset(shards, text_column="cls").fingerprint,
        open_dataset(shards / "s-000.tar").fingerprint,
    }
    path = shards / "s-002.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 5] ^= 1
    path.write_bytes(content)
    assert len({*found, open_dataset(shards).fingerprint}) == 5


LINKS = {
    "link": header("0.cls", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": header("0.cls", tarfile.LNKTYPE, linkname="0.png"),
    "device": header("0.cls", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "pipe": header("0.cls", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_are_refused_by_name(tmp_path, pictures, kind):
    path = write_tar(tmp_path / "a.tar", [("0.png", pictures[0])], [LINKS[kind]])
    with pytest.raises(DatasetError, match=r"'0.cls', which is a link, a device or a sparse file"):
        open_dataset(path)


@pytest.mark.parametrize("name", ["../0.png", "/etc/0.png", "a/../../0.png", ".."])
def test_a_name_that_leads_out_of_the_tar_is_refused(tmp_path, pictures, name):
    path = write_tar(tmp_path / "in" / "a.tar", [("1.png", pictures[0]), (name, pictures[0])])
    with pytest.raises(DatasetError, match=r"a name that leads out of it"):
        open_dataset(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]


class Bomb:
    def __reduce__(self):
        return (open, ("unpickled", "w"))


@pytest.mark.parametrize("ending", ["pyd", "pth", "pkl", "pickle", "pt"])
def test_pickles_are_neither_decoded_nor_taken_for_labels(tmp_path, pictures, ending, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    rows = [("0.png", pictures[0]), ("0.cls", b"0"), (f"0.{ending}", pickle.dumps(Bomb()))]
    path = write_tar(tmp_path / "a.tar", rows)
    assert [item.label for item in open_dataset(path)] == [0]
    for option in ("label_column", "text_column"):
        with pytest.raises(DatasetError, match="can run any code"):
            open_dataset(path, **{option: ending})
    assert not (tmp_path / "unpickled").exists()


def test_every_cut_of_a_tar_is_refused(tmp_path, pictures):
    rows = [(f"{i}.{end}", content) for i in range(2) for end, content in (("png", pictures[i]),)]
    path = write_tar(tmp_path / "a.tar", [*rows, ("1.cls", b"0")])
    content = path.read_bytes().rstrip(b"\0")
    whole = -(-len(content) // 512) * 512  # up to the end mark
    path.write_bytes(content.ljust(whole + 1024, b"\0"))
    with pytest.raises(DatasetError, match="no label"):
        open_dataset(path)  # whole as a tar
    for size in {*range(0, whole, 512), *range(100, whole, 700), whole, whole + 512}:
        path.write_bytes(content.ljust(whole + 512, b"\0")[:size])
        with pytest.raises(DatasetError, match=r"a.tar is (not a readable tar|damaged or cut off)"):
            open_dataset(path)


def _with_size(content, size):
    """Give the third header another size, with a right checksum."""
    at = 2048
    block = bytearray(content[at : at + 512])
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return content[:at] + bytes(block) + content[at + 512 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tar: b"words", "not a readable tar"),
        (lambda tar: b"", "not a readable tar"),
        (lambda tar: b"\x1f\x8b" + tar, "is compressed"),
        # tarfile itself takes a damaged header for the end
        (lambda tar: tar[:1030] + b"\xff" + tar[1031:], "damaged or cut off after byte 0"),
        # leads back to the second header, for ever
        (lambda tar: _with_size(tar, -1536), "damaged or cut off after byte 2048"),
        (lambda tar: _with_size(tar, 1 << 40), "damaged or cut off"),
        (lambda tar: tar + tar, "goes on behind its end mark"),
    ],
)
def test_a_damaged_tar_is_refused(tmp_path, spoil, message):
    path = write_tar(tmp_path / "a.tar", [("0.txt", b"a"), ("1.txt", b"b"), ("2.txt", b"c")])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        open_dataset(path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.8, 0.9, 0.99])
def test_a_tar_cut_in_what_fills_its_last_record_is_refused(tmp_path, share):
    path = write_tar(tmp_path / "a.tar", [(f"{i}.txt", b"a" * 700) for i in range(9)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DatasetError, match=r"a.tar is (damaged or cut off|cut off in its last)"):
        open_dataset(path)


def test_a_tar_that_ends_with_its_end_mark_is_whole(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.txt", b"a")])
    path.write_bytes(path.read_bytes()[: 2 * 512 + 1024])
    assert len(open_dataset(path)) == 1


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_long_header_is_refused_unread(tmp_path, kind):
    body = b"12 abcd=xyz\n" * 100_000
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, len(body)
    path = write_tar(tmp_path / "a.tar", [("0.txt", b"a")])
    body += bytes(-len(body) % 512)
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + body + path.read_bytes())
    began = time.process_time()
    with pytest.raises(DatasetError, match=r"a.tar has a header of 1,200,000 bytes, where 65,536"):
        open_dataset(path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("mark", ["\x1b[31m", "\x07", "\x9b2J", "\u202e"])
def test_marks_that_steer_a_terminal_do_not_get_into_ids_and_classes(tmp_path, pictures, mark):
    path = write_tar(tmp_path / "a.tar", [(f"{mark}0.png", pictures[0]), (f"{mark}0.cls", b"1")])
    (item,) = open_dataset(path)
    assert item.id.isprintable() and mark not in item.id
    (tmp_path / "f" / f"cat{mark}").mkdir(parents=True)
    (tmp_path / "f" / f"cat{mark}" / "0.png").write_bytes(pictures[0])
    dataset = open_dataset(tmp_path / "f")
    assert all(text.isprintable() for text in [*dataset.class_names, next(iter(dataset)).id])


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([("0.bin", b"")], {}, "no image .* but files that end in bin"),
        ([("README", b"")], {}, "holds no samples"),
        ([("0.png", b""), ("0.jpg", b"")], {}, "sample '0' has several images .png, jpg"),
        ([("0.png", b""), ("0.PNG", b"")], {}, "holds '0.PNG' twice"),
        ([("0.png", b""), ("1.png", b""), ("0.cls", b"0")], {}, "of sample '0' do not lie toget"),
        ([("0.png", b""), ("0.cls", b"0"), ("1.png", b"")], {}, "1 of a.tar has no label"),
        ([("0.png", b""), ("0.cls", b"\n")], {}, "0 of a.tar has no label"),
        ([("0.png", b""), ("0.cls", b"\xff")], {}, "a file of '0' is not UTF-8"),
        ([("0.txt", b"\xff")], {}, "a file of '0' is not UTF-8"),
        ([("0.png", b""), ("0.cls", b"SECRET")], {"class_names": ["a"]}, "0 of a.tar has a label"),
        ([("0.png", b""), ("0.json", b"{SECRET")], {}, "the .json of '0' is not valid JSON"),
        ([("0.png", b""), ("0.json", b'["SECRET"]')], {}, "must hold one JSON object"),
        ([("0.png", b""), ("0.json", b'{"label":0.5}')], {}, "that is no whole number"),
        ([("0.png", b"")], {"class_names": ["a"]}, "no labels for class_names"),
        (
            [("0.png", b""), ("0.json", b'{"hue":1}')],
            {"label_column": "huge"},
            "ends in 'huge' .label_column., but in png, json; fields of the .json: hue",
        ),
    ],
)
def test_bad_samples_are_refused_without_showing_what_they_hold(tmp_path, files, options, message):
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DatasetError, match=message) as error:
        list(open_dataset(path, **options))
    assert "SECRET" not in str(error.value)


def test_a_label_too_large_for_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("dpfc.features.datasets.webdataset._MAX_TEXT_BYTES", 10)
    path = write_tar(tmp_path / "a.tar", [("0.png", b""), ("0.cls", b"SECRET" * 2)])
    with pytest.raises(DatasetError, match="a text, label or group of '0' is larger than 10 bytes"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("s-{000..003}.tar", r"cannot read .*s-003.tar: No such file"),
        ("s-{000..002.tar", "braces in .* do not match"),
        ("s-{000,000}.tar", "names a file twice"),
        ("s-{000..999}.tar", "names 1,000 files; the limit shards is 100 .*DPFC_LIMIT_SHARDS"),
        ("s-{000,001}.csv", "must name .tar files only"),
        ("{train,test}-0.tar", "several splits"),
    ],
)
def test_a_bad_pattern_is_refused(shards, pattern, message, monkeypatch):
    monkeypatch.setenv("DPFC_LIMIT_SHARDS", "100")
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"{shards}/{pattern}")


def test_a_tar_that_changed_is_refused(shards, pictures):
    dataset = open_dataset(shards)
    write_tar(shards / "s-001.tar", [("0.png", pictures[0])])
    with pytest.raises(DatasetError, match=r"s-001.tar changed after it was opened"):
        list(dataset)


def test_without_webdataset_the_extra_is_named(shards, monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    for spec in (shards, f"{shards}/s-{{000..002}}.tar"):
        with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[webdataset\]"'):
            open_dataset(spec)


def test_webdataset_and_datasets_are_imported_for_their_own_specs_only(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\n")
    code = "import sys; from dpfc.features import open_dataset; open_dataset(sys.argv[1]); "
    code += "assert not {'webdataset', 'datasets', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.csv"], check=True)


def test_an_extraction_stopped_anywhere_ends_in_the_same_bytes(
    shards, fake_backbone, folder_hashes, tmp_path
):
    extract(open_dataset(shards), fake_backbone, tmp_path / "whole", shard_rows=4, batch_size=2)

    def stop(done, total):
        raise KeyboardInterrupt

    for _ in range(20):
        try:
            extract(
                open_dataset(shards),
                fake_backbone,
                tmp_path / "stopped",
                shard_rows=4,
                batch_size=2,
                workers=1,
                progress=stop,
            )
            break
        except KeyboardInterrupt:
            stop = stop_after(2)
    assert folder_hashes(tmp_path / "stopped") == folder_hashes(tmp_path / "whole")


def stop_after(batches):
    """Ctrl-C after so many batches."""
    calls = itertools.count(1)

    def stop(done, total):
        if next(calls) > batches and done < total:
            raise KeyboardInterrupt

    return stop
