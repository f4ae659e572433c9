"""The networks that private training of all weights knows by name.

All of them are fit for per-sample gradients: a row's output depends on that row alone, no
parameter is used twice in a forward pass or is complex, and there are no buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dpfc._support.limits import check_limit, shown_count
from dpfc._support.suggestions import did_you_mean
from dpfc._support.validation import Interval, check_parameters
from dpfc.full_models.networks.convolutional import SmallConvNet, WideResNet
from dpfc.full_models.networks.diagonal_rnn import DiagonalRNNClassifier
from dpfc.full_models.networks.vision_transformer import VisionTransformer

__all__ = ["NETWORKS", "make_network", "square_image"]

_HIDDEN = 128
_SMALLEST_SIDE = 8
_INTEGERS = {
    "n_classes": Interval(2, closed="left", integer=True),
    "seed": Interval(0, 2**63, closed="left", integer=True, words=(None,)),
    "vocabulary_size": Interval(1, closed="left", integer=True, words=(None,)),
}

Image = tuple[int, int, int]

_IMAGE_NETWORKS: dict[str, Callable[[Image, int], nn.Module]] = {
    "cnn": SmallConvNet,
    "wrn-16-4": WideResNet,
    "vit-tiny": VisionTransformer,
}

NETWORKS: tuple[str, ...] = ("linear", "mlp", *_IMAGE_NETWORKS, "dlr")


def make_network(
    name: str,
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    seed: int | None = None,
    vocabulary_size: int | None = None,
) -> nn.Module:
    """Make a network with fresh weights, which maps rows to logits of shape (n, n_classes).

    Parameters
    ----------
    name : str
        One of `NETWORKS`:

        - "linear": one linear layer on the flattened row.
        - "mlp": two hidden layers of 128 tanh units; bounded activations keep gradients
          bounded, and so lose less to clipping (Papernot et al. 2021).
        - "cnn": `SmallConvNet`, about 26,000 parameters on 28 x 28 images.
        - "wrn-16-4": `WideResNet`, 2.7 million parameters.
        - "vit-tiny": `VisionTransformer`, 5.4 million parameters.
        - "dlr": `DiagonalRNNClassifier`, for sequences.
    input_shape : tuple of int
        Shape of one row. Image networks take (channels, height, width), (height, width), or a
        flat row, as `square_image` reads it, with sides of 8 pixels or more; "dlr" takes
        (length, channels) or (length,).
    n_classes : int >= 2
    seed : int or None, default=None
        Makes the weights reproducible; None draws them afresh. PyTorch's global generator
        stays as it is either way.
    vocabulary_size : int or None, default=None
        For "dlr" on rows of int64 tokens of shape (n, length): tokens are
        0 … vocabulary_size - 1.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If there is no such network, or it does not take such rows.

    References
    ----------
    Papernot et al. (2021), Tempered Sigmoid Activations for Deep Learning with Differential
    Privacy.
    """
    if name not in NETWORKS:
        raise ValueError(_unknown(name))
    values = {"n_classes": n_classes, "seed": seed, "vocabulary_size": vocabulary_size}
    check_parameters(values, _INTEGERS)
    shape = _checked_shape(input_shape)
    if vocabulary_size is not None and name != "dlr":
        raise ValueError(f"vocabulary_size is for 'dlr' alone; {name!r} takes no tokens.")
    _check_size(name, shape, int(n_classes), vocabulary_size)
    # Only the CPU's generator: torch.manual_seed would seed a GPU's too, and leave it so.
    with torch.random.fork_rng(devices=[]):
        if seed is None:
            torch.default_generator.seed()
        else:
            torch.default_generator.manual_seed(int(seed))
        return _build(name, shape, int(n_classes), vocabulary_size)


def network_shapes(
    name: str, shape: tuple[int, ...], n_classes: int, vocabulary_size: int | None
) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors, of which none is allocated.

    Raises
    ------
    LimitError
        If a row, or the network, is larger than the limits.
    ValueError
        If the network does not take such rows.
    """
    numbers = math.prod(shape)
    check_limit(
        "row_numbers", numbers, f"a row of shape {shape!r} has {shown_count(numbers)} numbers"
    )
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = _build(name, shape, n_classes, vocabulary_size)
    except (RuntimeError, OverflowError) as error:  # numbers that no tensor can have
        raise ValueError(
            f"{name!r} cannot be built for rows of shape {shape!r}: {error}"
        ) from error
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _check_size(
    name: str, shape: tuple[int, ...], n_classes: int, vocabulary_size: int | None
) -> None:
    shapes = network_shapes(name, shape, n_classes, vocabulary_size)
    weights = sum(map(math.prod, shapes.values()))
    check_limit(
        "network_numbers",
        weights,
        f"{name!r} for rows of shape {shape!r} has {shown_count(weights)} weights",
    )


def square_image(length: int) -> Image | None:
    """Read a flat row as (channels, height, width): (1, s, s) of s² numbers, (3, s, s) of 3 s².

    No length is both, as 3 is no square of a fraction; None where it is neither.
    """
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if channels * side * side == length:
            return channels, side, side
    return None


def _build(
    name: str, shape: tuple[int, ...], n_classes: int, vocabulary_size: int | None
) -> nn.Module:
    if name == "dlr":
        return DiagonalRNNClassifier(_channels(shape, vocabulary_size), n_classes, vocabulary_size)
    if name in _IMAGE_NETWORKS:
        image = _image_shape(name, shape)
        network = _IMAGE_NETWORKS[name](image, n_classes)
        if shape == image:
            return network
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, image), network)
    width = math.prod(shape)
    if name == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(width, n_classes))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(width, _HIDDEN),
        nn.Tanh(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.Tanh(),
        nn.Linear(_HIDDEN, n_classes),
    )


def _unknown(name: object) -> str:
    hint = did_you_mean(str(name).lower(), NETWORKS, cutoff=0.4)
    listed = ", ".join(repr(known) for known in NETWORKS)
    return f"there is no network {name!r}.{hint} Networks are {listed}."


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Give the shape as plain integers, each at least 1."""
    side = Interval(1, closed="left", integer=True)
    if (
        not isinstance(input_shape, tuple | list)
        or not input_shape
        or not all(side.accepts(length) for length in input_shape)
    ):
        raise ValueError(
            "input_shape must be a tuple of ints >= 1, the shape of one row without the batch, "
            f"got {input_shape!r}."
        )
    return tuple(int(length) for length in input_shape)


def _image_shape(name: str, shape: tuple[int, ...]) -> Image:
    """Read a row's shape as channels, height and width."""
    if len(shape) == 1:
        square = square_image(shape[0])
        if square is None:
            raise ValueError(
                f"{name!r} reads a flat row as a square image, grey or in three colours, and "
                f"{shape[0]} is no square or three; give input_shape=(channels, height, width)."
            )
        image = square
    elif len(shape) == 2:
        image = (1, shape[0], shape[1])
    elif len(shape) == 3:
        image = (shape[0], shape[1], shape[2])
    else:
        raise ValueError(f"{name!r} takes rows (channels, height, width), got {shape!r}.")
    if min(image[1:]) < _SMALLEST_SIDE:
        raise ValueError(
            f"{name!r} takes images of at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels, "
            f"got {image[1]} x {image[2]}; 'mlp' takes any row."
        )
    return image


def _channels(shape: tuple[int, ...], vocabulary_size: int | None) -> int:
    """Count the channels of a sequence."""
    if vocabulary_size is not None and len(shape) != 1:
        raise ValueError(f"rows of tokens have input_shape=(length,), got {shape!r}.")
    if len(shape) > 2:
        raise ValueError(f"'dlr' takes rows (length,) or (length, channels), got {shape!r}.")
    return shape[1] if len(shape) == 2 else 1
