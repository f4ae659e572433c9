"""Tiny models of transformers with random weights, saved as their publishers save them."""

import json

import numpy as np
import torch
import transformers
from PIL import Image

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 40,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *["the", "a", "room", "was", "bed", "quiet", "noisy", "clean", "dirty", "."],
]


def photographs(n=6, seed=0):
    """Smooth images of several sizes."""
    generator = np.random.default_rng(seed)
    sizes = [(50 + 7 * i, 40 + 3 * (i % 4)) for i in range(n)]
    coarse = generator.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        for pixels, size in zip(coarse, sizes, strict=True)
    ]


def save_processor(folder, kind, **settings):
    """Write the file that says how images are prepared."""
    content = {"image_processor_type": f"{kind}ImageProcessor", **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


SQUARE = {"size": {"height": 28, "width": 28}, "resample": 2}
CROP = {
    "size": {"shortest_edge": 32},
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
    "resample": 3,
}


def save_tokenizer(folder, **settings):
    """Write a tokenizer of a few words, with [CLS] and [SEP] around each text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **{"model_max_length": 24, **settings},
    )
    fast.save_pretrained(folder)


def save(model, folder):
    """Save a model, its weights moved away from their starting values."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.eval().save_pretrained(folder)
    return model


def vit(folder, cls="ViTModel"):
    save_processor(folder, "ViT", **SQUARE)
    return save(getattr(transformers, cls)(transformers.ViTConfig(**VISION)), folder)


def dinov2(folder):
    save_processor(folder, "Bit", **CROP)
    return save(transformers.Dinov2Model(transformers.Dinov2Config(**VISION)), folder)


def dinov2_with_registers(folder):
    save_processor(folder, "Bit", **CROP)
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
    return save(transformers.Dinov2WithRegistersModel(config), folder)


def dinov3(folder):
    save_processor(folder, "DINOv3ViT", **SQUARE)
    config = transformers.DINOv3ViTConfig(**VISION, num_register_tokens=3)
    return save(transformers.DINOv3ViTModel(config), folder)


def clip(folder):
    save_processor(folder, "CLIP", **CROP)
    save_tokenizer(folder)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    return save(transformers.CLIPModel(config), folder)


def siglip(folder):
    save_processor(folder, "Siglip", **SQUARE)
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    return save(transformers.SiglipModel(config), folder)


def siglip2(folder):
    save_processor(folder, "Siglip2", patch_size=14, max_num_patches=4, resample=2)
    vision = {k: v for k, v in VISION.items() if k != "image_size"}
    config = transformers.Siglip2Config(
        text_config=TEXT, vision_config={**vision, "num_patches": 9}
    )
    return save(transformers.Siglip2Model(config), folder)


def gemma3(folder):
    save_processor(folder, "Gemma3", **SQUARE)
    save_tokenizer(folder)
    config = transformers.Gemma3Config(
        text_config={**TEXT, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0},
        vision_config={**VISION, "vision_use_head": False},
        mm_tokens_per_image=4,
    )
    return save(transformers.Gemma3ForConditionalGeneration(config), folder)


def gemma3_text(folder):
    save_tokenizer(folder)
    config = transformers.Gemma3TextConfig(
        **TEXT, num_key_value_heads=1, head_dim=16, pad_token_id=0
    )
    return save(transformers.Gemma3ForCausalLM(config), folder)


def bert(folder, cls="BertModel"):
    save_tokenizer(folder)
    config = transformers.BertConfig(**TEXT, max_position_embeddings=64)
    return save(getattr(transformers, cls)(config), folder)
