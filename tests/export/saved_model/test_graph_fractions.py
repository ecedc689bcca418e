"""The graph decodes a JPEG at the fraction that prediction uses, and makes the same image of it."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image, size_rule
from kfpn.data.image import decode_picture
from kfpn.data.jpeg_fraction import decoding_fraction, divided, picture_box
from kfpn.export.saved_model.file_headers import FileHeader, file_header
from kfpn.export.saved_model.graph_fractions import decoded_pixels, fractions_of, graph_fractions, graph_picture_box
from kfpn.export.saved_model.graph_images import batch_of_files, batch_of_pixels
from kfpn.export.saved_model.request_limits import RequestLimits

INPUT = InputConfig(short_side=32, long_side=64)


@pytest.fixture(scope="module")
def batch():
    """Returns the function (files) -> FileBatch, traced once."""
    limits = RequestLimits(max_request_pixels=40_000, max_pixels=40_000)
    traced = tf.function(
        lambda files: batch_of_files(files, INPUT, limits),
        input_signature=[tf.TensorSpec((None,), tf.string)],
        autograph=False,
    )
    return lambda *files: traced(tf.constant(files, tf.string))


def jpeg(pixels, mode="RGB", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_the_fraction_is_that_of_prediction_on_a_grid_of_sizes():
    sides = sorted(
        {
            *range(1, 40, 3),
            *(factor * side + more for factor in (2, 4, 8, 16) for side in (32, 64) for more in (-2, -1, 0, 1, 9)),
        }
    )
    sizes = np.array([(height, width) for height in sides for width in sides])
    for config in (INPUT, InputConfig(short_side=37, long_side=41)):
        needed = np.array([size_rule(config)(tuple(size)) for size in sizes.tolist()], np.int32)
        ours = graph_fractions(tf.constant(sizes, tf.int64), tf.constant(needed))
        pairs = zip(sizes.tolist(), needed.tolist(), strict=True)
        theirs = [decoding_fraction(tuple(size), tuple(least)) for size, least in pairs]
        assert ours.numpy().tolist() == theirs
        assert set(theirs) == {1, 2, 4, 8}


def test_the_box_is_that_of_prediction():
    for size in ((13, 18), (801, 1067), (64, 64)):
        for fraction in (1, 2, 4, 8):
            for turn in range(1, 9):
                ours = graph_picture_box(tf.constant(size, tf.int64), tf.constant(fraction), tf.constant(turn))
                np.testing.assert_allclose(ours, picture_box(size, fraction, turn), rtol=1e-6)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_graph_makes_the_image_that_prediction_makes(batch, photo, orientation):
    # Each orientation meets each size and each mode; over all orientations each size meets each mode.
    for i, (size, options) in enumerate((((137, 259), {}), ((261, 131), {"progressive": True}), ((70, 75), {}))):
        mode = ("RGB", "L", "CMYK")[(i + orientation) % 3]
        file = jpeg(photo(*size), mode, exif=turned(orientation), **options)
        image = decode_picture(file, "it", size_rule(INPUT))
        expected, (height, width) = prepare_image(image, INPUT)
        result = batch(file).batch
        assert result.image_sizes.numpy().tolist() == [[height, width]]
        assert result.original_sizes.numpy().tolist() == [list(image.size)]
        assert image.is_whole() == (mode == "CMYK" or size == (70, 75))
        levels = np.abs(result.images[0, :height, :width] - expected)
        assert levels.max() <= 1, (size, mode)
        assert np.mean(levels > 0) < 0.02


def test_pixels_are_counted_as_they_are_decoded(photo, encoded):
    files = [
        jpeg(photo(131, 259)),
        jpeg(photo(131, 259), progressive=True),
        encoded(photo(131, 259)),
        jpeg(photo(60, 60)),
    ]
    headers = [file_header(tf.constant(file)) for file in files]
    headers = FileHeader(*(tf.stack(field) for field in zip(*headers, strict=True)))
    fractions = fractions_of(headers, INPUT)
    assert fractions.numpy().tolist() == [2, 2, 1, 1]
    whole = 131 * 259
    assert decoded_pixels(headers, fractions).numpy().tolist() == [
        int(np.prod(divided((131, 259), 2))),
        whole,
        whole,
        3600,
    ]


def test_a_request_of_too_many_pixels_is_refused_before_any_is_made(batch, photo, encoded):
    assert batch(jpeg(photo(131, 259)), encoded(photo(100, 299))).batch.images.shape[0] == 2
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"at most 40000 pixels in a request before resizing, got 40002: send fewer",
    ):
        batch(*[encoded(photo(113, 118))] * 3)
    # What has a fault isn't decoded, so it doesn't count.
    assert batch(*[encoded(photo(113, 118))] * 2, encoded(photo(113, 118), "WEBP")).batch.images.shape[0] == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 40000 pixels in a request before resizing"):
        batch_of_pixels(tf.zeros((3, 113, 118, 3), tf.uint8), INPUT, RequestLimits(40_000, max_request_pixels=1))


def test_one_image_of_the_largest_size_is_always_taken():
    assert RequestLimits(max_pixels=10**9).request_pixels == 10**9
    assert RequestLimits().request_pixels >= 32 * 4032 * 3024
