import hashlib
import json
import pickle

import numpy as np
import pytest
import torch

from dpfc.features import Backbone, load_backbone

transformers = pytest.importorskip("transformers")


pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def make(make_model):
    return make_model


@pytest.fixture(scope="module")
def images(model_folders):
    return model_folders.photographs()


def library_pixels(folder, images):
    """What the library's own processor makes of images."""
    kind = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    processor = getattr(transformers, f"{kind}Pil").from_pretrained(folder)
    return processor(images, return_tensors="pt")["pixel_values"]


def by_hand(model, pixels):
    with torch.inference_mode():
        return model(pixel_values=pixels)


def embed(backbone, images):
    return backbone.embed(np.stack([backbone.preparer(image) for image in images]))


def close(features, expected, tolerance=2e-5):
    assert features.dtype == np.float32
    assert features.shape == tuple(expected.shape)
    assert features.std() > 0.05
    assert np.abs(features - expected.numpy()).max() < tolerance


def tower(model):
    for name in ("vision_model", "model"):
        model = getattr(model, name, model)
    return getattr(model, "vision_tower", model)


def first(output):
    return output.last_hidden_state[:, 0]


def pooler(output):
    return output.pooler_output


def mean_after(n):
    return lambda output: output.last_hidden_state[:, n:].mean(1)


CASES = [
    ("vit", "auto", first),
    ("vit", "mean", mean_after(1)),
    ("vit", "pooler", pooler),
    ("dinov2", "auto", first),
    ("dinov2", "pooler", pooler),
    ("dinov2", "mean", mean_after(1)),
    ("dinov2_with_registers", "class_token", first),
    ("dinov2_with_registers", "mean", mean_after(4)),
    ("clip", "auto", pooler),
    ("clip", "class_token", first),
    ("siglip", "auto", pooler),
    ("siglip", "mean", mean_after(0)),
    ("gemma3", "auto", mean_after(0)),
]


@pytest.mark.parametrize(("kind", "pooling", "expected"), CASES)
def test_features_are_those_of_the_model_behind_the_librarys_processor(
    make, images, kind, pooling, expected
):
    folder, model = make(kind)
    backbone = load_backbone(f"hf:{folder}", pooling=pooling, device="cpu")
    assert isinstance(backbone, Backbone)
    assert (backbone.modality, backbone.n_features, backbone.device) == ("image", 32, "cpu")
    close(embed(backbone, images), expected(by_hand(tower(model), library_pixels(folder, images))))


@pytest.mark.parametrize(("pooling", "expected"), [("auto", first), ("mean", mean_after(4))])
def test_dinov3_is_prepared_as_its_file_says(make, images, pooling, expected):
    """Its own processor needs torchvision; that of ViT does the same in 8 bits."""
    folder, model = make("dinov3")
    content = json.loads((folder / "preprocessor_config.json").read_text())
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = transformers.ViTImageProcessorPil(**{**content, **imagenet})
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    backbone = load_backbone(f"hf:{folder}", pooling=pooling, device="cpu")
    close(embed(backbone, images), expected(by_hand(model, pixels)))


@pytest.mark.parametrize(("pooling", "expected"), [("auto", pooler), ("mean", mean_after(0))])
def test_naflex_models_see_squares(make, images, pooling, expected):
    folder, model = make("siglip2")
    squares = [image.resize((28, 28), 2) for image in images]
    processor = transformers.Siglip2ImageProcessorPil.from_pretrained(folder)
    inputs = processor(squares, return_tensors="pt")
    assert inputs["spatial_shapes"].tolist() == [[2, 2]] * len(images)
    with torch.inference_mode():
        output = model.vision_model(**inputs)
    backbone = load_backbone(f"hf:{folder}", pooling=pooling, device="cpu")
    close(embed(backbone, images), expected(output))


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "siglip"])
def test_another_image_size_keeps_the_share_that_is_cropped(make, images, kind):
    folder, model = make(kind)
    backbone = load_backbone(f"hf:{folder}", image_size=56, pooling="mean", device="cpu")
    assert backbone.preparer(images[0]).shape == (56, 56, 3)
    assert backbone.decode_size == (64 if kind in ("dinov2", "clip") else 56)
    content = json.loads((folder / "preprocessor_config.json").read_text())
    double = {k: {s: 2 * v for s, v in content[k].items()} for k in content if "size" in k}
    kind_name = f"{content['image_processor_type']}Pil"
    processor = getattr(transformers, kind_name)(**{**content, **double})
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    asked = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        tokens = tower(model)(pixel_values=pixels, **asked).last_hidden_state
    assert tokens.shape[1] in (16, 17)
    close(embed(backbone, images), tokens[:, tokens.shape[1] - 16 :].mean(1))


def test_a_row_depends_on_itself_alone(make, images):
    folder, _ = make("dinov2")
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    many = images * 4
    features = embed(backbone, many)
    assert np.array_equal(features[:6], features[6:12])
    order = np.random.default_rng(0).permutation(len(many))
    assert np.array_equal(embed(backbone, [many[i] for i in order]), features[order])
    assert np.array_equal(embed(backbone, images[2:3]), features[2:3])


def test_the_manifest_says_what_was_done(make):
    folder, _ = make("dinov2")
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    said = json.loads(json.dumps(backbone.preprocessing))
    assert said["resize"] == "shorter side to 32, centre 28 x 28, Pillow bicubic with antialiasing"
    assert said["pooling"] == "class_token"
    assert said["compute_dtype"] == "float32"
    weights = (folder / "model.safetensors").read_bytes()
    assert backbone.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert backbone.spec == f"hf:{folder}"


def test_the_preparer_is_small_and_can_be_pickled(make, images):
    folder, _ = make("dinov2")
    preparer = load_backbone(f"hf:{folder}", device="cpu").preparer
    state = pickle.dumps(preparer)
    assert len(state) < 1000
    assert np.array_equal(pickle.loads(state)(images[0]), preparer(images[0]))


def test_several_files_of_weights_are_hashed_together(make, images, tmp_path):
    folder, model = make("dinov2")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    config = (folder / "preprocessor_config.json").read_text()
    (tmp_path / "preprocessor_config.json").write_text(config)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    backbone = load_backbone(f"hf:{tmp_path}", device="cpu")
    lines = [f"{s.name} {hashlib.sha256(s.read_bytes()).hexdigest()}\n" for s in shards]
    assert backbone.weights_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    whole = load_backbone(f"hf:{folder}", device="cpu")
    assert np.array_equal(embed(backbone, images), embed(whole, images))
    shards[0].unlink()
    with pytest.raises(ValueError, match=f"{shards[0].name} is missing"):
        load_backbone(f"hf:{tmp_path}", device="cpu")


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("siglip", "class_token"), ("gemma3", "pooler"), ("vit", "last_token")],
)
def test_a_pooling_that_the_model_cannot_do_is_refused(make, kind, pooling):
    folder, _ = make(kind)
    with pytest.raises(ValueError, match=f"pooling '{pooling}' is not possible for {kind}; use "):
        load_backbone(f"hf:{folder}", pooling=pooling)


def test_weights_that_are_missing_are_refused_where_they_would_be_random(make, images):
    folder, model = make("vit", "ViTForImageClassification")
    close(
        embed(load_backbone(f"hf:{folder}", device="cpu"), images),
        first(by_hand(model.vit, library_pixels(folder, images))),
    )
    with pytest.raises(ValueError, match=r"pooler\.dense\.bias among them; they would be random"):
        embed(load_backbone(f"hf:{folder}", pooling="pooler", device="cpu"), images)


def test_the_checksum_is_of_the_weights_that_are_loaded(make, images, tmp_path):
    """One whole file beside several parts: transformers takes the whole one."""
    folder, model = make("dinov2")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    for part in tmp_path.glob("*.safetensors"):
        part.write_bytes(b"never read")
    for name in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    backbone = load_backbone(f"hf:{tmp_path}", device="cpu")
    whole = load_backbone(f"hf:{folder}", device="cpu")
    assert backbone.weights_sha256 == whole.weights_sha256
    assert np.array_equal(embed(backbone, images), embed(whole, images))


def test_a_folder_never_touches_the_network(make, images, monkeypatch):
    """Not by the grace of a setting: every connection fails in these tests."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folder, _ = make("clip")
    assert embed(load_backbone(f"hf:{folder}", device="cpu"), images).shape == (6, 32)
    folder, _ = make("bert")
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    assert backbone.embed([backbone.preparer("quiet")]).shape == (1, 32)


def test_a_model_in_the_hubs_cache_is_found_offline(make, images, monkeypatch, tmp_path):
    folder, _ = make("dinov2")
    revision = "0" * 40
    repository = tmp_path / "models--nobody--tiny"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = load_backbone("hf:nobody/tiny", device="cpu")
    whole = load_backbone(f"hf:{folder}", device="cpu")
    assert np.array_equal(embed(backbone, images), embed(whole, images))


@pytest.mark.parametrize("bad", [np.zeros((1, 3, 28, 28), np.uint8), np.zeros((1, 28, 28, 3)), []])
def test_a_batch_of_another_shape_or_type_is_refused(make, bad):
    folder, _ = make("dinov2")
    with pytest.raises(ValueError, match="batch must be uint8 of shape"):
        load_backbone(f"hf:{folder}", device="cpu").embed(bad)
