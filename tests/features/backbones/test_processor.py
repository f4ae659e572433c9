"""Models of transformers that are not loaded, or not as they ask for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpfc.features import MissingDependencyError, load_backbone

pytest.importorskip("transformers")


pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def make(make_model):
    return make_model


def copy_without_weights(make, tmp_path, kind="dinov2"):
    folder, _ = make(kind)
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickled_weights_are_refused_unread(make, tmp_path, name):
    folder = copy_without_weights(make, tmp_path)
    torch.save(Trap(tmp_path / "sprung"), folder / name)
    with pytest.raises(ValueError, match=rf"only pickled weights \({name}\)"):
        load_backbone(f"hf:{folder}")
    assert not (tmp_path / "sprung").exists()


def test_a_folder_without_weights_is_refused(make, tmp_path):
    folder = copy_without_weights(make, tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_backbone(f"hf:{folder}")


@pytest.mark.parametrize(
    "weights", [{"a": "../elsewhere/x.safetensors"}, {"a": "/x.safetensors"}, {"a": 3}, {}, ["x"]]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(make, tmp_path, weights):
    folder = copy_without_weights(make, tmp_path)
    index = {"weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names no files of that folder"):
        load_backbone(f"hf:{folder}")


def test_damaged_weights_are_refused(make, tmp_path):
    folder = copy_without_weights(make, tmp_path)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    with pytest.raises(ValueError, match=r"the weights in .* cannot be loaded"):
        backbone.embed(np.zeros((1, 28, 28, 3), np.uint8))


def test_code_that_comes_with_a_model_is_never_run(make, tmp_path):
    folder = copy_without_weights(make, tmp_path)
    trap = tmp_path / "sprung"
    (folder / "modeling_evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    config = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.C", "AutoModel": "modeling_evil.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"'evil' needs code of its own \(auto_map\)"):
        load_backbone(f"hf:{folder}")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attn_implementation", "kernels-community/flash-attn", "which can fetch code from a hub"),
        ("_attn_implementation", "flash_attention_2", "which can fetch code from a hub"),
        ("experts_implementation", "evil/kernel", "which can fetch code from a hub"),
        ("transformers_weights", "other.safetensors", "weights that the checksum would not cover"),
        ("quantization_config", {"quant_method": "fp8"}, "which is not supported: use"),
    ],
)
@pytest.mark.parametrize("part", [None, "vision_config"])
def test_settings_that_lead_to_other_code_or_weights_are_refused(
    make, tmp_path, part, key, value, message
):
    folder = copy_without_weights(make, tmp_path, "clip")
    (folder / "model.safetensors").write_bytes(b"")
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"config.json asks for {key}, {message}"):
        load_backbone(f"hf:{folder}")


def test_an_adapter_is_refused(make, tmp_path):
    folder = copy_without_weights(make, tmp_path)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/other"}')
    with pytest.raises(ValueError, match="holds an adapter: merge it into its model"):
        load_backbone(f"hf:{folder}")


CONFIG = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json cannot be read as JSON"),
        ("config.json", "[]", r"config\.json must hold a JSON object"),
        ("config.json", '{"model_type": "t5"}', "no image or text backbone can be made of .*'t5'"),
        ("config.json", '{"model_type": ["vit"]}', "is unknown to the installed transformers"),
        ("config.json", '{"model_type": "vit", "image_size": "big"}', "is not valid"),
        ("config.json", '{"model_type": "no"}', "'no' is unknown to the installed transformers"),
        *[
            ("config.json", f'{{"model_type": "dinov2", "patch_size": {value}}}', "patch_size")
            for value in ("0", "-1", "[]")
        ],
        (CONFIG, '{"size": {"longest_edge": 3}}', "size in preprocessor_config.json must be"),
        (CONFIG, '{"size": {"height": 0, "width": 28}}', "size in preprocessor_config.json must"),
        (CONFIG, '{"do_pan_and_scan": true}', "asks for do_pan_and_scan, which is unknown"),
        (CONFIG, '{"do_resize": false}', "asks for do_resize=False"),
        (CONFIG, '{"image_std": [0, 1, 1]}', "image_std in preprocessor_config.json must be > 0"),
        (CONFIG, '{"image_mean": [1, 1]}', "image_mean in preprocessor_config.json must have"),
        (CONFIG, '{"resample": 9}', "resample 9 in preprocessor_config.json is unknown"),
        (CONFIG, '{"do_center_crop": false}', "keeps their proportions without a crop"),
        (CONFIG, '{"crop_size": {"height": 30, "width": 30}}', "multiple of 14"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(make, tmp_path, file, content, message):
    folder = copy_without_weights(make, tmp_path)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_backbone(f"hf:{folder}")


def test_a_model_without_its_preparation_is_refused(make, tmp_path):
    folder = copy_without_weights(make, tmp_path)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json"):
        load_backbone(f"hf:{folder}")


def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused(make):
    folder, _ = make("dinov2")
    with pytest.raises(ValueError, match="use an image_size that is a multiple of 14"):
        load_backbone(f"hf:{folder}", image_size=60)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:./nowhere", "there is no folder ./nowhere"),
        ("hf:/no/where", "there is no folder /no/where"),
        ("hf:a/b/c", "there is no folder a/b/c"),
        ("hf:../" + "x" * 5000, "cannot be looked up as a folder|there is no folder"),
        ("hf:~no-such-user-here/model", "cannot be looked up as a folder"),
        ("hf:name with spaces", "there is no folder name with spaces"),
        ("hf:nobody/nothing", "is neither in the Hugging Face cache nor can it be downloaded"),
        ("hf:nobody/nothing#video", "after '#' must come image or text, got 'video'"),
    ],
)
def test_a_model_that_is_nowhere_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(spec)


def test_a_file_or_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a file, not the folder of a model"):
        load_backbone(f"hf:{tmp_path / 'model.safetensors'}")
    with pytest.raises(ValueError, match=r"there is no config\.json"):
        load_backbone(f"hf:{tmp_path}")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpfc\[hf\]"'):
        load_backbone("hf:google/vit")


@pytest.mark.parametrize("value", [None, "x", [], {}, [1], True, float("nan"), 10**400, [None] * 3])
@pytest.mark.parametrize("key", ["resample", "rescale_factor", "image_mean", "image_std", "size"])
def test_a_processor_with_a_value_of_another_type_is_refused_by_the_key(key, value):
    from dpfc.features.backbones.processor import read_processor

    with pytest.raises(ValueError, match=key):
        read_processor({"size": {"height": 8, "width": 8}} | {key: value}, "hf:x")
