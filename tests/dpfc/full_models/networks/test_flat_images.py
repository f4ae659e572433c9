"""Flat rows, as feature caches hold them, read as square images in one colour or three."""

from __future__ import annotations

import pytest
import torch

from dpfc.full_models import AUGMENTATIONS, make_network
from dpfc.full_models.networks.factory import square_image


@pytest.mark.parametrize(
    ("length", "image"),
    [
        (64, (1, 8, 8)),
        (784, (1, 28, 28)),
        (3072, (3, 32, 32)),
        (3, (3, 1, 1)),
        (65, None),
        (2, None),
    ],
)
def test_a_length_is_one_image_or_none(length, image):
    assert square_image(length) == image


def test_no_length_is_both_gray_and_in_colour():
    gray, colour = ({c * s * s for s in range(1, 2000)} for c in (1, 3))
    assert not gray & colour


@pytest.mark.parametrize("name", ["cnn", "vit-tiny"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_scores_flat_rows_as_the_images_that_they_are(name, channels):
    images = torch.rand(5, channels, 16, 16)
    networks = [
        make_network(name, input_shape=shape, n_classes=4, seed=0).eval()
        for shape in ((channels * 256,), (channels, 16, 16))
    ]
    with torch.no_grad():
        flat, whole = networks[0](images.flatten(1)), networks[1](images)
    torch.testing.assert_close(flat, whole, rtol=0, atol=0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_flat_rows_are_changed_as_images_are(name, channels):
    images = torch.rand(20, channels, 12, 12)
    changed = []
    for rows in (images, images.flatten(1)):
        torch.manual_seed(0)
        changed.append(AUGMENTATIONS[name](rows))
    assert changed[1].shape == (20, channels * 144)
    torch.testing.assert_close(changed[0].flatten(1), changed[1], rtol=0, atol=0)
    assert not torch.equal(changed[0], images)


def test_gray_images_need_no_channel():
    torch.manual_seed(0)
    images = torch.rand(20, 12, 12)
    flipped = AUGMENTATIONS["flip"](images)
    as_they_were = (flipped == images).flatten(1).all(dim=1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert (as_they_were ^ mirrored).all() and as_they_were.any() and mirrored.any()


@pytest.mark.parametrize("shape", [(4, 65), (4, 2, 3, 4, 5)])
def test_rows_that_are_no_images_are_not_augmented(shape):
    with pytest.raises(ValueError, match="augmentation by name is for images"):
        AUGMENTATIONS["flip"](torch.rand(shape))
