import io

import numpy as np
import pytest
from PIL import Image

from kfpn.data.image import load_image, load_picture, read_header, read_size
from kfpn.data.record import Record


def encode(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def record(image, height, width):
    empty = np.zeros((0, 4), np.float32)
    return Record(
        image, 1, height, width, empty, np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.float32), "it"
    )


def picture(mode="RGB", height=6, width=10):
    return Image.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("P", "GIF"),
        ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "BMP"), ("RGB", "WEBP"), ("CMYK", "TIFF"),
    ],
)  # fmt: skip
def test_every_mode_loads_as_uint8_rgb(mode, kind):
    content = encode(picture(mode), kind)
    assert read_size(content) == (6, 10)
    pixels = load_image(record(content, 6, 10))
    assert pixels.shape == (6, 10, 3)
    assert pixels.dtype == np.uint8


def test_alpha_is_dropped_and_the_colours_stay():
    content = encode(Image.new("RGBA", (3, 2), (10, 20, 30, 0)), "PNG")
    assert (load_image(record(content, 2, 3)) == (10, 20, 30)).all()


def test_16_bit_pixels_keep_their_upper_8_bits():
    wide = np.array([[0, 255, 256, 65535]], np.uint16)
    content = encode(Image.fromarray(wide), "PNG")
    assert load_image(record(content, 1, 4))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_the_first_frame_of_an_animation_is_loaded():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(record(content, 4, 4)) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied_to_size_and_pixels(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn the image clockwise by a quarter before they show it
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255  # at the top left in the file, at the top right when shown
    content = encode(Image.fromarray(stored), kind, exif=exif)
    assert tuple(read_header(content)) == (32, 16, 6)
    pixels = load_image(record(content, 32, 16))
    assert pixels[:6, 10:].min() > 200
    assert pixels[16:].max() < 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_refused_when_the_header_is_read(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = encode(noise, kind)
    assert tuple(read_header(content, whole=True)) == (64, 64, 1)
    with pytest.raises(ValueError, match=r"can't be read|not an image"):
        read_header(content[: len(content) // 2], whole=True)


def test_a_jpeg_with_bytes_after_its_end_counts_as_whole():
    assert read_size(encode(picture(), "JPEG")) == read_header(encode(picture(), "JPEG") + b"trailer", whole=True)[:2]


def test_a_png_with_a_changed_byte_is_refused():
    content = bytearray(encode(picture(), "PNG"))
    content[-20] ^= 255
    with pytest.raises(ValueError, match="can't be read"):
        read_header(bytes(content), whole=True)


def test_a_file_that_is_no_image_or_is_missing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not an image"):
        read_size(b"hello")
    with pytest.raises(ValueError, match="does not exist"):
        read_size(str(tmp_path / "none.jpg"))
    with pytest.raises(ValueError, match="it: is not an image"):
        load_image(record(b"hello", 1, 1))


def test_decompression_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="it: has more pixels than the 40"):
        load_image(record(encode(picture(), "PNG"), 6, 10))


def test_an_image_that_changed_since_its_source_was_opened_is_refused():
    with pytest.raises(ValueError, match=r"it: pixels must be uint8 of shape \(7, 10, 3\)"):
        load_image(record(encode(picture(), "PNG"), 7, 10))


def test_an_image_given_as_an_array_is_returned_unchanged():
    pixels = np.full((2, 3, 3), 7, np.uint8)
    assert load_image(record(pixels, 2, 3)) is pixels


def test_a_picture_is_loaded_from_its_path_or_its_bytes_and_named_if_it_is_missing(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture(), "PNG"))
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), encode(picture(), "PNG")):
        np.testing.assert_array_equal(load_picture(image, "it"), np.array(picture()))
    with pytest.raises(ValueError, match="photo: does not exist"):
        load_picture(tmp_path / "none.png", "photo")
