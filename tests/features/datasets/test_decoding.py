import io
import struct
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpfc.features import UnreadableImageError
from dpfc.features.backbones.processor import ProcessorPixels
from dpfc.features.datasets.decoding import decode_image, square_pixels

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def decoded(data, **options):
    return np.asarray(decode_image(data, "a.png", **options))


def test_gray_becomes_three_equal_channels(encode):
    pixels = decoded(encode(RAMP))
    assert np.array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=2))


def test_sixteen_bit_gray_keeps_its_upper_byte(encode):
    wide = RAMP.astype(np.uint16) * 256 + 7
    assert np.array_equal(decoded(encode(wide))[..., 0], RAMP)


def chunk(name, content):
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(width, height, depth, colour, pixels, *extra):
    """A PNG file, of kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def wide_png(*channels, extra=()):
    """A 16 x 16 image of 16-bit channels: gray, gray and alpha, colours, colours and alpha."""
    rows = np.stack(channels, axis=2).astype(">u2")
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[len(channels)]
    return png(16, 16, 16, colour, b"".join(b"\0" + row.tobytes() for row in rows), *extra)


WIDE = RAMP.astype(np.uint16) * 256 + 7
OPAQUE = np.full((16, 16), 65535)


@pytest.mark.parametrize(
    "channels", [(WIDE,), (WIDE, OPAQUE), (WIDE, WIDE, WIDE), (WIDE, WIDE, WIDE, OPAQUE)]
)
def test_sixteen_bit_files_keep_their_upper_bytes(channels):
    assert np.array_equal(decoded(wide_png(*channels)), np.repeat(RAMP[..., None], 3, axis=2))


def test_sixteen_bit_pixels_that_are_transparent_become_white():
    key = chunk(b"tRNS", struct.pack(">H", 7))  # the value of the first pixel
    pixels = decoded(wide_png(WIDE, extra=[key]))[..., 0]
    assert pixels[0, 0] == 255
    assert np.array_equal(pixels.ravel()[1:], RAMP.ravel()[1:])
    clear = decoded(wide_png(WIDE, WIDE, WIDE, np.zeros_like(WIDE)))
    assert (clear == 255).all()


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_opened_image_is_decoded_as_its_file_is(encode, kind, orientation):
    rgb = np.zeros((24, 40, 3), np.uint8)
    rgb[:12, 20:] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(rgb, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        opened = np.asarray(decode_image(image, "a.png"))
    assert np.array_equal(opened, decoded(data))
    assert opened.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))


def test_an_opened_image_that_cannot_be_decoded_is_refused_by_its_id(encode):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with (
        Image.open(io.BytesIO(encode(noise)[:2000])) as image,
        pytest.raises(UnreadableImageError, match="'row-000007' cannot be decoded"),
    ):
        decode_image(image, "row-000007")


@pytest.mark.parametrize("size", [(100_000, 3), (3, 100_000), (700, 40)])
def test_an_image_of_extreme_proportions_takes_little_memory(size):
    """Resized whole, the first would take 22 GB."""
    middle = Image.new("RGB", size, (9, 9, 9))
    edge = min(size)
    left, top = (size[0] - edge) // 2, (size[1] - edge) // 2
    middle.paste((250, 250, 250), (left, top, left + edge, top + edge))
    pixels = ProcessorPixels((256,), (224, 224))(middle)
    assert pixels.shape == (224, 224, 3)
    assert (pixels[80:-80, 80:-80] > 245).all()


def test_an_image_of_usual_proportions_is_resized_as_a_whole():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 300, 3), dtype=np.uint8))
    whole = np.asarray(image.resize((480, 32), Image.Resampling.BICUBIC))[2:30, 226:254]
    assert np.array_equal(ProcessorPixels((32,), (28, 28))(image), whole)


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


@pytest.mark.parametrize("side", [10_000, 100_000, 2**31 - 1])
def test_a_small_file_that_claims_to_be_huge_is_refused_before_it_is_decoded(side):
    data = png(side, side, 8, 2, b"\0" * 100)
    assert len(data) < 200
    with (
        pytest.warns(Image.DecompressionBombWarning) if side == 10_000 else nullcontext(),
        pytest.raises(UnreadableImageError, match=r"decompression bombs|cannot be decoded"),
    ):
        decoded(data)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_a_reduced_scale_too(encode, progressive, share):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    data = encode(noise, "JPEG", progressive=progressive)
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decoded(data[: int(len(data) * share)], at_least=32)


PNG_HEADER = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"words",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7\n",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        PNG_HEADER,
        png(0, 0, 8, 2, b""),
        png(4, 4, 8, 2, b""),
        png(4, 4, 8, 9, b"\0" * 100),
        b"\xff\xd8\xff\xd9",
        b"GIF89a" + b"\0" * 7,
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"BM" + b"\xff" * 60,
    ],
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
