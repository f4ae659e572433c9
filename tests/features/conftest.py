"""Small data sets, a fake backbone and a finished cache."""

import hashlib
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dpfc.features import CacheDescription, FeatureCache, FeatureCacheWriter

FAKE_PATH = Path(__file__).with_name("fake_backbone.py")
CLASS_NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache_home(tmp_path_factory):
    """Keep exported networks out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPFC_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def fakes():
    """The module with the fake backbones."""
    spec = importlib.util.spec_from_file_location("fake_backbone", FAKE_PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_backbone_class(fakes):
    return fakes.FakeBackbone


@pytest.fixture
def fake_backbone(fake_backbone_class):
    return fake_backbone_class()


@pytest.fixture(scope="session")
def encode():
    """Encode an image, or an array of pixels, as the bytes of a file."""

    def encode(image, kind="PNG", **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_parquet(encode):
    """Write an image Parquet file in the Hugging Face layout."""

    def write(path, rows=30, *, seed=0, labels=True, class_names=CLASS_NAMES, group=7, images=None):
        generator = np.random.default_rng(seed)
        pixels = generator.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)
        if images is None:
            images = [{"bytes": encode(p), "path": f"{i}.png"} for i, p in enumerate(pixels)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(images, kind)}
        if labels is True:
            labels = (np.arange(rows) % 3).astype(np.int64)
        if labels is not False:
            columns["label"] = pa.array(labels)
        table = pa.table(columns)
        if class_names:
            features = {"label": {"names": class_names, "_type": "ClassLabel"}}
            info = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, path, row_group_size=group)
        return path

    return write


@pytest.fixture
def parquet_path(write_parquet, tmp_path):
    return write_parquet(tmp_path / "images.parquet")


@pytest.fixture(scope="session")
def folder_hashes():
    """SHA-256 of every file under a folder, by relative name."""

    def hashes(folder):
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }

    return hashes


CACHE_ROWS, CACHE_WIDTH = 25, 6


@pytest.fixture(scope="session")
def rows():
    """Features, labels and ids of small rows."""

    def rows(n=CACHE_ROWS):
        X = np.random.default_rng(0).normal(size=(n, CACHE_WIDTH)).astype(np.float32)
        return X, np.arange(n) % 3, [f"row-{i}" for i in range(n)]

    return rows


@pytest.fixture(scope="session")
def describe():
    """Describe a cache of such rows."""

    def describe(**options):
        defaults = {"has_ids": True, "shard_rows": 10, "class_names": ("a", "b", "c")}
        return CacheDescription(CACHE_WIDTH, **{**defaults, **options})

    return describe


@pytest.fixture(scope="session")
def write(rows, describe):
    """Write or complete a cache of such rows."""

    def write(path, n=CACHE_ROWS, *, overwrite=False, **options):
        X, y, ids = rows(n)
        description = describe(**options)
        with FeatureCacheWriter(path, description, overwrite=overwrite) as writer:
            if not writer.is_complete:
                start = writer.n_written
                labels = y[start:] if description.has_labels else None
                writer.write(X[start:], labels, ids[start:] if description.has_ids else None)
            writer.finish()
        return FeatureCache.open(path)

    return write


@pytest.fixture
def cache(write, tmp_path):
    return write(tmp_path / "cache")


@pytest.fixture(scope="session")
def names_in():
    """Sorted names in a folder."""
    return lambda folder: sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def model_folders():
    """`model_folders.py`: makers of tiny models."""
    pytest.importorskip("transformers")
    path = FAKE_PATH.with_name("model_folders.py")
    spec = importlib.util.spec_from_file_location("model_folders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_model(model_folders, tmp_path_factory):
    """Folder and model of a kind, made once in a run; tests must not write into the folder."""
    made = {}

    def make(kind, *args):
        if (kind, *args) not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[(kind, *args)] = folder, getattr(model_folders, kind)(folder, *args)
        return made[(kind, *args)]

    return make


@pytest.fixture
def offline(monkeypatch):
    """Make any connection fail."""

    def refuse(*args):
        raise AssertionError(f"a connection was tried: {args[1:]}")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture(scope="session")
def assert_holds():
    """Compare a cache's features, rounded to its dtype, its labels and its ids."""

    def check(cache, features, labels=None, ids=None):
        found, codes = cache.load()
        assert np.array_equal(found, features.astype(cache.description.dtype))
        assert (codes is None) if labels is None else np.array_equal(codes, labels)
        if ids is not None:
            assert [i for t in cache.tables() for i in t.column("id").to_pylist()] == ids

    return check
