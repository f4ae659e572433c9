import hashlib
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dpfc.features import Backbone, MissingDependencyError, load_backbone
from dpfc.features.backbones import timm as timm_models

SIDE = 96


def images(n=5):
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    sizes = [(130 + 9 * i, 110 + 30 * (i % 3)) for i in range(n)]
    return [Image.fromarray(p).resize(s, 3) for p, s in zip(coarse, sizes, strict=True)]


def embed(backbone, pictures):
    return backbone.embed(np.stack([backbone.preparer(picture) for picture in pictures]))


# -- where timm does not import --------------------------------------------------------------------


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r'package timm: run pip install "dpfc\[timm\]"'
    ):
        load_backbone("timm:resnet18")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist"),
        OSError("libcudart.so.13: cannot open shared object file"),
    ],
)
def test_a_timm_that_does_not_import_says_what_to_install(monkeypatch, error):
    def fail(name):
        assert name == "timm"
        raise error

    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: name)
    monkeypatch.setattr(timm_models, "import_module", fail)
    with pytest.raises(MissingDependencyError) as caught:
        load_backbone("timm:resnet18")
    message = str(caught.value)
    assert message.startswith("timm:resnet18: timm is installed but cannot be imported (")
    assert str(error) in message
    assert "install the torchvision that belongs to your PyTorch" in message
    assert caught.value.__cause__ is error


# -- where it does ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm():
    """The library; skips where it, or the torchvision that it needs, does not import."""
    return pytest.importorskip(
        "timm", reason="timm or its torchvision does not import", exc_type=Exception
    )


@pytest.fixture
def save(timm, tmp_path):
    """Save the weights of a tiny random model; gives the file and the model."""

    def save(name="test_vit", **changes):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in changes}
        file = tmp_path / f"{name}.safetensors"
        save_file({**state, **{k: v for k, v in changes.items() if v is not None}}, file)
        return file, model

    return save


def library_pixels(timm, model, pictures, **options):
    """What timm's own evaluation transform makes of images."""
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**{**config, **options}, is_training=False)
    return torch.stack([transform(picture) for picture in pictures])


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("test_vit", "auto"),
        ("test_vit", "mean"),
        ("test_vit", "class_token"),
        ("test_resnet", "auto"),
        ("test_efficientnet", "mean"),
        ("test_convnext", "auto"),
    ],
)
def test_features_are_the_models_behind_timms_own_transform(timm, save, name, pooling):
    file, model = save(name)
    backbone = load_backbone(f"timm:{name}@{file}", pooling=pooling, device="cpu")
    assert isinstance(backbone, Backbone)
    assert (backbone.modality, backbone.n_features) == ("image", model.num_features)
    kind = (
        {"global_pool": "avg", "fc_norm": False} if (name, pooling) == ("test_vit", "mean") else {}
    )
    reference = timm.create_model(name, pretrained=False, num_classes=0, **kind).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    with torch.inference_mode():
        expected = reference(library_pixels(timm, model, images())).numpy()
    features = embed(backbone, images())
    assert features.std() > 0.01
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


def test_another_image_size_keeps_the_share_that_is_cropped(timm, save):
    file, _ = save("test_resnet")
    own = load_backbone(f"timm:test_resnet@{file}", device="cpu")
    backbone = load_backbone(f"timm:test_resnet@{file}", image_size=SIDE, device="cpu")
    assert backbone.preparer(images()[0]).shape == (SIDE, SIDE, 3)
    shares = [b.preparer.resize[0] / b.preparer.crop[0] for b in (own, backbone)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert embed(backbone, images()).shape == (5, own.n_features)


def test_the_manifest_says_what_was_done(save):
    file, _ = save()
    backbone = load_backbone(f"timm:test_vit@{file}", device="cpu")
    assert backbone.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert backbone.spec == f"timm:test_vit@{file}"
    said = json.loads(json.dumps(backbone.preprocessing))
    assert said["pooling"] == "token"
    assert said["compute_dtype"] == "float32"


def test_weights_that_do_not_fit_are_refused(save):
    first = "blocks.0.attn.qkv.weight"
    for changes, message in (
        ({first: None}, f"{re.escape(first)} among them; they would be random"),
        ({"more.weight": torch.zeros(2)}, r"hold more\.weight, which the model has not"),
        ({first: torch.zeros(2, 2)}, "the weights cannot be loaded"),
    ):
        file, _ = save(**changes)
        backbone = load_backbone(f"timm:test_vit@{file}", device="cpu")
        with pytest.raises(ValueError, match=message):
            embed(backbone, images(1))


def test_damaged_weights_are_refused(timm, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 50)
    backbone = load_backbone(f"timm:test_vit@{tmp_path / 'x.safetensors'}", device="cpu")
    with pytest.raises(ValueError, match="the weights cannot be loaded"):
        embed(backbone, images(1))


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin", "model.pt", "model"])
def test_pickled_weights_are_refused_unread(timm, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ValueError, match=r"weights must be a \.safetensors file; pickled weights"):
        load_backbone(f"timm:test_vit@{tmp_path / name}")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:test_vlt", r"has no model 'test_vlt'\. Did you mean 'timm:test_vit"),
        ("timm:hf-hub:nobody/x", "timm has no model 'hf-hub:nobody/x'"),
        ("timm:local-dir:/tmp", "timm has no model"),
        ("timm:test_vit@/no/where.safetensors", "there is no file /no/where.safetensors"),
        ("timm:test_vit.no_such_tag", "cannot build|neither in the Hugging Face cache"),
        ("timm:test_vit", "neither in the Hugging Face cache nor can it be downloaded"),
    ],
)
def test_an_unknown_model_or_file_is_refused(timm, spec, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(spec)


@pytest.mark.parametrize("pooling", ["pooler", "last_token"])
def test_a_pooling_that_timm_does_not_have_is_refused(timm, pooling):
    with pytest.raises(ValueError, match=f"pooling '{pooling}' is not possible; use auto"):
        load_backbone("timm:test_vit", pooling=pooling)


def test_a_class_token_that_the_model_has_not_is_refused(save):
    file, _ = save("test_resnet")
    with pytest.raises(ValueError, match="timm cannot build the model"):
        load_backbone(f"timm:test_resnet@{file}", pooling="class_token", device="cpu")
