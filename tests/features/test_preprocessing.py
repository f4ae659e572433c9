import io
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpfc.features import UnreadableImageError
from dpfc.features.preprocessing import decode_image, square_pixels

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def decoded(data, **options):
    return np.asarray(decode_image(data, "a.png", **options))


def test_gray_becomes_three_equal_channels(encode):
    pixels = decoded(encode(RAMP))
    assert np.array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=2))


def test_sixteen_bit_gray_keeps_its_upper_byte(encode):
    wide = RAMP.astype(np.uint16) * 256 + 7
    assert np.array_equal(decoded(encode(wide))[..., 0], RAMP)


def test_one_bit_images_become_black_and_white(encode):
    pixels = decoded(encode(Image.fromarray(RAMP > 100)))
    assert np.array_equal(pixels[..., 0], np.where(RAMP > 100, 255, 0))


def test_transparent_pixels_become_white(encode):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    expected = np.full((4, 4, 3), 255, np.uint8)
    expected[:2] = (10, 20, 30)
    assert np.array_equal(decoded(encode(rgba)), expected)
    gray_alpha = Image.fromarray(rgba).convert("LA")
    assert decoded(encode(gray_alpha))[3, 3].tolist() == [255, 255, 255]


def test_a_transparent_palette_entry_becomes_white(encode):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    for kind in ("PNG", "GIF"):
        pixels = decoded(encode(image, kind, transparency=0))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[3, 3].tolist() == [200, 10, 10]


def test_cmyk_becomes_rgb(encode):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decoded(encode(image, "JPEG"))[4, 4]
    assert red[0] > 200
    assert red[1:].max() < 60


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("BMP", {})])
def test_other_formats_are_read(encode, kind, options):
    rgb = np.repeat(RAMP[..., None], 3, axis=2)
    assert np.array_equal(decoded(encode(rgb, kind, **options)), rgb)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(encode, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    options = {"save_all": True, "append_images": frames[1:]}
    assert decoded(encode(frames[0], kind, **options))[4, 4, 0] > 200


def test_exif_rotation_is_applied(encode):
    rgb = np.zeros((10, 20, 3), np.uint8)
    rgb[:, 10:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    pixels = decoded(encode(rgb, "PNG", exif=exif))
    assert np.array_equal(pixels, np.rot90(rgb, -1))


def test_a_damaged_exif_block_is_ignored(encode):
    data = encode(RAMP, "JPEG", exif=b"Exif\x00\x00" + b"garbage" * 4)
    assert decoded(data).shape == (16, 16, 3)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_and_looks_the_same(encode):
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    data = encode(np.broadcast_to(ramp[:, None, None], (1024, 1024, 3)).copy(), "JPEG")
    small = decode_image(data, "a.jpg", at_least=64)
    assert small.size == (128, 128)
    whole = decode_image(data, "a.jpg")
    difference = square_pixels(small, 64).astype(int) - square_pixels(whole, 64)
    assert np.abs(difference).max() <= 3


def test_the_centre_square_is_kept():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (square_pixels(Image.fromarray(wide), 10) == 200).all()
    tall = Image.fromarray(wide.transpose(1, 0, 2).copy())
    assert (square_pixels(tall, 10) == 200).all()
    assert square_pixels(Image.new("RGB", (1, 500)), 8).shape == (8, 8, 3)


def test_a_decompression_bomb_is_refused(encode, monkeypatch):
    data = encode(np.zeros((20, 20), np.uint8))
    for limit in (390, 100):  # Pillow warns up to twice its limit, and raises beyond
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with (
            pytest.warns(Image.DecompressionBombWarning) if limit == 390 else nullcontext(),
            pytest.raises(UnreadableImageError, match=r"'a.png' .* decompression bombs"),
        ):
            decoded(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decoded(data).shape == (20, 20, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_image_is_refused_by_its_id_only(encode, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, kind)
    with pytest.raises(UnreadableImageError, match=r"^image 'a.png' cannot be decoded") as e:
        decoded(data[: int(len(data) * share)])
    assert e.value.__cause__ is None
    assert e.value.__suppress_context__


@pytest.mark.parametrize(
    "data", [b"", b"words", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_refused(data):
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decoded(data)


def test_formats_outside_the_list_are_refused(encode):
    with pytest.raises(UnreadableImageError, match="or not PNG, JPEG"):
        decoded(encode(RAMP, "TIFF"))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_range_are_refused(mode):
    with pytest.raises(UnreadableImageError, match="32-bit pixels"):
        decode_image(Image.new(mode, (4, 4)), "row-000000")


@settings(max_examples=150, deadline=None)
@given(
    position=st.integers(0, 10_000),
    value=st.integers(1, 255),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_a_changed_byte_gives_an_image_or_the_one_error(position, value, kind):
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, kind)
    data = bytearray(file.getvalue())
    data[position % len(data)] ^= value
    try:
        assert decoded(bytes(data)).shape[2] == 3
    except UnreadableImageError as error:
        assert "'a.png'" in str(error)
