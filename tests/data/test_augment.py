import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.augment import (
    draw,
    draw_short_side,
    flip_boxes,
    flip_image,
    largest_training_input,
    resize_boxes,
    resize_image,
    resized_sizes,
)


def _draws(config: InputConfig, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    flips, factors = zip(*(draw(config, seed, tf.constant(i, tf.int64)) for i in range(count)), strict=True)
    return np.array(flips), np.array(factors)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # times 1.6667: 1066.67 is rounded up
        ((640, 480), (1067, 800)),
        ((400, 1000), (533, 1333)),  # the longer side decides: times 1.333
        ((800, 800), (800, 800)),
        ((10, 4000), (3, 1333)),
        ((1, 4000), (1, 1333)),  # 0.33 would be rounded to 0
    ],
)
def test_the_shorter_side_decides_the_size_unless_the_longer_side_would_pass_its_limit(size, expected):
    assert tuple(resized_sizes(np.array(size), InputConfig())) == expected


def test_the_factor_multiplies_the_resized_size_of_one_or_many_images():
    sizes = resized_sizes(np.array([[480, 640], [800, 800]]), InputConfig(), factor=0.5)
    assert sizes.tolist() == [[400, 533], [400, 400]]
    assert sizes.dtype == np.int32


def test_boxes_are_resized_with_their_image():
    boxes = resize_boxes(np.array([[10.0, 20.0, 30.0, 60.0]], np.float32), (40, 80), (20, 120))
    assert boxes.tolist() == [[5.0, 30.0, 15.0, 90.0]]
    assert boxes.dtype == np.float32


def test_boxes_that_touch_the_border_still_touch_it_after_the_resize():
    boxes = resize_boxes(np.array([[0.0, 0.0, 427.0, 641.0]], np.float32), (427, 641), (800, 1201))
    assert boxes.tolist() == [[0.0, 0.0, 800.0, 1201.0]]


def test_a_flipped_box_lies_where_its_pixels_lie():
    image = np.zeros((4, 10, 3), np.uint8)
    image[1:3, 2:5] = 255
    y0, x0, y1, x1 = flip_boxes(np.array([[1.0, 2.0, 3.0, 5.0]], np.float32), 10)[0].astype(int)
    assert (y0, x0, y1, x1) == (1, 5, 3, 8)
    flipped = flip_image(image)
    assert flipped[y0:y1, x0:x1].min() == 255
    assert flipped.sum() == image.sum()


def test_an_empty_array_of_boxes_stays_empty():
    none = np.zeros((0, 4), np.float32)
    assert flip_boxes(none, 10).shape == (0, 4)
    assert resize_boxes(none, (4, 4), (8, 8)).shape == (0, 4)


def test_an_image_of_the_right_size_is_not_resized():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert resize_image(image, (5, 7)) is image


def test_enlarging_is_bilinear_with_half_pixel_centres():
    # Two pixels, 0 and 100, become four. On the axis of the old centres 0 and 1 the new ones lie at -0.25, 0.25, 0.75, 1.25.
    image = np.array([[[0] * 3, [100] * 3]], np.uint8)
    assert resize_image(image, (1, 4))[0, :, 0].tolist() == [0, 25, 75, 100]


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.tile(np.array([0, 200], np.uint8)[None, :, None], (64, 32, 3))
    small = resize_image(stripes, (8, 8))
    assert np.abs(small.astype(int) - 100).max() <= 10


def test_draws_depend_on_seed_and_sample_only_and_differ_between_samples():
    config = InputConfig(scale_jitter=(0.8, 1.25))
    flips, factors = _draws(config, 7, 30)
    again = _draws(config, 7, 30)
    assert (flips == again[0]).all()
    assert (factors == again[1]).all()
    assert len(set(factors)) == 30
    assert (factors != _draws(config, 8, 30)[1]).all()


def test_draws_have_the_configured_range_and_probability():
    flips, factors = _draws(InputConfig(scale_jitter=(0.5, 2.0), flip=0.5), 0, 400)
    assert factors.min() >= 0.5
    assert factors.max() <= 2.0
    assert abs(factors.mean() - 1.25) < 0.1  # 5 standard errors
    assert abs(flips.mean() - 0.5) < 0.125  # 5 standard errors
    assert not _draws(InputConfig(flip=0.0), 0, 20)[0].any()
    assert _draws(InputConfig(flip=1.0), 0, 20)[0].all()
    assert (_draws(InputConfig(), 0, 20)[1] == 1.0).all()


SIDES = (640, 672, 704, 736, 768, 800)


def _sides(config: InputConfig, seed: int, count: int, first: int = 0) -> list[int]:
    return [int(draw_short_side(config, seed, tf.constant(i, tf.int64))) for i in range(first, first + count)]


def test_short_sides_depend_on_seed_and_sample_only_and_all_come_alike():
    config = InputConfig(train_short_sides=SIDES)
    drawn = _sides(config, 7, 600)
    assert drawn[100:110] == _sides(config, 7, 10, first=100)
    assert drawn[:50] != _sides(config, 8, 50)
    counts = np.array([drawn.count(side) for side in SIDES])
    assert counts.sum() == 600
    assert abs(counts - 100).max() < 5 * np.sqrt(600 * 5 / 36)  # 5 standard deviations


def test_the_other_draws_are_the_same_with_and_without_short_sides():
    plain, sides = InputConfig(scale_jitter=(0.5, 2.0)), InputConfig(scale_jitter=(0.5, 2.0), train_short_sides=SIDES)
    assert np.array_equal(_draws(plain, 3, 20), _draws(sides, 3, 20))
    assert _sides(plain, 3, 20) == [800] * 20


def test_the_draws_are_those_of_version_0_1_0():
    flips, factors = _draws(InputConfig(scale_jitter=(0.5, 2.0)), 7, 4)
    assert flips.tolist() == [False, True, False, True]
    expected = [1.1684964852134292, 0.6487590951207318, 1.6082661055388554, 1.6969491720538548]
    np.testing.assert_allclose(factors, expected, rtol=1e-15)


def test_the_short_side_does_not_follow_the_flip():
    config = InputConfig(train_short_sides=(600, 800))
    flips = _draws(config, 0, 400)[0]
    larger = np.array(_sides(config, 0, 400)) == 800
    assert abs((flips == larger).mean() - 0.5) < 0.125  # 5 standard errors


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((480, 640), 640, (640, 853)),  # times 1.3333
        ((480, 640), 800, (800, 1067)),
        ((400, 1000), 640, (533, 1333)),  # the longer side decides at 1333 for every short side above 533
        ((400, 1000), 480, (480, 1200)),
        ((1000, 400), 672, (1333, 533)),
    ],
)
def test_a_drawn_short_side_keeps_the_limit_of_the_long_side(size, short_side, expected):
    """detectron2's ResizeShortestEdge: scale = size / min(h, w), and max_size / max(h, w) where that is smaller."""
    assert tuple(resized_sizes(np.array(size), InputConfig(train_short_sides=SIDES), short_side=short_side)) == expected


def test_the_largest_training_input_has_the_largest_side_that_can_be_drawn():
    assert largest_training_input(InputConfig(train_short_sides=(640, 900, 800))).short_side == 900
    assert (
        largest_training_input(InputConfig(short_side=96, long_side=640, train_short_sides=(64, 80))).short_side == 80
    )
    assert largest_training_input(InputConfig()) == InputConfig()
