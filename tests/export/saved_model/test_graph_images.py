import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image
from kfpn.data.image import load_image, read_size
from kfpn.data.record import Record
from kfpn.export.saved_model import graph_resize
from kfpn.export.saved_model.exif_turn import orientation
from kfpn.export.saved_model.file_headers import file_header
from kfpn.export.saved_model.graph_images import batch_of_files
from kfpn.export.saved_model.graph_resize import resize
from kfpn.export.saved_model.image_decoders import decode_image
from kfpn.export.saved_model.request_limits import RequestLimits

INPUT = InputConfig(short_side=96, long_side=160)
LIMITS = RequestLimits()


def decoded(file):
    """Returns the pixels of a file, which is a path or bytes."""
    content = tf.constant(file if isinstance(file, bytes) else file.read_bytes())
    return decode_image(content, file_header(content)).numpy()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG")),
        *(("RGB", "BMP"), ("L", "BMP"), ("RGBA", "BMP"), ("P", "BMP"), ("P", "GIF")),
    ],
)
def test_files_are_decoded_as_pillow_does(photo, tmp_path, mode, kind):
    Image.fromarray(photo(41, 60)).convert(mode).save(tmp_path / "image", kind)
    pixels = decoded(tmp_path / "image")
    np.testing.assert_array_equal(pixels, np.array(Image.open(tmp_path / "image").convert("RGB")))


def test_a_bmp_of_few_colours_is_decoded_by_its_table(tmp_path):
    pixels = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette([10, 20, 30, 200, 0, 7, 0, 255, 128])
    image.save(tmp_path / "image.bmp")
    table = np.array([[10, 20, 30], [200, 0, 7], [0, 255, 128]])
    np.testing.assert_array_equal(decoded(tmp_path / "image.bmp"), table[pixels])


def bmp(bits, compression=0, masks=(), size=40):
    """Returns a BMP file of 4 x 4 pixels."""
    header = struct.pack("<IiiHHIIiiII", size, 4, 4, 1, bits, compression, 0, 0, 0, 0, 0)
    header += struct.pack(f"<{len(masks)}I", *masks) + bytes(1024 if bits <= 8 else 0)
    pixels = bytes(range(4 * 4 * bits // 8))
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def test_a_bmp_with_the_usual_bit_fields_is_decoded():
    file = bmp(32, 3, (0xFF0000, 0xFF00, 0xFF))
    np.testing.assert_array_equal(decoded(file), np.array(Image.open(io.BytesIO(file)).convert("RGB")))


@pytest.mark.parametrize(
    "file",
    [bmp(8, 1), bmp(4), bmp(1), bmp(16), bmp(32, 3, (0xFF, 0xFF00, 0xFF0000)), bmp(24, size=12), bmp(24)[:40], b"BM"],
)
def test_bmps_that_tensorflow_would_decode_wrongly_are_refused_by_their_index(file, photo, encoded):
    good = encoded(photo(41, 60), "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"uncompressed BMP files .* at index 1"):
        batch_of_files(tf.constant([good, file]), INPUT, RequestLimits(strict=True))


def test_the_first_frame_of_an_animation_is_decoded(photo, tmp_path):
    frames = [Image.fromarray(photo(41, 60, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pixels = decoded(tmp_path / "a.gif")
    np.testing.assert_array_equal(pixels, np.array(Image.open(tmp_path / "a.gif").convert("RGB")))


@pytest.mark.parametrize("endian", ["<", ">"])
def test_photos_are_turned_as_exif_says(photo, encoded, endian):
    for turn in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        exif = Image.Exif()
        exif.endian = endian
        exif[0x010F], exif[0x0112] = "maker", turn
        file = encoded(photo(41, 60), "JPEG", exif=exif)
        assert orientation(tf.constant(file)) == (turn if turn < 9 else 1)
        height, width = read_size(file)
        record = Record(file, 0, height, width, *(np.zeros(0),) * 4, name="photo")
        np.testing.assert_array_equal(decoded(file), load_image(record))


@pytest.mark.parametrize("table", [b"II*\0\xff\xff\xff\x7f", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b""])
def test_an_image_with_broken_exif_is_not_turned(table):
    assert orientation(tf.constant(b"\xff\xd8\xff\xe1\0\x10Exif\0\0" + table)) == 1


@pytest.mark.parametrize("size", [(70, 50), (96, 128), (480, 641), (300, 1000)])
def test_images_are_resized_as_predict_does(photo, encoded, size):
    image = photo(*size)
    expected, (height, width) = prepare_image(image, INPUT)
    batch = batch_of_files(tf.constant([encoded(image)]), INPUT, LIMITS).batch
    assert batch.image_sizes.numpy().tolist() == [[height, width]]
    assert batch.original_sizes.numpy().tolist() == [list(size)]
    assert np.abs(batch.images[0, :height, :width] - expected).max() <= 1
    assert np.mean(batch.images[0, :height, :width] != expected) < 0.02
    assert (batch.images.shape[1] % 32, batch.images.shape[2] % 32) == (0, 0)
    assert not np.any(batch.images[0, height:]) and not np.any(batch.images[0, :, width:])  # noqa: PT018


def test_an_image_of_the_right_size_is_not_changed(photo):
    image = photo(33, 47)
    np.testing.assert_array_equal(resize(tf.constant(image[None]), tf.constant([33, 47]))[0], image)


def test_a_large_image_is_resized_in_blocks_to_the_same_bits(photo, monkeypatch):
    images = tf.stack([photo(300, 200), photo(300, 200, seed=1)])
    at_once = resize(images, tf.constant([96, 64]))
    monkeypatch.setattr(graph_resize, "_BLOCK", 200 * 7)
    np.testing.assert_array_equal(resize(images, tf.constant([96, 64])), at_once)
