"""Checks by marked pixels that training sees tiles of images, drawn by the seed and the sample, with the boxes of what they show."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from kfpn.config.auto_facts import DataFacts
from kfpn.config.run import Config, InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.pipeline import train_batches
from kfpn.data.record import Record
from kfpn.data.training_sample import training_sample
from kfpn.data.views import choose_view, training_sizes

INPUT = InputConfig(short_side=64, long_side=64, flip=0.0, tile=64)


def source_of(image, boxes, size):
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (rows[:, 2:] - rows[:, :2]).prod(-1)
    labels, crowd = np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), bool)
    names = [f"class {label}" for label in range(max(len(rows), 1))]
    return IterableSource([Record(image, 1, *size, rows, labels, crowd, areas, "photo")], names)


def sample_of(source, config, number):
    load = training_sample(source, config)
    image, size, boxes, labels, _ = load(0, number, False, 1.0, config.input.short_side, np.array([64, 64], np.int32))
    return image, size.tolist(), boxes[labels >= 0], labels[labels >= 0]


def test_a_sample_is_a_tile_with_an_object_whose_box_encloses_its_pixels():
    image = np.zeros((300, 400, 3), np.uint8)
    image[200:210, 300:320], image[10:30, 20:26] = 255, 100
    source = source_of(image, [(200, 300, 210, 320), (10, 20, 30, 26)], (300, 400))
    config = Config(data="one", input=INPUT)
    places, labels_seen = set(), set()
    for number in range(40):
        pixels, size, boxes, labels = sample_of(source, config, number)
        assert pixels.shape == (64, 64, 3)
        assert size == [64, 64]
        assert len(labels) == 1  # the two are farther apart than a tile is large
        (top, left, bottom, right), value = boxes[0].astype(int), (255, 100)[labels[0]]
        assert (pixels[top:bottom, left:right] == value).all()
        assert (pixels == value).sum() == 3 * (bottom - top) * (right - left)
        assert (bottom - top) * (right - left) >= 0.3 * (200, 120)[labels[0]]
        places.add((top, left))
        labels_seen.add(int(labels[0]))
    assert len(places) > 30
    assert labels_seen == {0, 1}
    again = sample_of(source, config, 5)[0]
    np.testing.assert_array_equal(again, sample_of(source, config, 5)[0])
    other = dataclasses.replace(config, seed=1)
    assert any(
        (sample_of(source, other, number)[0] != sample_of(source, config, number)[0]).any() for number in range(3)
    )


def test_a_tile_lies_anywhere_in_an_image_without_objects():
    views = [choose_view((300, 400), np.zeros((0, 4), np.float32), INPUT, 0, number) for number in range(300)]
    tops, lefts = np.array([view.window[:2] for view in views]).T
    assert all(
        view.window == (top, left, top + 64, left + 64) for view, top, left in zip(views, tops, lefts, strict=True)
    )
    assert tops.min() < 15 < 220 < tops.max() <= 236
    assert lefts.min() < 20 < 316 < lefts.max() <= 336


def test_an_object_larger_than_a_tile_has_its_tile_inside():
    box = np.array([(50, 50, 290, 390)], np.float32)
    config = dataclasses.replace(INPUT, crop_keep=1.0)  # so that no place of chance keeps it
    for number in range(20):
        top, left, bottom, right = choose_view((300, 400), box, config, 0, number).window
        assert (bottom - top, right - left) == (64, 64)
        assert top >= 50 and left >= 50 and bottom <= 290 and right <= 390  # noqa: PT018


@pytest.mark.parametrize(("size", "expected"), [((40, 50), (40, 50)), ((40, 500), (40, 64)), ((500, 500), (64, 64))])
def test_images_smaller_than_a_tile_are_seen_whole_along_that_side(size, expected):
    assert tuple(training_sizes(np.array(size), INPUT).tolist()) == expected
    top, left, bottom, right = choose_view(size, np.zeros((0, 4), np.float32), INPUT, 0, 3).window
    assert (bottom - top, right - left) == expected


def test_a_large_jpeg_is_decoded_whole_for_its_tiles(tmp_path):
    # Stripes of 2 pixels are lost where a JPEG is decoded at a fraction.
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::4], stripes[:, 1::4] = 255, 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    source = source_of(str(tmp_path / "a.jpg"), [], (512, 512))
    pixels = sample_of(source, Config(data="one", input=INPUT), 0)[0]
    assert pixels.min() < 30
    assert pixels.max() > 225


def test_canvases_have_the_shape_of_tiles_and_other_options_act_within_them():
    image = np.full((300, 500, 3), 77, np.uint8)
    source = source_of(image, [(100, 100, 130, 140)], (300, 500))
    changed = dataclasses.replace(INPUT, flip=0.5, crop=0.5, turn=0.5, flip_vertical=0.5)
    config = Config(data="one", batch_size=2, input=changed)
    for batch in train_batches(source, config).take(2):
        assert tuple(batch["images"].shape) == (2, 64, 64, 3)
        assert (batch["gt_labels"].numpy()[:, 0] == 0).all()
        assert (batch["gt_boxes"].numpy() <= 64).all()


def test_fixed_proposals_refuse_tiles_and_a_tile_has_at_least_32_pixels():
    with pytest.raises(ValueError, match=r"input\.tile must be off with fixed proposals"):
        Config(proposals="p.npz", input=INPUT)
    for wrong in (31, -1, 64.0, True):
        with pytest.raises(ValueError, match=r"input\.tile must be an integer of at least 32, or 0 for none"):
            InputConfig(tile=wrong)


def test_the_rules_of_auto_reckon_with_tiles():
    of_images, of_boxes = np.array([(3000, 4000), (500, 400)]), np.array([(3000, 4000)] * 2)
    boxes = np.array([(0, 0, 64, 32), (100, 100, 1100, 120)], np.float32)
    facts = DataFacts(2, of_images, boxes, of_boxes, np.array([1, 1]), np.array([2])).in_tiles(640)
    assert facts.image_sizes.tolist() == [[640, 640], [500, 400]]
    assert facts.box_image_sizes.tolist() == [[640, 640]] * 2
    assert facts.boxes.tolist() == [[0, 0, 64, 32], [100, 100, 740, 120]]
