"""Images that cannot be read, too little memory, texts, worker processes."""

import functools
import json

import numpy as np
import pytest
from PIL import Image

from dpfc.features import FeatureCache, UnreadableImageError, extract, open_dataset
from dpfc.features.backbones.row_independence import check_rows
from dpfc.features.datasets.base import TextDataset, TextItem
from dpfc.features.datasets.decoding import square_pixels
from dpfc.features.exceptions import FeatureCacheError, OutOfDeviceMemoryError

ROWS, SHARD_ROWS = 230, 50
BROKEN = (0, 120, *range(150, 200), 229)  # the fourth shard has no readable row


def run(data, backbone, out, **options):
    return extract(data, backbone, out, **{"shard_rows": SHARD_ROWS, **options})


@pytest.fixture(scope="module")
def whole(write_parquet, tmp_path_factory):
    return open_dataset(write_parquet(tmp_path_factory.mktemp("whole") / "x.parquet", ROWS))


@pytest.fixture(scope="module")
def broken(encode, write_parquet, tmp_path_factory):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8)
    images = [{"bytes": encode(p), "path": None} for p in pixels]
    for row in BROKEN:
        images[row]["bytes"] = images[row]["bytes"][:30]
    path = tmp_path_factory.mktemp("broken") / "x.parquet"
    return open_dataset(write_parquet(path, ROWS, images=images))


# -- rows that cannot be read ----------------------------------------------------------------------


def test_skipped_rows_are_listed_and_the_others_keep_their_ids(
    broken, whole, fake_backbone_class, tmp_path
):
    cache = run(broken, fake_backbone_class(), tmp_path / "out", on_error="skip")
    skipped = cache.manifest["skipped"]
    assert [row["id"] for row in skipped] == [f"row-{row:06d}" for row in BROKEN]
    assert all("cannot be decoded" in row["reason"] for row in skipped)
    assert cache.manifest["dataset"]["n_samples"] == ROWS
    assert len(cache) == ROWS - len(BROKEN)
    kept = np.delete(np.arange(ROWS), BROKEN)
    ids = [i for table in cache.tables() for i in table.column("id").to_pylist()]
    assert ids == [f"row-{row:06d}" for row in kept]
    complete = run(whole, fake_backbone_class(), tmp_path / "whole")
    assert np.array_equal(cache.load()[0], complete.load()[0][kept])
    assert np.array_equal(cache.load()[1], complete.load()[1][kept])
    assert [shard["rows"] for shard in cache.manifest["shards"]] == [49, 50, 49, 0, 29]


@pytest.mark.parametrize("stop", [16, 100, 150, 200])
def test_a_stopped_run_with_skipped_rows_resumes_to_the_same_bytes(
    broken, fake_backbone_class, tmp_path, folder_hashes, stop
):
    def interrupt(done, total):
        if done >= stop:
            raise KeyboardInterrupt

    run(broken, fake_backbone_class(), tmp_path / "whole", on_error="skip")
    options = {"on_error": "skip", "workers": 3}
    with pytest.raises(KeyboardInterrupt):
        run(broken, fake_backbone_class(), tmp_path / "out", progress=interrupt, **options)
    run(broken, fake_backbone_class(), tmp_path / "out", **options)
    assert folder_hashes(tmp_path / "out") == folder_hashes(tmp_path / "whole")


def test_a_damaged_shard_is_redone_with_its_skipped_rows(
    broken, fake_backbone_class, tmp_path, folder_hashes
):
    out = tmp_path / "out"
    run(broken, fake_backbone_class(), out, on_error="skip")
    before = folder_hashes(out)
    (out / "part-00002.parquet").write_bytes(b"x")
    run(broken, fake_backbone_class(), out, on_error="skip")
    assert folder_hashes(out) == before


def test_stop_names_the_row_and_is_the_default(broken, fake_backbone, tmp_path):
    with pytest.raises(UnreadableImageError, match="'row-000000'"):
        run(broken, fake_backbone, tmp_path / "out")


def test_a_data_set_of_unreadable_rows_gives_no_cache(write_parquet, fake_backbone, tmp_path):
    images = [{"bytes": b"no image", "path": None}] * 30
    data = open_dataset(write_parquet(tmp_path / "x.parquet", 30, images=images))
    with pytest.raises(FeatureCacheError, match="no rows were written"):
        run(data, fake_backbone, tmp_path / "out", on_error="skip")


def test_on_error_is_checked(whole, fake_backbone, tmp_path):
    with pytest.raises(ValueError, match="on_error must be one of 'stop', 'skip', got 'ignore'"):
        run(whole, fake_backbone, tmp_path / "out", on_error="ignore")


BAD_FILES = {
    "zero-bytes.jpg": lambda encode, noise: b"",
    "zeros.png": lambda encode, noise: b"\0" * 500,
    "cut.jpg": lambda encode, noise: encode(noise, "JPEG")[:1500],
    "cut.png": lambda encode, noise: encode(noise)[:1500],
    "header-only.png": lambda encode, noise: encode(noise)[:33],
    "damaged.png": lambda encode, noise: encode(noise).replace(b"IDAT", b"IDAX"),
    "scrambled.jpg": lambda encode, noise: encode(noise, "JPEG")[:20] + b"\xff\xd9" * 300,
    "bomb.png": lambda encode, noise: encode(np.zeros((2000, 2000), np.uint8)),
    "text.png": lambda encode, noise: b"no image at all",
    "tiff.png": lambda encode, noise: encode(noise, "TIFF"),
    "pickle.gif": lambda encode, noise: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "postscript.bmp": lambda encode, noise: b"%!PS-Adobe-3.0 EPSF-3.0\n",
}


def turned(encode, noise):
    exif = Image.Exif()
    exif[0x0112] = 8
    return encode(noise, "JPEG", exif=exif)


def animation(encode, noise):
    frames = [Image.fromarray(noise), Image.new("RGB", (64, 64))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


GOOD_FILES = {
    "colours.png": lambda encode, noise: encode(noise),
    "gray.png": lambda encode, noise: encode(noise[..., 0]),
    "gray16.png": lambda encode, noise: encode(noise[..., 0].astype(np.uint16) * 256),
    "alpha.png": lambda encode, noise: encode(Image.fromarray(noise).convert("RGBA")),
    "palette.png": lambda encode, noise: encode(Image.fromarray(noise).convert("P")),
    "one-bit.bmp": lambda encode, noise: encode(Image.fromarray(noise).convert("1"), "BMP"),
    "cmyk.jpg": lambda encode, noise: encode(Image.fromarray(noise).convert("CMYK"), "JPEG"),
    "turned.jpeg": turned,
    "animation.gif": animation,
    "modern.webp": lambda encode, noise: encode(noise, "WEBP"),
}


@pytest.fixture(scope="module")
def mixed(encode, tmp_path_factory):
    """A folder of every kind of image that is read, and of files that are none."""
    root = tmp_path_factory.mktemp("mixed")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name, make in {**BAD_FILES, **GOOD_FILES}.items():
        path = root / ("bad" if name in BAD_FILES else "good") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make(encode, noise))
    return root


@pytest.fixture
def low_pixel_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)


@pytest.mark.usefixtures("low_pixel_limit")
def test_every_kind_of_image_is_read_and_every_bad_file_is_skipped_by_name(
    mixed, fake_backbone, tmp_path
):
    cache = run(open_dataset(mixed), fake_backbone, tmp_path / "out", on_error="skip")
    skipped = cache.manifest["skipped"]
    assert [row["id"] for row in skipped] == sorted(f"bad/{name}" for name in BAD_FILES)
    ids = [i for table in cache.tables() for i in table.column("id").to_pylist()]
    assert ids == sorted(f"good/{name}" for name in GOOD_FILES)
    assert np.isfinite(cache.load()[0]).all()
    whole = next(row["reason"] for row in skipped if "bomb" in row["id"])
    assert "decompression bombs" in whole


@pytest.mark.usefixtures("low_pixel_limit")
@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_a_bad_file_stops_the_run_with_its_path(mixed, fake_backbone, tmp_path, name):
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    (folder / name).write_bytes((mixed / "bad" / name).read_bytes())
    with pytest.raises(UnreadableImageError, match=f"image 'cat/{name}' "):
        run(open_dataset(tmp_path / "images"), fake_backbone, tmp_path / "out")


# -- too little memory -----------------------------------------------------------------------------


@pytest.mark.parametrize(("room", "expected"), [(15, 8), (5, 4), (1, 1)])
def test_batches_that_do_not_fit_are_halved_until_they_do(
    whole, fake_backbone_class, tmp_path, folder_hashes, room, expected
):
    run(whole, fake_backbone_class(), tmp_path / "whole")
    backbone = fake_backbone_class(room=room)
    check_rows(backbone)  # on made-up rows, which are not counted
    backbone.calls, backbone.passes = 0, []
    with pytest.warns(RuntimeWarning, match=f"batches of {expected} rows") as caught:
        run(whole, backbone, tmp_path / "out", workers=1)
    assert len(caught) == 1
    assert max(backbone.passes) == expected
    assert sum(backbone.passes) == ROWS
    # Where one row has room only, the check has found it.
    halvings = 4 - int(np.log2(expected)) if expected > 1 else 0
    assert backbone.calls - len(backbone.passes) == halvings
    made, full = folder_hashes(tmp_path / "out"), folder_hashes(tmp_path / "whole")
    if expected == 1:  # the manifest says that rows went one by one
        assert made.pop("manifest.json") != full.pop("manifest.json")
    assert made == full


def test_several_threads_that_run_out_of_memory_agree_on_one_size(
    whole, fake_backbone_class, tmp_path
):
    backbone = fake_backbone_class(room=5, delay=0.001)
    check_rows(backbone)  # on made-up rows, which are not counted
    backbone.passes = []
    with pytest.warns(RuntimeWarning, match="batches of 4 rows"):
        run(whole, backbone, tmp_path / "out", workers=4)
    assert set(backbone.passes) <= {4, 2}


def test_one_row_that_does_not_fit_is_an_error(whole, fake_backbone_class, tmp_path):
    with pytest.raises(OutOfDeviceMemoryError, match="1 rows do not fit"):
        run(whole, fake_backbone_class(room=0), tmp_path / "out")


def test_the_bar_says_that_memory_is_short(whole, fake_backbone_class, tmp_path, capfd):
    run(whole, fake_backbone_class(room=4), tmp_path / "out", progress=True)
    assert "batches of 4" in capfd.readouterr().err.replace("\n", " ")


# -- texts -----------------------------------------------------------------------------------------


class Sentences(TextDataset):
    name = "sentences"
    class_names = None
    has_labels = False
    fingerprint = "f" * 64
    texts = tuple(f"{'abc' * (i % 7)} the {i}th sentence" for i in range(120))

    def __len__(self):
        return len(self.texts)

    def items(self, start=0):
        for i in range(start, len(self)):
            text = None if i == 60 else self.texts[i]
            yield TextItem(text, None, f"row-{i:06d}")


def test_texts_are_embedded_from_lists_of_token_ids(fakes, tmp_path):
    backbone = fakes.FakeTextBackbone()
    cache = run(Sentences(), backbone, tmp_path / "out", on_error="skip")
    expected = [backbone.preparer(text) for text in Sentences.texts]
    del expected[60]
    assert np.array_equal(cache.load()[0], backbone.embed(expected))
    assert [row["id"] for row in cache.manifest["skipped"]] == ["row-000060"]
    assert "sentence" not in json.dumps(cache.manifest["skipped"])


def test_a_backbone_of_the_other_kind_is_refused(whole, fakes, tmp_path):
    with pytest.raises(ValueError, match="sentences holds texts and fake takes images"):
        run(Sentences(), fakes.FakeBackbone(), tmp_path / "out")
    with pytest.raises(ValueError, match="holds images and fake-text takes texts"):
        run(whole, fakes.FakeTextBackbone(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- worker processes ------------------------------------------------------------------------------


@pytest.fixture
def on_gpu(fakes, monkeypatch):
    """A backbone that says it is on a GPU, for any number of rows."""
    monkeypatch.setattr("dpfc.features.extraction._FEW_ROWS", 0)

    class Pretended(fakes.FakeBackbone):
        device = "cuda"
        preparer = functools.partial(square_pixels, side=8)

    return Pretended


@pytest.mark.slow
def test_worker_processes_give_the_bytes_that_threads_give(
    broken, on_gpu, tmp_path, folder_hashes, monkeypatch
):
    run(broken, on_gpu(), tmp_path / "processes", workers=2, on_error="skip")
    monkeypatch.setattr("dpfc.features.extraction._FEW_ROWS", ROWS + 1)
    run(broken, on_gpu(), tmp_path / "threads", on_error="skip")
    assert folder_hashes(tmp_path / "processes") == folder_hashes(tmp_path / "threads")


@pytest.mark.slow
def test_worker_processes_end_when_the_run_is_stopped(broken, on_gpu, tmp_path):
    import multiprocessing

    others = set(multiprocessing.active_children())  # scikit-learn keeps its own for a while
    with pytest.raises(UnreadableImageError, match="'row-000000'"):
        run(broken, on_gpu(), tmp_path / "out", workers=2)
    assert set(multiprocessing.active_children()) <= others
    with pytest.raises(FeatureCacheError, match="incomplete"):
        FeatureCache.open(tmp_path / "out")
