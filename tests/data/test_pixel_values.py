import io
import struct

import numpy as np
import pytest
from PIL import Image

from kfpn.data import image as images
from kfpn.data.image import check_image, load_picture, read_header

RAMP = np.linspace(0, 65535, 24).reshape(4, 6).astype(np.uint16)


def encode(picture, kind, **options):
    stream = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, kind, **options)
    return stream.getvalue()


def tiff(width, height, samples, bits, *, photometric=1, sample_format=1, count=1):
    """Returns an uncompressed TIFF written by hand, little-endian."""
    per_pixel = [bits] * count
    tags = {256: width, 257: height, 258: per_pixel, 259: 1, 262: photometric, 273: 0, 277: count, 278: height,
            279: len(samples), 339: [sample_format] * count}  # fmt: skip
    data = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        if tag == 273:
            values = [data + 12]
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", data + len(extra)), extra + packed
        entries += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + extra.ljust(12, b"\0") + samples


def pixels_of(content):
    check_image(content)  # what opens a data set agrees with what decodes
    return load_picture(content, "it")


@pytest.fixture(autouse=True)
def untold():
    images.NARROW_SAID.clear()
    yield
    images.NARROW_SAID.clear()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 65535.0), (-3.5, 2.0)])
def test_float_pixels_are_refused_with_their_range_when_opened_and_when_decoded(low, high):
    content = encode(np.linspace(low, high, 12, dtype=np.float32).reshape(3, 4), "TIFF")
    wanted = rf"has float32 pixels in {low:g}\.\.{high:g}: .*convert it to 8 or 16 bits"
    with pytest.raises(ValueError, match=f"^{wanted}"):
        check_image(content)
    with pytest.raises(ValueError, match=f"^photo.tif: {wanted}"):
        load_picture(content, "photo.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_gray_of_16_bits_keeps_its_upper_8(kind):
    np.testing.assert_array_equal(
        pixels_of(encode(RAMP, kind, **({"irreversible": False} if kind == "JPEG2000" else {})))[..., 1], RAMP >> 8
    )


def test_gray_of_12_bits_that_says_so_is_scaled_by_them():
    values = [0, 1, 4095, 2048, 100, 200]
    text = "".join(f"{value:012b}" for value in values)
    packed = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    assert pixels_of(tiff(6, 1, packed, 12))[0, :, 0].tolist() == [value >> 4 for value in values]


def test_white_is_zero_is_inverted_at_8_and_at_16_bits():
    assert pixels_of(tiff(3, 1, bytes([0, 100, 255]), 8, photometric=0))[0, :, 0].tolist() == [255, 155, 0]
    wide = np.array([0, 256 * 100, 65535], "<u2").tobytes()
    assert pixels_of(tiff(3, 1, wide, 16, photometric=0))[0, :, 0].tolist() == [255, 155, 0]


def test_colour_of_16_bits_keeps_its_upper_8():
    wide = np.stack([RAMP, RAMP[::-1], RAMP], axis=-1)
    content = tiff(6, 4, wide.astype("<u2").tobytes(), 16, photometric=2, count=3)
    np.testing.assert_array_equal(pixels_of(content), wide >> 8)


@pytest.mark.parametrize(
    ("values", "sample_format", "bits"),
    [([0, 70_000, 5], 1, 32), ([-5, 100, 30_000], 2, 16), ([0, -1, 5], 2, 32)],
)
def test_integers_outside_of_16_bits_are_refused_with_their_range(values, sample_format, bits):
    kind = {(1, 32): "<u4", (2, 16): "<i2", (2, 32): "<i4"}[sample_format, bits]
    content = tiff(3, 1, np.array(values, kind).tobytes(), bits, sample_format=sample_format)
    for read in (check_image, lambda image: load_picture(image, "it")):
        with pytest.raises(ValueError, match=rf"has integer pixels in {min(values)}\.\.{max(values)}: only 0..65535"):
            read(content)


def test_integers_of_32_bits_that_fit_16_are_read_as_these():
    content = tiff(3, 1, np.array([0, 25_600, 65_535], "<u4").tobytes(), 32)
    assert pixels_of(content)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("content", "highest"),
    [
        (encode((RAMP >> 4).astype(np.uint16), "PNG"), 4095),
        (encode((RAMP >> 5).astype(np.uint16), "TIFF"), 2047),
        (tiff(6, 4, (np.stack([RAMP] * 3, -1) >> 5).astype("<u2").tobytes(), 16, photometric=2, count=3), 2047),
    ],
    ids=["12 bits in a PNG", "11 bits in a TIFF", "11 bits of colour"],
)
def test_values_that_fill_less_than_an_eighth_are_warned_of_once_with_their_range(content, highest, caplog):
    found = check_image(content)
    assert (found.bits, found.highest) == (16, highest)
    load_picture(content, "a.png")
    load_picture(content, "b.png")
    assert [record.message for record in caplog.records] == [
        f"a.png has values in 0..{highest} of 0..65535: it is read as all but black, so scale it to the whole range (others like "
        "it are not named)"
    ]


def test_dark_photos_of_8_bits_and_full_16_bits_are_not_warned_of(caplog):
    for content in (encode(np.full((4, 4), 9, np.uint8), "PNG"), encode(RAMP, "PNG")):
        load_picture(content, "it")
        assert check_image(content).highest == 0
    assert caplog.records == []


def test_palette_transparency_one_bit_alpha_and_cmyk_have_the_colours_they_show():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    palette = red.quantize(4)
    assert (pixels_of(encode(palette, "PNG")) == (255, 0, 0)).all()
    assert (pixels_of(encode(palette, "PNG", transparency=0)) == (255, 0, 0)).all()
    assert (pixels_of(encode(Image.new("1", (2, 2), 1), "PNG")) == 255).all()
    assert (pixels_of(encode(Image.new("LA", (2, 2), (7, 0)), "PNG")) == 7).all()
    assert (pixels_of(encode(Image.new("L", (2, 2), 7), "PNG", transparency=7)) == 7).all()
    assert (pixels_of(encode(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)).all()


def test_colours_that_pillow_can_not_make_rgb_of_are_refused():
    content = tiff(2, 2, bytes(12), 8, photometric=8, count=3)
    for read in (check_image, lambda image: load_picture(image, "it")):
        with pytest.raises(ValueError, match="has pixels of the kind LAB, which can't be made RGB"):
            read(content)


def test_postscript_is_refused_and_no_program_is_started_for_it():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    for read in (read_header, check_image, lambda image: load_picture(image, "it")):
        with pytest.raises(ValueError, match="is EPS, of which no pixels can be read"):
            read(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_tiff_has_the_size_it_is_shown_in(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.new("RGB", (6, 4)), "TIFF", exif=exif)
    size = (6, 4) if orientation >= 5 else (4, 6)
    assert read_header(content)[:2] == check_image(content).header[:2] == size
    assert load_picture(content, "it").shape[:2] == size


def test_the_files_of_the_collected_cases_are_answered_rightly(shared):
    folder = shared("cases/08-tiff-float-and-12-bit/images")
    for name in ("float01.tif", "float65535.tif"):
        with pytest.raises(ValueError, match=r"has float32 pixels in .*: convert|convert it to 8 or 16 bits"):
            check_image(folder / name)
    found = {
        name: check_image(folder / name)
        for name in ("gray8.png", "gray16_12bit.png", "gray16_14bit.tif", "rgb16_11bit.tif")
    }
    assert {name: one.highest for name, one in found.items()} == {
        "gray8.png": 0, "gray16_12bit.png": 1728, "gray16_14bit.tif": 7432, "rgb16_11bit.tif": 2047,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_a_rotated_tiff_is_the_same_by_path_and_by_bytes(tmp_path, mode):
    pixels = np.arange(48 * 64).reshape(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels.astype(np.uint16) * 20 if mode == "I;16" else pixels.astype(np.uint8))
    image = image if mode == "I;16" else image.convert(mode)
    content = encode(image, "TIFF", exif=exif)
    (tmp_path / "a.tif").write_bytes(content)
    by_path, by_bytes = load_picture(str(tmp_path / "a.tif"), "a"), load_picture(content, "a")
    assert by_path.shape == (64, 48, 3)
    np.testing.assert_array_equal(by_path, by_bytes)
    np.testing.assert_array_equal(
        by_path[..., 0], np.rot90(np.asarray(load_picture(encode(image, "TIFF"), "a"))[..., 0], -1)
    )
