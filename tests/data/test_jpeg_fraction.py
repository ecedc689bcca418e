"""At which fraction a JPEG is decoded, and that its picture neither moves nor is stretched by it."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.data import training_sample
from kfpn.data.augment import resize_image, size_rule
from kfpn.data.image import decode_picture, decode_record, load_picture
from kfpn.data.jpeg_fraction import decoding_fraction, divided, picture_box
from kfpn.data.pipeline import eval_batches, prepare_image, train_batches
from kfpn.data.record import Record
from kfpn.data.views import choose_view
from tests.data.test_pipeline import MemorySource, _config

SMALL = InputConfig(short_side=32, long_side=64)


def scene(height, width):
    """Returns a smooth picture with a bright square, whose place shows a shift."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([255 * x / width, 255 * y / height, 128 + 60 * np.sin(x / 17) * np.cos(y / 23)], axis=-1)
    picture[height // 3 : height // 2, width // 3 : width // 2] = 255
    return Image.fromarray(picture.astype(np.uint8))


def jpeg(picture, **options):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **{"quality": 95, **options})
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("size", "needed", "fraction"),
    [
        ((3000, 4000), (800, 1067), 1),  # half of it has 1500 rows, and 1600 are twice the input
        ((3200, 4268), (800, 1067), 2),
        ((3199, 4268), (800, 1067), 2),  # 1599.5 rows are rounded up
        ((3198, 4268), (800, 1067), 1),
        ((6000, 8000), (800, 1067), 2),
        ((6400, 8536), (800, 1067), 4),
        ((12800, 17072), (800, 1067), 8),
        ((60000, 60000), (800, 800), 8),
        ((7, 7), (1, 1), 4),  # an eighth would have a single pixel
    ],
)
def test_the_fraction_is_the_largest_that_leaves_twice_the_input(size, needed, fraction):
    assert decoding_fraction(size, needed) == fraction
    assert decoding_fraction(size[::-1], needed[::-1]) == fraction


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pillow_decodes_at_exactly_that_fraction(options, mode):
    for size in ((128, 256), (257, 401), (131, 999), (513, 514), (120, 130)):
        content = jpeg(scene(*size).convert(mode), **options)
        fraction = decoding_fraction(size, size_rule(SMALL)(size))
        image = decode_picture(content, "it", size_rule(SMALL))
        assert image.pixels.shape == (*divided(size, fraction), 3)
        assert image.size == size
        assert image.is_whole() == (fraction == 1)


def test_other_kinds_of_files_are_decoded_whole():
    picture = scene(512, 512)
    for kind, mode in (("PNG", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB"), ("BMP", "RGB"), ("JPEG", "CMYK")):
        stream = io.BytesIO()
        picture.convert(mode).save(stream, kind)
        assert decode_picture(stream.getvalue(), "it", size_rule(SMALL)).is_whole()


def test_of_a_phones_file_of_two_pictures_the_first_is_decoded_at_a_fraction():
    stream, first = io.BytesIO(), scene(257, 401)
    first.save(stream, "MPO", save_all=True, append_images=[scene(64, 64)], quality=95)
    assert Image.open(io.BytesIO(stream.getvalue())).format == "MPO"
    ours, alone = (decode_picture(content, "it", size_rule(SMALL)) for content in (stream.getvalue(), jpeg(first)))
    assert ours.size == (257, 401)
    np.testing.assert_array_equal(ours.pixels, alone.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_stays_in_its_place_where_the_fraction_does_not_divide_its_sides(orientation):
    """All edges and slopes are where they are in the whole image, turned in any way."""
    for height, width in ((521, 771), (259, 257), (513, 528)):
        content = jpeg(scene(height, width), exif=turned(orientation))
        reduced = decode_picture(content, "it", size_rule(SMALL))
        whole = load_picture(content, "it")
        assert not reduced.is_whole()
        assert reduced.size == whole.shape[:2]
        ours, theirs = (prepare_image(image, SMALL)[0].astype(float) for image in (reduced, whole))
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 1.0
        shift = np.abs(shift_between(ours, theirs)).max()
        assert shift < 0.01, (orientation, height, width, shift)  # of a pixel of the network's input


def shift_between(ours, theirs):
    """Returns by how many rows and columns one image lies behind another: least squares over its slopes."""
    slopes = np.stack(np.gradient(theirs, axis=(0, 1)), axis=-1).reshape(-1, 2)
    return -np.linalg.lstsq(slopes, (ours - theirs).ravel(), rcond=None)[0]


def test_the_box_lies_where_the_turn_brings_the_last_row_and_column():
    size = (13, 18)  # at a fourth: 3.25 of 4 rows, 4.5 of 5 columns
    for orientation, top, left in ((1, 0, 0), (2, 0, 0.5), (3, 0.75, 0.5), (4, 0.75, 0), (6, 0, 0.5), (8, 0.75, 0)):
        assert picture_box(size, 4, orientation) == (top, left, top + 3.25, left + 4.5)


def record(content, size):
    boxes = np.array([[10, 20, size[0], size[1]]], np.float32)
    return Record(content, 7, *size, boxes, np.zeros(1, np.int32), np.zeros(1, bool), np.ones(1, np.float32), "photo")


def test_batches_keep_boxes_and_sizes_of_the_whole_image():
    size = (333, 667)
    source = MemorySource([record(jpeg(scene(*size)), size)])
    config = _config(1)
    (batch,) = eval_batches(source, config, 1).as_numpy_iterator()
    expected, resized = prepare_image(decode_record(source[0], size_rule(config.input)), config.input)
    assert batch["original_sizes"].tolist() == [list(size)]
    assert batch["image_sizes"].tolist() == [list(resized)]
    np.testing.assert_array_equal(batch["images"][0, : resized[0], : resized[1]], expected)
    (trained,) = itertools.islice(train_batches(source, config).as_numpy_iterator(), 1)
    np.testing.assert_array_equal(trained["images"][0, : resized[0], : resized[1]], expected)
    scale = np.array(resized) / size
    np.testing.assert_allclose(trained["gt_boxes"][0, 0], [10 * scale[0], 20 * scale[1], *resized], rtol=1e-6)


def test_an_image_that_is_not_large_gives_the_same_bits_as_before():
    for size in ((64, 127), (120, 140), (33, 50)):
        content = jpeg(scene(*size))
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        wanted = size_rule(SMALL)(size)
        resized, _ = prepare_image(decode_picture(content, "it", size_rule(SMALL)), SMALL)
        expected = Image.fromarray(pixels).resize(wanted[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resized, np.asarray(expected))


def test_the_largest_of_several_sizes_says_the_fraction():
    size = (333, 667)
    source = MemorySource([record(jpeg(scene(*size)), size)])
    config = _config(1)
    large = InputConfig(short_side=160, long_side=320)
    (whole,) = eval_batches(source, config, 1, largest=large).as_numpy_iterator()
    expected, resized = prepare_image(load_picture(source[0].image, "it"), config.input)
    np.testing.assert_array_equal(whole["images"][0, : resized[0], : resized[1]], expected)
    jitter = _config(1, scale_jitter=(0.5, 4.0))
    needed = size_rule(jitter.input, 4.0)
    assert decode_record(source[0], needed).is_whole()
    assert not decode_record(source[0], size_rule(jitter.input)).is_whole()


@pytest.mark.parametrize(
    "moves",
    [{"crop": 1.0, "crop_area": (0.02, 0.3)}, {"large_scale_jitter": (0.2, 4.0)}, {"crop": 0.5, "large_scale_jitter": (0.2, 2.0), "turn": 0.5}],
)  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_part_that_is_enlarged_is_decoded_as_large_as_it_needs(moves, orientation, monkeypatch):
    stored = (600, 900)
    size = stored if orientation == 1 else stored[::-1]
    content = jpeg(scene(*stored), exif=turned(orientation))
    source = MemorySource([record(content, size)])
    config = _config(1, short_side=32, long_side=64, **moves)
    whole = load_picture(content, "it")
    decoded = []
    monkeypatch.setattr(
        training_sample, "decode_record", lambda *args: decoded.append(decode_record(*args)) or decoded[-1]
    )
    load = training_sample.training_sample(source, config)
    for sample in range(12):
        image, (height, width), *_ = load(0, sample, False, 1.0, 32, np.array([64, 64]))
        view = choose_view(size, source[0].boxes, config.input, config.seed, sample)
        top, left, bottom, right = view.window
        expected = resize_image(
            np.ascontiguousarray(whole[top:bottom, left:right]), view.resized(size_rule(config.input)(size))
        )
        difference = np.abs(image[:height, :width].astype(int) - np.rot90(expected, view.turns))
        assert difference.mean() < 4
        seen = np.array([bottom - top, right - left]) * decoded[-1].pixels.shape[:2] / size
        assert decoded[-1].is_whole() or (seen >= 2 * np.array(expected.shape[:2]) - 1).all()
    assert len({image.pixels.shape for image in decoded}) > 1  # a part that is not enlarged is decoded smaller
