"""The pseudo backbone: rows are the images, resized as Pillow does it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from dpfc.features import Backbone, extract, load_backbone, open_dataset
from dpfc.features.datasets.decoding import decode_image

PHOTOGRAPHS = [Image.fromarray(photograph) for photograph in load_sample_images().images]


def by_pillow(image, side):
    """The largest centred square, resized, as a row."""
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    square = (left, top, left + edge, top + edge)
    resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, box=square)
    return (np.moveaxis(np.asarray(resized), 2, 0) / 255).ravel()


@pytest.fixture
def folder(tmp_path):
    """Photographs in PNG and a digit in gray."""
    digit = (load_digits().images[3] * 15.9).astype(np.uint8)
    images = {"photograph/0.png": PHOTOGRAPHS[0], "photograph/1.png": PHOTOGRAPHS[1]}
    for name, image in (images | {"digit/3.png": Image.fromarray(digit)}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    return tmp_path


def test_it_is_a_backbone_without_weights():
    backbone = load_backbone("pixels")
    assert isinstance(backbone, Backbone) and backbone.spec == "pixels"
    assert (backbone.n_features, backbone.modality, backbone.device) == (
        3 * 32 * 32,
        "image",
        "cpu",
    )
    assert backbone.preprocessing["normalisation"] == "pixel / 255"


@pytest.mark.parametrize("side", [8, 28, 32, 100])
def test_rows_are_what_pillow_gives(side):
    backbone = load_backbone("pixels", image_size=side)
    rows = backbone.embed(np.stack([backbone.preparer(image) for image in PHOTOGRAPHS]))
    assert rows.dtype == np.float32 and rows.shape == (2, 3 * side * side)
    expected = np.stack([by_pillow(image, side) for image in PHOTOGRAPHS])
    np.testing.assert_array_equal(rows, expected.astype(np.float32))


def test_a_cache_gives_the_images_back(folder, tmp_path):
    cache = extract(open_dataset(folder), load_backbone("pixels"), tmp_path / "cache")
    rows = cache.load()[0].astype(np.float64)
    assert rows.shape == (3, 3072) and rows.min() >= 0.0 and rows.max() <= 1.0
    backbone = load_backbone("pixels")
    for row, path in zip(
        rows, ["digit/3.png", "photograph/0.png", "photograph/1.png"], strict=True
    ):
        pixels = backbone.preparer(decode_image(folder / path, path))
        given = np.rint(255 * row).astype(np.uint8).reshape(3, 32, 32)
        np.testing.assert_array_equal(given, np.moveaxis(pixels, 2, 0))
    red, green, blue = rows[0].reshape(3, -1)
    assert (red == green).all() and (green == blue).all()
    assert cache.manifest["backbone"]["spec"] == "pixels"


def test_an_image_of_the_right_size_stays_as_it_is():
    digit = Image.fromarray((load_digits().images[0] * 15).astype(np.uint8))
    file = io.BytesIO()
    digit.save(file, "PNG")
    backbone = load_backbone("pixels", image_size=8)
    row = backbone.embed(backbone.preparer(decode_image(file.getvalue(), "digit"))[np.newaxis])
    np.testing.assert_array_equal(np.rint(row[0, :64] * 255), np.asarray(digit).ravel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pixels: pooling 'mean' is not possible, no network runs; use auto"),
        ({"dtype": "bfloat16"}, "use auto or float32"),
        ({"image_size": 7}, r"image_size must be an int in \[8, 1024\]"),
    ],
)
def test_what_needs_a_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_backbone("pixels", **options)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="batch must be uint8 of shape"):
        load_backbone("pixels").embed(np.zeros((1, 8, 8, 3), np.uint8))
