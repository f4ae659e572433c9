"""A small vision transformer, of layers whose per-sample gradients Opacus can take."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["VisionTransformer"]

_WIDTH = 192
_DEPTH = 12
_HEADS = 3
_SMALL_IMAGE = 64


def _patch_size(height: int, width: int) -> int:
    """Give the smallest patch that leaves few patches a side: 4 for 32 pixels, 16 for 224.

    Raises
    ------
    ValueError
        If no patch fits the image more than once.
    """
    most = 8 if max(height, width) <= _SMALL_IMAGE else 14
    for patch in range(2, min(height, width)):
        if height % patch == 0 and width % patch == 0 and max(height, width) <= most * patch:
            return patch
    raise ValueError(
        f"'vit-tiny' cannot cut an image of {height} x {width} pixels into square patches; "
        "crop or pad it to sides that are multiples of 4."
    )


class _Patches(nn.Module):
    """Cut images into patches, and map each linearly.

    This is a convolution with stride = kernel size. Written as a linear layer it has Opacus'
    rule for the norms of per-sample gradients (ghost clipping), which convolutions lack.
    """

    def __init__(self, channels: int, patch: int):
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(channels * patch * patch, _WIDTH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(images, self.patch, stride=self.patch)
        tokens: torch.Tensor = self.linear(patches.transpose(1, 2))  # ONNX has no mT
        return tokens


class _ClassTokenAndPositions(nn.Module):
    """Put a learned token before the others, and add a learned vector for every place.

    Opacus takes gradients of modules, not of loose parameters: these have one of their own, for
    which functorch finds the per-sample gradient.
    """

    def __init__(self, n_patches: int):
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.empty(1, n_patches + 1, _WIDTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        first = self.class_token.expand(tokens.shape[0], -1, -1)
        return torch.cat((first, tokens), dim=1) + self.positions


class _Attention(nn.Module):
    """Self-attention from linear layers; Opacus has no rule for `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        n, length, _ = tokens.shape
        joint = self.queries_keys_values(tokens).view(n, length, 3, _HEADS, _WIDTH // _HEADS)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, _WIDTH))
        return out


class _Block(nn.Module):
    """Attention, then two linear layers, each normalised before and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.attention = _Attention()
        self.mlp_norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        total: torch.Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return total


class VisionTransformer(nn.Module):
    """ViT-Ti: width 192, depth 12, three heads, without dropout.

    5.7 million parameters with patches of 16 pixels on 224 x 224 x 3 and 1,000 classes, and
    5.4 million with patches of 4 on 32 x 32 x 3 and ten. The patch follows from the image: the
    smallest that gives at most 8 patches a side up to 64 pixels, and at most 14 above.

    Parameters
    ----------
    image : tuple of int
        Channels, height, width.
    n_classes : int

    Raises
    ------
    ValueError
        If the image cannot be cut into square patches.

    References
    ----------
    Dosovitskiy et al. (2021), An Image is Worth 16x16 Words: Transformers for Image
    Recognition at Scale, section 3.1.
    Touvron et al. (2021), Training Data-Efficient Image Transformers and Distillation through
    Attention, table 1 (DeiT-Ti).
    """

    def __init__(self, image: tuple[int, int, int], n_classes: int):
        super().__init__()
        channels, height, width = image
        patch = _patch_size(height, width)
        self.patches = _Patches(channels, patch)
        self.positions = _ClassTokenAndPositions((height // patch) * (width // patch))
        self.blocks = nn.Sequential(*(_Block() for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.head = nn.Linear(_WIDTH, n_classes)
        self._initialize()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, n_classes)."""
        tokens = self.norm(self.blocks(self.positions(self.patches(images))))
        logits: torch.Tensor = self.head(tokens[:, 0])
        return logits

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, _ClassTokenAndPositions):
                nn.init.trunc_normal_(module.class_token, std=0.02)
                nn.init.trunc_normal_(module.positions, std=0.02)
