"""Checks the colour jitter by hand arithmetic."""

import numpy as np
import pytest

from kfpn.config.run import InputConfig
from kfpn.data.picture_changes import Picture, color_jitter, color_matrix, four_strengths
from kfpn.data.views import random_numbers


class Chance:
    """Gives the numbers that it was made with."""

    def __init__(self, *numbers):
        self.numbers = np.array(numbers)

    def random(self, count):
        assert count == len(self.numbers)
        return self.numbers


def picture_of(*pixels):
    image = np.array([pixels], np.uint8)
    return Picture(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool))


def changed(picture, strengths, *numbers):
    return color_jitter(picture, InputConfig(color_jitter=strengths), Chance(*numbers)).image[0].tolist()


GRAYS = picture_of([100] * 3, [200] * 3)
COLORS = picture_of([200, 100, 50], [0, 0, 0])


def test_one_strength_is_that_of_all_and_a_quarter_of_it_of_the_hue():
    assert four_strengths((0.4,)) == (0.4, 0.4, 0.4, 0.1)
    assert four_strengths((0.1, 0.2, 0.3, 0.05)) == (0.1, 0.2, 0.3, 0.05)


def test_brightness_multiplies_values_and_clips_them():
    assert changed(GRAYS, (0.5, 0.0, 0.0, 0.0), 1.0, 0.5, 0.5, 0.5) == [[150] * 3, [255] * 3]  # 1.5 times
    assert changed(GRAYS, (0.5, 0.0, 0.0, 0.0), 0.0, 0.5, 0.5, 0.5) == [[50] * 3, [100] * 3]
    assert changed(GRAYS, (1.0,), 0.0, 0.5, 0.5, 0.5) == [[0] * 3, [0] * 3]


def test_contrast_multiplies_the_distance_from_the_mean_gray():
    assert changed(GRAYS, (0.0, 0.5, 0.0, 0.0), 0.5, 1.0, 0.5, 0.5) == [[75] * 3, [225] * 3]  # the mean is 150
    assert changed(GRAYS, (0.0, 1.0, 0.0, 0.0), 0.5, 0.0, 0.5, 0.5) == [[150] * 3, [150] * 3]


def test_brightness_comes_before_contrast():
    # 50 and 100, whose mean is 75: the distance becomes 1.5 times as large.
    assert changed(GRAYS, (0.5, 0.5, 0.0, 0.0), 0.0, 1.0, 0.5, 0.5) == [[38] * 3, [113] * 3]


def test_without_saturation_each_pixel_is_its_gray():
    # .299 * 200 + .587 * 100 + .114 * 50 = 124.2
    assert changed(COLORS, (0.0, 0.0, 1.0, 0.0), 0.5, 0.5, 0.0, 0.5) == [[124] * 3, [0] * 3]
    # half as far from gray as before: 162.1, 112.1, 87.1
    assert changed(COLORS, (0.0, 0.0, 0.5, 0.0), 0.5, 0.5, 0.0, 0.5) == [[162, 112, 87], [0, 0, 0]]


def test_half_a_turn_of_the_hue_makes_the_opposite_colour_of_the_same_gray():
    # Twice the gray less the colour: 48.4, 148.4, 198.4.
    assert changed(COLORS, (0.0, 0.0, 0.0, 0.5), 0.5, 0.5, 0.5, 1.0) == [[48, 148, 198], [0, 0, 0]]
    assert changed(GRAYS, (0.0, 0.0, 0.0, 0.5), 0.5, 0.5, 0.5, 0.8) == [[100] * 3, [200] * 3]


def test_a_third_of_a_turn_brings_red_near_to_blue_or_green():
    for hue, largest in ((1 / 3, 2), (-1 / 3, 1)):
        values = color_matrix(1.0, 1.0, 1.0, hue, 0.0)[:, :3] @ np.array([200.0, 40.0, 40.0])
        assert values.argmax() == largest, values


def test_nothing_drawn_changes_nothing():
    assert np.allclose(color_matrix(1.0, 1.0, 1.0, 0.0, 99.0), np.eye(3, 4))
    noise = Picture(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8), *GRAYS[1:])
    for image in (noise.image, noise.image[::-1, ::-1]):
        same = color_jitter(noise._replace(image=image), InputConfig(color_jitter=(0.9,)), Chance(0.5, 0.5, 0.5, 0.5))
        assert np.array_equal(same.image, image)


def test_strengths_bound_what_is_drawn():
    config = InputConfig(color_jitter=(0.5, 0.0, 0.0, 0.0))
    values = [
        color_jitter(GRAYS, config, random_numbers(0, sample, "color_jitter")).image[0, 0, 0] for sample in range(200)
    ]
    assert 50 <= min(values) < 55
    assert 145 < max(values) <= 150
    assert values == [
        color_jitter(GRAYS, config, random_numbers(0, s, "color_jitter")).image[0, 0, 0] for s in range(200)
    ]


@pytest.mark.parametrize("strengths", [(0.0,), (0.0, 0.0, 0.0, 0.0)])
def test_no_strength_changes_nothing(strengths):
    chance = np.random.default_rng(0)
    assert np.array_equal(color_jitter(COLORS, InputConfig(color_jitter=strengths), chance).image, COLORS.image)
