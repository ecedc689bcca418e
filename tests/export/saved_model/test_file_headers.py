"""What is read of files before a decoder sees them, what is refused, and with which words."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.export.saved_model.file_headers import file_header
from kfpn.export.saved_model.graph_images import batch_of_files, batch_of_pixels
from kfpn.export.saved_model.image_decoders import decode_image
from kfpn.export.saved_model.request_limits import MOST_PIXELS, RequestLimits
from kfpn.export.saved_model.serving_files import check_batch_pixels, read_images
from tests.export.saved_model.hostile_files import as_pillow, bmp, gif, gif_frame, many_scans, png

INPUT = InputConfig(short_side=32, long_side=64)
LIMITS = RequestLimits(max_pixels=100_000)


def batches(limits):
    """Returns the function (files) -> FileBatch, traced once, because each call without a graph builds those of its data sets."""

    def of_files(files):
        return batch_of_files(files, INPUT, limits)

    traced = tf.function(of_files, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    return lambda files: traced(tf.constant(files, tf.string))


@pytest.fixture(scope="module")
def batch():
    return batches(LIMITS)


def got(batch, file):
    """Returns what the error of a file says behind "got", and checks that its neighbour is answered."""
    result = batch([file, png(8, 8)])
    bad, good = (error.decode() for error in result.errors.numpy())
    assert good == ""
    assert result.rows.numpy().tolist() == [1, 0]
    assert len(result.batch.images) == 1
    assert " at index 0" in bad
    return bad.split(", got ")[1].split(" at index 0")[0]


def webp(photo, count):
    """Returns a WebP file of some frames."""
    file, frames = io.BytesIO(), [Image.fromarray(photo(64, 96, seed)) for seed in range(count)]
    frames[0].save(file, "WEBP", save_all=count > 1, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize("count", [1, 2])
def test_webp_reaches_no_decoder(batch, photo, count):
    assert got(batch, webp(photo, count)) == "a WebP file"


def test_webp_behind_other_first_bytes_reaches_no_decoder(batch, photo):
    file = webp(photo, 2)
    for start in (b"GIF89a", b"BM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        assert got(batch, start + file[len(start) :])
        assert got(batch, start + file)


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA", "JPEG2000", "PDF"])
def test_what_only_pillow_reads_is_refused(batch, photo, encoded, kind):
    words = {"TIFF": "a TIFF file", "ICO": "an icon file", "JPEG2000": "a JPEG 2000 file", "PDF": "a PDF file"}
    assert got(batch, encoded(photo(20, 30), kind)).startswith(words.get(kind, "bytes that begin with"))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "an empty file"),
        (b"\xff", "bytes that begin with ff"),
        (b"\xff\xd8", "bytes that begin with ff d8"),
        (b"hello world", "bytes that begin with 68 65 6c 6c 6f 20 77 6f"),
        (b"<svg>", "SVG, XML or HTML text"),
        (b"/9j/4AAQSkZJRg", "base64 text"),
        (b"data:image/png;base64,", "base64 text"),
        (b"\0\0\0\x1cftypavif", "a HEIC, AVIF or MP4 file"),
        (b"RIFF\0\0\0\0WAVE", "a RIFF file"),
        (b"\xff\xd8\xff", "a JPEG file whose header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "a PNG file whose header is damaged"),
        (png(8, 8)[:32], "a PNG file whose header is damaged"),
        (png(8, 8)[:40], "a PNG file that is damaged behind its header"),
        (png(8, 8, rows=3), "a PNG file that is damaged behind its header"),
        (png(0, 8), "a PNG file without pixels"),
        (b"GIF89a", "a GIF file whose first frame is cut short or damaged"),
        (b"BM", "a BMP file whose header is damaged or of another version"),
    ],
)
def test_a_fault_is_named(batch, file, words):
    assert got(batch, file) == words


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (bmp(4, 4, bits=1), "a BMP file of 1 bits a pixel"),
        (bmp(4, 4, bits=16), "a BMP file of 16 bits a pixel"),
        (bmp(4, 4, compression=1), "a BMP file that is compressed or has bit fields"),
        (bmp(4, 4, size=12), "a BMP file whose header is damaged or of another version"),
        (bmp(0, 4), "a BMP file without pixels"),
        (bmp(4, 0), "a BMP file without pixels"),
        (bmp(-4, 4), "a BMP file that is cut short or has wrong sizes"),
        (bmp(4, -(2**31)), "a BMP file that is cut short or has wrong sizes"),
        (bmp(2**31 - 1, 2**31 - 1), "a BMP file that is cut short or has wrong sizes"),
        (bmp(2**31 - 1, 2**31 - 1, bits=32), "a BMP file that is cut short or has wrong sizes"),
        (bmp(4, 4, start=10), "a BMP file that is cut short or has wrong sizes"),
        (bmp(4, 4, start=2**32 - 8), "a BMP file that is cut short or has wrong sizes"),
        (bmp(400, 400, pixels=256), "a BMP file that is cut short or has wrong sizes"),
    ],
)
def test_a_bmp_file_that_lies_is_refused(batch, file, words):
    assert got(batch, file) == words


@pytest.mark.parametrize(("width", "height", "bits"), [(5, 4, 24), (5, -4, 24), (5, -4, 32), (6, 3, 8)])
def test_bmp_rows_may_begin_at_the_top(width, height, bits):
    file = bmp(width, height, bits=bits)
    np.testing.assert_array_equal(decoded(file), as_pillow(file))


def decoded(file):
    content = tf.constant(file)
    return decode_image(content, file_header(content)).numpy()


CONTROL = b"\x21\xf9\x04\x01\0\0\x02\0"  # colour 2 is transparent


@pytest.mark.parametrize(
    "file",
    [
        gif((6, 4), [(0, 0, 6, 4, 1)]),
        gif((6, 4), [(0, 0, 6, 4, 1), (0, 0, 6, 4, 2)]),  # animated
        gif((6, 4), [(0, 0, 6, 4, 1), (0, 0, 60, 40, 2)]),  # a later frame is larger
        gif((6, 4), [(0, 0, 6, 4, 1), b"\x2c broken"], end=b""),  # a later frame is broken
        gif((9, 8), [(2, 1, 6, 4, 1)]),  # the frame is a part of the canvas
        gif((1, 1), [(0, 0, 6, 4, 3)]),  # or larger
        gif((0, 0), [(0, 0, 6, 4, 3)]),
        gif((6, 4), [(0, 0, 6, 4, 2)], before=CONTROL),  # all is transparent
        gif((9, 8), [(2, 1, 6, 4, 1)], before=CONTROL),
        gif((6, 4), [(0, 0, 6, 4, 1)], before=b"\x21\xfe" + b"\x01x" * 40_000 + b"\0"),  # a comment of tiny blocks
        gif((200, 150), [(0, 0, 200, 150, 3)]),  # a frame of several windows
    ],
)
def test_of_a_gif_the_first_frame_is_what_pillow_shows(file):
    np.testing.assert_array_equal(decoded(file), as_pillow(file))


@pytest.mark.parametrize(
    "file",
    [
        gif((6, 4), []),
        gif((6, 4), [gif_frame(0, 0, 6, 4, 1)[:-1]], end=b""),
        gif((6, 4), [gif_frame(0, 0, 0, 4, 1)]),
        gif((6, 4), [(0, 0, 6, 4, 1)], before=b"\x21\xfe\0" * 1001),
        gif((6, 4), [(0, 0, 6, 4, 1)], before=b"\x21\xfe\xff"),
        b"GIF89a" + b"\xff" * 500,
        b"GIF89a" + bytes(500),
    ],
)
def test_a_gif_without_a_whole_first_frame_is_refused(batch, file):
    assert got(batch, file) == "a GIF file whose first frame is cut short or damaged"


def test_a_gif_of_too_few_pixels_is_refused(batch):
    lying = bytearray(gif_frame(0, 0, 6, 4, 1))
    lying[5] = 60
    assert got(batch, gif((60, 4), [bytes(lying)])) == "a GIF file that is damaged behind its header"


def test_png_of_16_bits_and_animated_png_are_what_pillow_shows(photo):
    for colors in (0, 2, 6):
        np.testing.assert_array_equal(decoded(png(5, 4, colors=colors, bits=16)), np.zeros((4, 5, 3)))
    frames = [(b"acTL", b"\0\0\0\2\0\0\0\0"), (b"fcTL", bytes(4) + b"\0\0\0\5\0\0\0\4" + bytes(14))]
    np.testing.assert_array_equal(decoded(png(5, 4, chunks=frames)), np.zeros((4, 5, 3)))


# Limits.


@pytest.mark.parametrize(
    "file",
    [
        png(1000, 101, rows=1),
        png(1, 1)[:16] + b"\x7f\xff\xff\xff" * 2 + png(1, 1)[24:],
        gif((65535, 65535), [(0, 0, 6, 4, 1)]),
        gif((6, 4), [(65535, 65535, 6, 4, 1)]),
        bmp(1000, 101, bits=8, pixels=101_000),
    ],
)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(batch, file):
    result = batch([png(8, 8), file])
    error = result.errors.numpy()[1].decode()
    assert error.startswith("image_bytes must have at most 100000 pixels an image, got ")
    assert error.endswith(" at index 1: send a smaller image, or export with a larger --max-pixels")
    assert result.rows.numpy().tolist() == [0, 1]


def test_a_jpeg_of_too_many_pixels_or_too_many_scans_is_refused(batch, photo, encoded):
    large = encoded(photo(320, 320), "JPEG")
    assert got_beyond(batch, large) == "image_bytes must have at most 100000 pixels an image, got 320 x 320"
    scans = many_scans(encoded(photo(200, 200), "JPEG", progressive=True), 300)
    assert got_beyond(batch, scans).startswith("image_bytes must have at most 10000000 pixels in all scans of a JPEG")
    usual = encoded(photo(300, 300), "JPEG", progressive=True)
    assert batch([usual]).errors.numpy().tolist() == [b""]


def got_beyond(batch, file):
    return batch([file]).errors.numpy()[0].decode().split(" at index 0")[0]


def test_the_usual_limit_of_pixels_is_that_of_predict():
    assert MOST_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def test_a_request_of_too_many_resized_pixels_is_refused():
    limits = RequestLimits(max_batch_pixels=3 * 32 * 64)
    files = [png(10, 20), png(1, 2), png(100, 200)]  # 32 x 64 each
    batch = batches(limits)
    assert batch(files).batch.images.shape == (3, 64, 32, 3)
    message = r"image_bytes must have at most 6144 pixels in a request .* got 4 x 64 x 32: send fewer"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        batch([*files, png(1, 2)])
    message = r"got 3 x 64 x 64"  # one lies, so all are padded to a square
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        batch([*files[:2], png(20, 10)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images must have at most 6144 .* got 4 x 64 x 32"):
        batch_of_pixels(tf.zeros((4, 2, 1, 3), tf.uint8), INPUT, limits)


def test_pixels_have_the_same_limits_as_files():
    with pytest.raises(tf.errors.InvalidArgumentError, match="images must have at most 100000 pixels an image"):
        batch_of_pixels(tf.zeros((1, 400, 400, 3), tf.uint8), INPUT, LIMITS)


def test_a_strict_request_names_all_bad_files_at_once(photo):
    files = [b"", png(8, 8), webp(photo, 1), png(400, 400, rows=1)]
    message = (
        r"got an empty file at index 0, a WebP file at index 2; "
        r"image_bytes must have at most 100000 pixels an image, got 400 x 400 at index 3: send"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        batch_of_files(tf.constant(files), INPUT, RequestLimits(max_pixels=100_000, strict=True))


def test_warm_up_takes_the_files_that_the_server_takes(tmp_path, photo):
    path = tmp_path / "image"
    for file, words in (
        (webp(photo, 2), "that are whole, got a WebP file"),
        (png(400, 400, rows=1), r"have at most 100000 pixels an image, got 400 x 400: send"),
        (png(8, 8)[:60], "that are whole, got one that is damaged"),
    ):
        path.write_bytes(file)
        with pytest.raises(ValueError, match=f"image must .*{words}"):
            read_images([path], LIMITS)
    images = [(b"", np.zeros((1, 2, 3), np.uint8))]
    check_batch_pixels(images, (1, 3), INPUT, RequestLimits(max_batch_pixels=6144))
    with pytest.raises(ValueError, match=r"at most 6144 pixels after resizing and padding, got 8192: make"):
        check_batch_pixels(images, (1, 4), INPUT, RequestLimits(max_batch_pixels=6144))


@pytest.mark.parametrize("field", ["max_pixels", "max_images", "max_batch_pixels"])
def test_limits_are_positive(field):
    with pytest.raises(ValueError, match=rf"{field} must lie in 1..2147483647, got 0"):
        RequestLimits(**{field: 0})
