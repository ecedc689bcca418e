"""Checks by marked pixels that what is pasted has its box and its mask, and that what it covers has lost them."""

import dataclasses

import numpy as np
import pytest

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, InputConfig
from kfpn.data.copy_paste import paste_objects
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.picture_changes import Picture
from kfpn.data.training_sample import training_sample
from tests.data.test_mask_moves import CANVAS, config, marked_source


class Chance:
    """Stands for a generator that chooses the first place and every object."""

    def __init__(self, taken=0.0):
        self.taken = taken

    def random(self, size):
        return np.zeros(size) if size == 2 else np.full(size, self.taken)


def picture(color, *boxes, size=(20, 30), crowd=False, masks=True):
    outlines = [[[x1, y1, x2, y1, x2, y2, x1, y2]] if masks else None for y1, x1, y2, x2 in boxes]
    flat = np.arange(len(boxes), dtype=np.int32), np.full(len(boxes), crowd)
    image = np.full((*size, 3), color, np.uint8)
    return Picture(image, np.array(boxes, np.float32).reshape(-1, 4), *flat, ObjectMasks.of(outlines, size))


def test_an_object_is_pasted_with_its_box_and_its_mask():
    made = paste_objects(picture(10, (0, 0, 5, 5)), picture(90, (10, 10, 18, 20)), 0.3, Chance())
    assert made.boxes.tolist() == [[0, 0, 5, 5], [10, 10, 18, 20]]
    assert made.labels.tolist() == [0, 0]
    pasted = made.masks.bitmap(1)
    assert pasted.sum() == 80
    assert (made.image[pasted] == 90).all()
    assert (made.image[~pasted] == 10).all()


def test_what_is_covered_is_taken_from_the_mask_and_the_box_below():
    made = paste_objects(picture(10, (0, 0, 10, 10)), picture(90, (0, 5, 10, 15)), 0.3, Chance())
    assert made.boxes.tolist() == [[0, 0, 10, 5], [0, 5, 10, 15]]
    assert not (made.masks.bitmap(0) & made.masks.bitmap(1)).any()
    assert made.masks.areas().tolist() == [50, 100]


@pytest.mark.parametrize(("least", "count"), [(0.4, 2), (0.6, 1)])
@pytest.mark.parametrize("masks", [True, False])
def test_an_object_of_which_too_little_is_left_is_dropped(least, count, masks):
    below = picture(10, (0, 0, 10, 10), masks=masks)
    made = paste_objects(below, picture(90, (0, 5, 10, 15)), least, Chance())
    assert len(made.boxes) == len(made.masks) == len(made.labels) == len(made.crowd) == count


def test_crowd_regions_stay_below_and_are_not_pasted():
    made = paste_objects(picture(10, (0, 0, 10, 10), crowd=True), picture(90, (0, 0, 20, 30)), 0.3, Chance())
    assert made.crowd.tolist() == [True, False]
    below = picture(10, (0, 0, 10, 10))
    assert paste_objects(below, picture(90, (0, 0, 20, 30), crowd=True), 0.3, Chance()) is below


def test_nothing_is_pasted_where_no_object_is_chosen_or_none_has_a_mask():
    below = picture(10, (0, 0, 10, 10))
    for other in (picture(90), picture(90, (0, 0, 5, 5), masks=False)):
        assert paste_objects(below, other, 0.3, Chance()) is below
    assert paste_objects(below, picture(90, (0, 0, 5, 5)), 0.3, Chance(taken=0.9)) is below


def test_an_object_whose_mask_has_no_pixel_is_not_pasted():
    below, other = picture(10, (0, 0, 10, 10)), picture(90, (10, 10, 18, 20), (2, 12, 6, 20))
    hidden = other.masks.without([np.ones((20, 30), bool), None])
    made = paste_objects(below, other._replace(masks=hidden), 0.3, Chance())
    assert made.boxes.tolist() == [[0, 0, 10, 10], [2, 12, 6, 20]]


@pytest.mark.parametrize("size", [(40, 50), (12, 60), (8, 9)])
def test_a_picture_of_another_size_is_cut_or_laid_within(size):
    other = picture(90, (0, 0, 6, 8), (size[0] - 4, size[1] - 4, *size), size=size)
    for seed in range(10):
        made = paste_objects(picture(10), other, 0.3, np.random.default_rng(seed))
        assert (made.boxes >= 0).all()
        assert (made.boxes <= (20, 30, 20, 30)).all()
        for i, (y1, x1, y2, x2) in enumerate(made.boxes.astype(int)):
            assert made.masks.bitmap(i)[y1:y2, x1:x2].all()
            assert (made.image[y1:y2, x1:x2] == 90).all()


def test_training_pastes_as_often_as_it_is_asked_and_a_sample_is_always_the_same():
    # The mirrored image is pasted into itself.
    load = training_sample(marked_source(), config(copy_paste=0.5, flip=1.0))
    plain = training_sample(marked_source(), config())(0, 0, False, 1.0, 60, CANVAS)[0]
    changed = 0
    for sample in range(30):
        made = load(0, sample, False, 1.0, 60, CANVAS)
        again = load(0, sample, False, 1.0, 60, CANVAS)
        assert all(np.array_equal(one, other) for one, other in zip(made, again, strict=True))
        _, _, boxes, labels, _, grids, has_mask = made
        assert len(boxes) == 4
        assert has_mask.tolist() == (labels >= 0).tolist() == grids.any((1, 2)).tolist()
        changed += not np.array_equal(made[0], plain)
    assert 4 <= changed <= 20


def test_copy_paste_without_masks_is_refused():
    with pytest.raises(ValueError, match=r"input.copy_paste must be 0 without masks, got 0.5: .* add --mask"):
        Config(data="one", input=InputConfig(copy_paste=0.5))
    mask = dataclasses.replace(Config(), model=ModelConfig(mask=True), input=InputConfig(copy_paste=0.5))
    assert mask.input.copy_paste == 0.5


def test_a_part_without_a_pixel_of_its_object_is_not_pasted():
    corner = [[0.0, 20, 10, 20, 10, 30, 0, 30]]  # of a box that reaches beyond the picture below
    other = picture(90, (0, 0, 30, 10), size=(30, 10))._replace(masks=ObjectMasks.of([corner], (30, 10)))
    made = paste_objects(picture(10, (0, 0, 5, 5), size=(20, 10)), other, 0.3, Chance())
    assert made.boxes.tolist() == [[0, 0, 5, 5]]
