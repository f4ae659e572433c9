"""Convolutional networks for private training: a small one with tanh, and a wide ResNet."""

from __future__ import annotations

import torch
from opacus.grad_sample import register_grad_sampler
from torch import nn
from torch.nn import functional

__all__ = ["SmallConvNet", "StandardizedConv2d", "WideResNet"]

_SMALLEST_ENERGY = 1e-4
_GROUPS = 16
_WIDTHS = (64, 128, 256)
_BLOCKS_PER_WIDTH = 2
_LARGE_SIDE = 20
_POOLED_SIDE = 8


class SmallConvNet(nn.Module):
    """Two convolutions and two linear layers with tanh: 26,010 parameters on 28 x 28 x 1.

    Images with a side below 20 pixels get smaller kernels and one stride in place of two. Of
    large images, features are averaged to 8 x 8 places, so that the linear layer, and with it
    the noise, does not grow with the image.

    Parameters
    ----------
    image : tuple of int
        Channels, height, width; sides of at least 8 pixels.
    n_classes : int

    References
    ----------
    Papernot et al. (2021), Tempered Sigmoid Activations for Deep Learning with Differential
    Privacy.
    Tramèr, Boneh (2021), Differentially Private Learning Needs Better Features (or Much More
    Data), appendix.
    """

    def __init__(self, image: tuple[int, int, int], n_classes: int):
        super().__init__()
        channels, *sides = image
        if min(sides) >= _LARGE_SIDE:
            first = nn.Conv2d(channels, 16, 8, stride=2, padding=2)
            second = nn.Conv2d(16, 32, 4, stride=2)
            left = [((side - 4) // 2 - 3) // 2 for side in sides]
        else:
            first = nn.Conv2d(channels, 16, 5, padding=2)
            second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
            left = [side // 2 - 1 for side in sides]
        kept = [min(side, _POOLED_SIDE) for side in left]
        self.features = nn.Sequential(
            first,
            nn.Tanh(),
            nn.MaxPool2d(2, 1),
            second,
            nn.Tanh(),
            nn.MaxPool2d(2, 1),
            nn.Identity() if kept == left else nn.AdaptiveAvgPool2d((kept[0], kept[1])),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(32 * kept[0] * kept[1], 32), nn.Tanh(), nn.Linear(32, n_classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, n_classes)."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits


def _centre(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Subtract every filter's mean, and give what is left and its squared length K var(w)."""
    centred = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    return centred, centred.square().sum(dim=(1, 2, 3), keepdim=True)


class StandardizedConv2d(nn.Module):
    """Convolution whose filters are standardised before use, with a gain and a bias.

    Opacus finds its rule for per-sample gradients by the exact type of a layer. A subclass of
    `nn.Conv2d`, and a parametrised one, would fall back on functorch, which convolves again
    for every row. This layer brings its own rule, `_per_sample_gradients`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        The kernel is square and of odd size; images are padded with zeros to keep their size.
    stride : int, default=1

    References
    ----------
    Qiao et al. (2019), Micro-Batch Training with Batch-Channel Normalization and Weight
    Standardization.
    Brock et al. (2021), Characterizing Signal Propagation to Close the Performance Gap in
    Unnormalized ResNets (weights scaled by the fan-in).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.stride, self.padding = stride, kernel_size // 2
        fan_in = in_channels * kernel_size**2
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape) / fan_in**0.5)
        self.gain = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve images (n, in_channels, height, width)."""
        centred, energy = _centre(self.weight)
        # A filter that is constant has no direction; the floor keeps it at zero.
        scale = energy.clamp_min(_SMALLEST_ENERGY).rsqrt() * self.gain[:, None, None, None]
        filters = centred * scale
        return functional.conv2d(images, filters, self.bias, self.stride, self.padding)


def _per_sample_gradients(
    layer: StandardizedConv2d, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Opacus' rule for `StandardizedConv2d`.

    A row's gradient G in the filters g v, with direction v = (w - m) / l, is that of any
    convolution: backprops times patches. From it follow ⟨v, G⟩ in g, and in w
    (G - mean(G) - v ⟨v, G⟩) g / l; the last term is missing where l is the floor.
    """
    patches = functional.unfold(
        activations[0].to(backprops.dtype),
        layer.weight.shape[2:],
        padding=layer.padding,
        stride=layer.stride,
    )
    rows = backprops.flatten(2)
    centred, energy = (part.flatten(1) for part in _centre(layer.weight.detach()))
    length = energy.clamp_min(_SMALLEST_ENERGY).sqrt()
    direction = centred / length
    scaled = torch.bmm(rows / length, patches.mT)  # G / l, of shape (n, out_channels, K)
    along = (scaled * direction).sum(2, keepdim=True)
    of_gain = along.squeeze(2) * length.squeeze(1)
    floored = energy < _SMALLEST_ENERGY
    # In place: these are n times as large as the weights, and take most of the time.
    scaled -= scaled.mean(2, keepdim=True)
    scaled.addcmul_(along.masked_fill(floored, 0.0), direction, value=-1.0)
    scaled *= layer.gain.detach()[:, None]
    return {
        layer.weight: scaled.view(-1, *layer.weight.shape),
        layer.gain: of_gain,
        layer.bias: rows.sum(2),
    }


register_grad_sampler(StandardizedConv2d)(_per_sample_gradients)


class _Block(nn.Module):
    """Two normalised convolutions beside a shortcut, which is a 1 x 1 convolution or nothing."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, project: bool):
        super().__init__()
        self.first_norm = nn.GroupNorm(_GROUPS, in_channels)
        self.first = StandardizedConv2d(in_channels, out_channels, 3, stride)
        self.second_norm = nn.GroupNorm(_GROUPS, out_channels)
        self.second = StandardizedConv2d(out_channels, out_channels, 3)
        self.shortcut = (
            StandardizedConv2d(in_channels, out_channels, 1, stride) if project else None
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.first_norm(images))
        beside = images if self.shortcut is None else self.shortcut(active)
        inner = functional.relu(self.second_norm(self.first(active)))
        total: torch.Tensor = self.second(inner) + beside
        return total


class WideResNet(nn.Module):
    """Wide ResNet of depth 16 and width 4, with group norm and standardised filters.

    2.7 million parameters on 32 x 32 x 3 images and ten classes. Batch norm, which makes a
    row's gradient depend on other rows, is replaced by group norm with 16 groups; the last
    layer starts at zero.

    Parameters
    ----------
    image : tuple of int
        Channels, height, width.
    n_classes : int

    References
    ----------
    Zagoruyko, Komodakis (2016), Wide Residual Networks.
    De et al. (2022), Unlocking High-Accuracy Differentially Private Image Classification
    through Scale.
    """

    def __init__(self, image: tuple[int, int, int], n_classes: int):
        super().__init__()
        self.stem = StandardizedConv2d(image[0], 16, 3)
        blocks: list[nn.Module] = []
        before = 16
        for width in _WIDTHS:
            for index in range(_BLOCKS_PER_WIDTH):
                stride = 2 if index == 0 and width != _WIDTHS[0] else 1
                blocks.append(_Block(before, width, stride, project=index == 0))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.GroupNorm(_GROUPS, before)
        self.head = nn.Linear(before, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, n_classes)."""
        features = functional.relu(self.norm(self.blocks(self.stem(images))))
        logits: torch.Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
