import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from dpfc.features import Backbone, load_backbone

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("offline")

TEXTS = [
    "the room was clean",
    "a noisy bed.",
    "",
    "quiet",
    "the bed was dirty and the unknown words were quiet",
    " ".join(["clean"] * 60),
]


def embed(backbone, texts):
    return backbone.embed([backbone.preparer(text) for text in texts])


def by_hand(folder, model, texts, pool, limit=24):
    """Each text alone, through the library's tokenizer and the model, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)
        ids = inputs["input_ids"]
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        rows.append(pool(output)[0].numpy())
    return np.stack(rows)


def mean(output):
    return output.last_hidden_state.mean(1)


def first(output):
    return output.last_hidden_state[:, 0]


def last(output):
    return output.last_hidden_state[:, -1]


def pooler(output):
    return output.pooler_output


def language_model(model):
    model = getattr(model, "model", model)
    return getattr(model, "language_model", model)


@pytest.mark.parametrize(
    ("kind", "tower", "pooling", "pool"),
    [
        ("bert", "", "auto", mean),
        ("bert", "#text", "class_token", first),
        ("bert", "", "pooler", pooler),
        ("gemma3_text", "", "auto", mean),
        ("gemma3_text", "", "last_token", last),
        ("gemma3", "#text", "auto", mean),
        ("gemma3", "#text", "last_token", last),
    ],
)
def test_features_are_those_of_the_model_without_padding(make_model, kind, tower, pooling, pool):
    folder, model = make_model(kind)
    backbone = load_backbone(f"hf:{folder}{tower}", pooling=pooling, device="cpu")
    assert isinstance(backbone, Backbone)
    assert (backbone.modality, backbone.n_features, backbone.decode_size) == ("text", 32, None)
    features = embed(backbone, TEXTS)
    assert features.dtype == np.float32
    assert features.std() > 0.05
    expected = by_hand(folder, language_model(model), TEXTS, pool)
    assert np.abs(features - expected).max() < 2e-5


def test_a_row_depends_on_itself_alone(make_model):
    """Exactly: else one person's text would move the features of another."""
    folder, _ = make_model("bert")
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    texts = TEXTS * 5
    features = embed(backbone, texts)
    assert np.array_equal(features[:6], features[6:12])
    order = np.random.default_rng(0).permutation(len(texts))
    assert np.array_equal(embed(backbone, [texts[i] for i in order]), features[order])
    for i in range(6):
        assert np.array_equal(embed(backbone, texts[i : i + 1]), features[i : i + 1])


def test_texts_are_cut_at_the_models_length(make_model):
    folder, _ = make_model("bert")
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    assert backbone.preprocessing["max_tokens"] == 24
    ids = backbone.preparer("clean " * 1000)
    assert (ids.shape, ids.dtype, ids[0], ids[-1]) == ((24,), np.int32, 2, 3)
    assert np.array_equal(
        embed(backbone, ["clean " * 22]), embed(backbone, ["clean " * 22 + "dirty"])
    )


def test_no_model_is_given_more_than_512_tokens(make_model, model_folders, tmp_path):
    model_folders.gemma3_text(tmp_path)
    model_folders.save_tokenizer(tmp_path, model_max_length=10**6)
    backbone = load_backbone(f"hf:{tmp_path}", device="cpu")
    assert len(backbone.preparer("clean " * 1000)) == 512


def test_the_preparer_can_be_pickled_and_called_by_threads(make_model):
    folder, _ = make_model("bert")
    preparer = load_backbone(f"hf:{folder}").preparer
    expected = [preparer(text) for text in TEXTS]
    state = pickle.dumps(preparer)
    assert len(state) < 1000
    copy = pickle.loads(state)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(copy, TEXTS * 20))
    assert all(np.array_equal(a, b) for a, b in zip(results, expected * 20, strict=True))


@pytest.mark.parametrize(
    ("content", "pool"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, first),
        ({"pooling_mode": "cls"}, first),
        ({"pooling_mode_mean_tokens": True}, mean),
    ],
)
def test_the_pooling_of_sentence_transformers_is_the_default(
    model_folders, tmp_path, content, pool
):
    model = model_folders.bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    features = embed(load_backbone(f"hf:{tmp_path}", device="cpu"), TEXTS)
    assert np.abs(features - by_hand(tmp_path, model, TEXTS, pool)).max() < 2e-5


def test_an_unknown_pooling_of_sentence_transformers_is_refused(model_folders, tmp_path):
    model_folders.bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match=r"the pooling in .* is unknown: name one"):
        load_backbone(f"hf:{tmp_path}")
    assert load_backbone(f"hf:{tmp_path}", pooling="mean").n_features == 32


def test_a_masked_language_model_is_loaded_without_its_head(make_model):
    folder, model = make_model("bert", "BertForMaskedLM")
    features = embed(load_backbone(f"hf:{folder}", device="cpu"), TEXTS)
    assert np.abs(features - by_hand(folder, model.bert, TEXTS, mean)).max() < 2e-5
    backbone = load_backbone(f"hf:{folder}", pooling="pooler", device="cpu")
    with pytest.raises(ValueError, match=r"pooler\.dense\.bias among them; they would be random"):
        embed(backbone, TEXTS)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bert", {"pooling": "last_token"}, "use mean or class_token or pooler"),
        ("gemma3_text", {"pooling": "class_token"}, "use mean or last_token"),
        ("bert", {"image_size": 224}, "takes texts: leave image_size out"),
    ],
)
def test_what_a_text_model_cannot_do_is_refused(make_model, kind, options, message):
    folder, _ = make_model(kind)
    with pytest.raises(ValueError, match=message):
        load_backbone(f"hf:{folder}", **options)


def test_a_text_model_has_no_image_tower(make_model):
    folder, _ = make_model("bert")
    with pytest.raises(ValueError, match="no image backbone can be made of model type 'bert'"):
        load_backbone(f"hf:{folder}#image")


def test_pickled_weights_are_refused(make_model, tmp_path):
    folder, _ = make_model("bert")
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"only pickled weights \(pytorch_model\.bin\)"):
        load_backbone(f"hf:{tmp_path}")


def test_a_tokenizer_that_is_missing_or_damaged_is_refused(make_model, tmp_path):
    folder, _ = make_model("bert")
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        load_backbone(f"hf:{tmp_path}").preparer("quiet")


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [np.zeros(3, np.int64)],
        [np.zeros(0, np.int32)],
        [np.zeros(25, np.int32)],
        [np.zeros((2, 2), np.int32)],
        ["text"],
    ],
)
def test_a_batch_of_something_else_is_refused(make_model, bad):
    folder, _ = make_model("bert")
    with pytest.raises(ValueError, match="each an int32 array of 1 to 24 token ids"):
        load_backbone(f"hf:{folder}", device="cpu").embed(bad)


@pytest.mark.parametrize("bad", [None, 3, b"bytes"])
def test_what_is_no_text_is_refused(make_model, bad):
    folder, _ = make_model("bert")
    with pytest.raises(ValueError, match="a text backbone takes strings"):
        load_backbone(f"hf:{folder}").preparer(bad)
