"""JSONL as embedding services return it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpfc.features import DatasetError, FeatureCache, FeatureCacheError, import_features

N, WIDTH = 700, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = np.arange(N) % 3
IDS = [f"k{i}" for i in range(N)]
NAMES = np.array(["ant", "bee", "cow"])


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_table(path, ids, labels):
    path.write_text("id,label\n" + "".join(f"{a},{b}\n" for a, b in zip(ids, labels, strict=True)))
    return path


def gemini_batch(vectors, ids):
    return [
        {"key": i, "response": {"embedding": {"values": v}}}
        for v, i in zip(vectors, ids, strict=True)
    ]


def gemini_requests(vectors, ids):
    return [{"embedding": {"values": v}} for v in vectors]


def gemini_many(vectors, ids):
    return [{"embeddings": [{"values": v} for v in vectors[i : i + 100]]} for i in range(0, N, 100)]


def vertex_gemini(vectors, ids):
    return [
        {"key": i, "status": "", "request": {}, "response": {"embedding": {"values": v}}}
        for v, i in zip(vectors, ids, strict=True)
    ]


def vertex(vectors, ids):
    return [
        {
            "instance": {"content": "a text"},
            "predictions": [
                {"embeddings": {"statistics": {"token_count": 8, "truncated": False}, "values": v}}
            ],
            "status": "",
        }
        for v in vectors
    ]


def openai_batch(vectors, ids):
    return [
        {
            "id": f"batch_req_{i}",
            "custom_id": i,
            "response": {
                "status_code": 200,
                "request_id": "r",
                "body": {
                    "object": "list",
                    "data": [{"object": "embedding", "index": 0, "embedding": v}],
                    "model": "text-embedding-3-small",
                    "usage": {"prompt_tokens": 8, "total_tokens": 8},
                },
            },
            "error": None,
        }
        for v, i in zip(vectors, ids, strict=True)
    ]


def openai_answers(vectors, ids):
    chunks = [list(enumerate(vectors[i : i + 100])) for i in range(0, N, 100)]
    # Backwards: the index says where a vector belongs.
    return [{"data": [{"index": i, "embedding": v} for i, v in chunk[::-1]]} for chunk in chunks]


def bedrock(vectors, ids):
    return [
        {"recordId": i, "modelInput": {"inputText": "t"}, "modelOutput": {"embedding": v}}
        for v, i in zip(vectors, ids, strict=True)
    ]


def cohere(vectors, ids):
    return [
        {"id": "5807", "embeddings": {"float": vectors[i : i + 100]}, "texts": ["t"]}
        for i in range(0, N, 100)
    ]


def plain(vectors, ids):
    return [{"id": i, "embedding": v} for v, i in zip(vectors, ids, strict=True)]


@pytest.mark.parametrize(
    ("shape", "with_ids"),
    [
        (gemini_batch, True),
        (gemini_requests, False),
        (gemini_many, False),
        (vertex_gemini, True),
        (vertex, False),
        (openai_batch, True),
        (openai_answers, False),
        (bedrock, True),
        (plain, True),
    ],
)
def test_records_of_services_are_read(assert_holds, tmp_path, shape, with_ids):
    path = write_jsonl(tmp_path / "e.jsonl", shape(X.tolist(), IDS))
    if with_ids:
        mixed = RNG.permutation(N)
        labels = write_table(tmp_path / "y.csv", [IDS[i] for i in mixed], Y[mixed])
    else:
        labels = tmp_path / "y.txt"
        labels.write_text("".join(f"{y}\n" for y in Y))
    cache = import_features(path, tmp_path / "c", labels=labels, dtype="float32", shard_rows=300)
    assert_holds(cache, X, Y, ids=IDS if with_ids else None)


def test_a_record_of_many_vectors_names_them_by_its_id(assert_holds, tmp_path):
    records = [record | {"id": f"b{i}"} for i, record in enumerate(cohere(X.tolist(), IDS))]
    cache = import_features(write_jsonl(tmp_path / "e.jsonl", records), tmp_path / "c")
    assert_holds(cache, X, ids=[f"b{i // 100}/{i % 100}" for i in range(N)])


def test_fields_inside_others_are_named_with_dots(assert_holds, tmp_path):
    records = [
        {"row": {"n": i, "class": str(NAMES[y])}, "answer": [{"dense": v}]}
        for i, (v, y) in enumerate(zip(X.tolist(), Y, strict=True))
    ]
    cache = import_features(
        write_jsonl(tmp_path / "e.jsonl", records),
        tmp_path / "c",
        features_column="answer.0.dense",
        label_column="row.class",
        id_column="row.n",
        class_names=NAMES.tolist(),
    )
    assert_holds(cache, X, Y, ids=[str(i) for i in range(N)])


FAILED = {
    "gemini": {"key": "bad", "error": {"code": 13, "message": "SECRET"}},
    "inner": {"key": "bad", "response": {"error": {"message": "SECRET"}}},
    "openai": {
        "key": "bad",
        "response": {"status_code": 429, "body": {"message": "SECRET"}},
        "error": None,
    },
    "vertex": {"key": "bad", "status": "Bad request: SECRET", "response": {}},
}


@pytest.mark.parametrize("failed", FAILED.values(), ids=FAILED)
@pytest.mark.parametrize("place", [0, 300, N])
def test_a_failed_request_stops_or_is_skipped_and_listed(assert_holds, tmp_path, failed, place):
    records = gemini_batch(X.tolist(), IDS)
    records.insert(place, failed)
    path = write_jsonl(tmp_path / "e.jsonl", records)
    labels = write_table(tmp_path / "y.csv", IDS, Y)
    with pytest.raises(DatasetError, match=rf"line {place + 1} of \S+ tells of a req") as error:
        import_features(path, tmp_path / "c", labels=labels)
    assert "SECRET" not in str(error.value)
    assert not (tmp_path / "c").exists()
    cache = import_features(path, tmp_path / "c", labels=labels, on_error="skip", shard_rows=100)
    assert_holds(cache, X, Y, ids=IDS)
    assert [row["id"] for row in cache.manifest["skipped"]] == ["bad"]
    assert cache.manifest["skipped"][0]["shard"] == place // 100
    assert "SECRET" not in json.dumps(cache.manifest)


def test_labels_in_records_skip_failed_ones(assert_holds, tmp_path):
    records = [{"embedding": v, "label": int(y)} for v, y in zip(X.tolist(), Y, strict=True)]
    records.insert(4, {"error": "late"})
    path = write_jsonl(tmp_path / "e.jsonl", records)
    assert_holds(import_features(path, tmp_path / "c", on_error="skip"), X, Y)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([*IDS[:-1], "SECRET"], rf"line {N} of \S+ has an id without a label"),
        ([*IDS, "SECRET"], rf"row {N} of \S+ has an id that no row"),
        ([*IDS[:-1], IDS[3]], rf"row-000{N - 1} of \S+ has an id in column 'id' that stands"),
        ([*IDS[:5], "", *IDS[6:]], r"row-000005 of \S+ has no id"),
    ],
)
def test_ids_that_do_not_match_one_to_one_are_refused(tmp_path, ids, message):
    path = write_jsonl(tmp_path / "e.jsonl", gemini_batch(X.tolist(), IDS))
    labels = write_table(tmp_path / "y.csv", ids, np.zeros(len(ids), int))
    with pytest.raises(DatasetError, match=message) as error:
        import_features(path, tmp_path / "c", labels=labels)
    assert "SECRET" not in str(error.value)


def test_labels_without_ids_are_refused_for_records_that_have_them(tmp_path):
    path = write_jsonl(tmp_path / "e.jsonl", gemini_batch(X.tolist(), IDS))
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(DatasetError, match="services may change the order"):
        import_features(path, tmp_path / "c", labels=tmp_path / "y.npy")


@settings(max_examples=20, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float16", "float32"]))
def test_any_finite_array_comes_back_rounded(assert_holds, tmp_path_factory, data, dtype):
    folder = tmp_path_factory.mktemp("h")
    limit = float(np.finfo(dtype).max)
    kind = data.draw(st.sampled_from(["<f2", "<f4", "<f8"]))
    limit = min(limit, float(np.finfo(kind).max))
    width = 8 * np.dtype(kind).itemsize
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    values = data.draw(
        hnp.arrays(kind, shape, elements=st.floats(-limit, limit, allow_nan=False, width=width))
    )
    labels = data.draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, 9)))
    np.savez(folder / "x.npz", X=values, y=labels)
    lists = pa.array(values.tolist(), pa.list_(pa.float64()))
    pq.write_table(pa.table({"embedding": lists, "label": labels}), folder / "x.parquet")
    records = [
        {"embedding": row, "label": label}
        for row, label in zip(values.tolist(), labels.tolist(), strict=True)
    ]
    write_jsonl(folder / "x.jsonl", records)
    for name in ("x.npz", "x.parquet", "x.jsonl"):
        rows = data.draw(st.integers(2, 6))
        cache = import_features(folder / name, folder / f"c-{name}", dtype=dtype, shard_rows=rows)
        assert_holds(cache, values, labels)


class Stopped(BaseException):
    pass


def test_a_stopped_import_goes_on_and_ends_the_same(tmp_path, folder_hashes):
    records = gemini_batch(X.tolist(), IDS)
    records[150:150] = [{"key": "bad", "error": {"code": 1}}]
    path = write_jsonl(tmp_path / "e.jsonl", records)
    labels = write_table(tmp_path / "y.csv", IDS, Y)
    options = {"labels": labels, "on_error": "skip", "shard_rows": 60}
    import_features(path, tmp_path / "whole", **options)

    def stop_after(limit):
        def stop(done, total):
            if done > limit:
                raise Stopped

        return stop

    for limit in (0, 200, 400, 600):
        with pytest.raises(Stopped):
            import_features(path, tmp_path / "c", progress=stop_after(limit), **options)
        with pytest.raises(FeatureCacheError, match="incomplete"):
            FeatureCache.open(tmp_path / "c")
    import_features(path, tmp_path / "c", **options)
    assert folder_hashes(tmp_path / "c") == folder_hashes(tmp_path / "whole")
