import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc import DPFCClassifier
from dpfc.exceptions import PrivacyWarning
from dpfc.features import (
    DatasetError,
    FeatureCache,
    FeatureCacheError,
    FeatureCacheWriter,
    import_features,
)

N, WIDTH = 700, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = np.arange(N) % 3
IDS = [f"k{i}" for i in range(N)]
NAMES = np.array(["ant", "bee", "cow"])


# Arrays


def test_an_npy_file_with_labels_beside_it_keeps_its_order(assert_holds, tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    cache = import_features(
        tmp_path / "x.npy", tmp_path / "c", labels=tmp_path / "y.npy", shard_rows=256
    )
    assert_holds(cache, X, Y, ids=[f"row-{i:06d}" for i in range(N)])
    assert cache.manifest["backbone"]["spec"] == "imported"
    (source,) = cache.manifest["backbone"]["sources"]
    assert source["name"] == "x.npy"
    assert len(source["sha256"]) == 64


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", "i1", "u2"])
def test_arrays_of_any_order_and_number_are_read(assert_holds, tmp_path, order, kind):
    values = np.asarray(RNG.integers(0, 100, (300, 4)), dtype=kind, order=order)
    np.save(tmp_path / "x.npy", values)
    np.savez_compressed(tmp_path / "x.npz", values)
    for name in ("x.npy", "x.npz"):
        cache = import_features(tmp_path / name, tmp_path / f"c-{name}", dtype="float32")
        assert_holds(cache, values, None)


def test_an_npz_file_gives_features_labels_and_ids(assert_holds, tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=NAMES[Y], ids=IDS)
    cache = import_features(tmp_path / "x.npz", tmp_path / "c", class_names=NAMES.tolist())
    assert_holds(cache, X, Y, ids=IDS)
    assert cache.class_names == NAMES.tolist()


def test_an_npz_file_of_splits_asks_for_one(assert_holds, tmp_path):
    np.savez(tmp_path / "x.npz", x_train=X, y_train=Y, x_test=X[:9], y_test=Y[:9])
    with pytest.raises(DatasetError, match=r"x_train, y_train, x_test, y_test: name the one"):
        import_features(tmp_path / "x.npz", tmp_path / "c")
    cache = import_features(
        tmp_path / "x.npz", tmp_path / "c", features_column="x_test", label_column="y_test"
    )
    assert_holds(cache, X[:9], Y[:9])


def test_several_files_follow_each_other(assert_holds, tmp_path):
    for name, rows in (("a", slice(0, 300)), ("b", slice(300, N))):
        np.savez(tmp_path / f"{name}.npz", X=X[rows], y=Y[rows])
    cache = import_features([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "c")
    assert_holds(cache, X, Y)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_an_export_comes_back_as_it_was(tmp_path, cache, suffix):
    from dpfc.features.cache.export import export_cache

    export_cache(cache, tmp_path / f"x.{suffix}")
    back = import_features(tmp_path / f"x.{suffix}", tmp_path / "c")
    assert back.class_names == cache.class_names
    assert pa.concat_tables(back.tables()).equals(pa.concat_tables(cache.tables()))


# Parquet


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float32(), WIDTH), pa.large_list(pa.float64())],
    ids=str,
)
def test_parquet_lists_of_any_kind_are_read(assert_holds, tmp_path, kind):
    columns = {"features": pa.array(X.tolist(), kind), "id": IDS, "label": NAMES[Y].tolist()}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=77)
    cache = import_features(tmp_path / "x.parquet", tmp_path / "c", shard_rows=200)
    assert_holds(cache, X, Y, ids=IDS)
    assert cache.class_names is None


def test_parquet_columns_of_numbers_are_read_in_the_files_order(assert_holds, tmp_path):
    columns = {f"f{i}": X[:, i] for i in range(WIDTH)}
    pq.write_table(pa.table({"id": IDS, **columns, "label": Y}), tmp_path / "x.parquet")
    cache = import_features(tmp_path / "x.parquet", tmp_path / "c", features_column="f*")
    assert_holds(cache, X, Y, ids=IDS)


# Labels


@pytest.mark.parametrize("name", ["y.npy", "y.txt", "y.csv", "y.jsonl", "y.parquet"])
def test_labels_in_order_come_from_any_kind_of_file(assert_holds, tmp_path, name):
    path, strings = tmp_path / name, NAMES[Y]
    np.save(tmp_path / "x.npy", X)
    match path.suffix:
        case ".npy":
            np.save(path, strings)
        case ".txt":
            path.write_bytes("\ufeff".encode() + "".join(f"{s}\r\n" for s in strings).encode())
        case ".csv":
            # One column: its name does not matter.
            path.write_text("mood\n" + "".join(f"{s}\n" for s in strings))
        case ".jsonl":
            path.write_text("".join(f'{{"label": "{s}"}}\n' for s in strings))
        case ".parquet":
            pq.write_table(pa.table({"label": strings.tolist()}), path)
    cache = import_features(tmp_path / "x.npy", tmp_path / "c", labels=path)
    assert_holds(cache, X, Y)
    assert cache.class_names is None


def test_a_column_of_a_table_of_labels_is_named(assert_holds, tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "y.csv").write_text("text,mood\n" + "".join(f"a,{y}\n" for y in Y))
    cache = import_features(
        tmp_path / "x.npy", tmp_path / "c", labels=tmp_path / "y.csv", label_column="mood"
    )
    assert_holds(cache, X, Y)


def test_names_collected_from_labels_stay_out_of_the_manifest(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=NAMES[Y])
    import_features(tmp_path / "x.npz", tmp_path / "c")
    manifest = (tmp_path / "c" / "manifest.json").read_text()
    assert not any(name in manifest for name in NAMES)


def test_a_label_file_wins_over_labels_beside_the_features(assert_holds, tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=np.zeros(N, int), labels=np.zeros(N, int))
    np.save(tmp_path / "y.npy", Y)
    assert_holds(
        import_features(tmp_path / "x.npz", tmp_path / "c", labels=tmp_path / "y.npy"), X, Y
    )


# Stopped, changed, and read by others


def test_a_file_that_changes_while_it_is_read_gives_no_cache(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)

    def change(done, total):
        np.save(tmp_path / "y.npy", Y[::-1])

    with pytest.raises(DatasetError, match="changed while it was read"):
        import_features(
            tmp_path / "x.npy", tmp_path / "c", labels=tmp_path / "y.npy", progress=change
        )
    with pytest.raises(FeatureCacheError, match="incomplete"):
        FeatureCache.open(tmp_path / "c")


def test_another_import_into_the_folder_is_refused_unless_it_overwrites(assert_holds, tmp_path):
    np.save(tmp_path / "x.npy", X)
    import_features(tmp_path / "x.npy", tmp_path / "c")
    np.save(tmp_path / "x.npy", X[::-1])
    with pytest.raises(FeatureCacheError, match="something else"):
        import_features(tmp_path / "x.npy", tmp_path / "c")
    cache = import_features(tmp_path / "x.npy", tmp_path / "c", overwrite=True)
    assert_holds(cache, X[::-1], None)


def test_a_finished_import_is_not_written_again(assert_holds, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    import_features(tmp_path / "x.npy", tmp_path / "c")
    monkeypatch.delattr(FeatureCacheWriter, "write")
    assert_holds(import_features(tmp_path / "x.npy", tmp_path / "c"), X, None)


def test_a_classifier_fits_on_an_imported_cache(tmp_path):
    separated = X.copy()
    separated[np.arange(N), Y] += 5
    np.savez(tmp_path / "x.npz", X=separated, y=NAMES[Y])
    cache = import_features(tmp_path / "x.npz", tmp_path / "c", class_names=NAMES.tolist())
    with pytest.warns(PrivacyWarning, match="random_state"):
        model = DPFCClassifier(epsilon=8.0, random_state=0).fit(cache)
    assert model.classes_.tolist() == NAMES.tolist()
    assert model.score(separated, NAMES[Y]) > 0.9
