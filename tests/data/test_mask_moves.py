"""Checks by marked pixels that masks stay on what they cover, whatever part of an image is shown and however it is turned."""

import dataclasses

import numpy as np
import pytest

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, SamplingConfig
from kfpn.config.tile_options import Tiles
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.data.tile_source import TileSource
from kfpn.data.training_sample import training_sample
from kfpn.data.views import View
from tests.data.test_views import INPUT, MOVES, OneImage

CANVAS = np.array([64, 96])


def marked_source(as_bitmap=False):
    """Returns an image with a green triangle (label 0) and a blue angle (label 1), which no turn and no mirror leaves as they are."""
    triangle = np.array([[30.0, 20.0], [110.0, 20.0], [30.0, 70.0]])
    angle = [
        np.array([[150.0, 90], [160, 90], [160, 140], [150, 140]]),
        np.array([[150.0, 130], [230, 130], [230, 140], [150, 140]]),
    ]
    masks = ObjectMasks.of([[triangle], angle], (150, 240))
    image = np.full((150, 240, 3), 90, np.uint8)
    image[masks.bitmap(0)] = (0, 255, 0)
    image[masks.bitmap(1)] = (0, 0, 255)
    if as_bitmap:
        masks = ObjectMasks.of([masks.bitmap(0), masks.bitmap(1)], (150, 240))
    boxes = np.array([(20, 30, 70, 110), (90, 150, 140, 230)], np.float32)
    flat = np.zeros(2, bool), np.full(2, 4000.0, np.float32), "marked"
    return OneImage(Record(image, 0, 150, 240, boxes, np.array([0, 1], np.int32), *flat, masks))


def config(**options):
    return Config(data="one", input=dataclasses.replace(INPUT, **options), model=ModelConfig(mask=True))


def pasted(grid, box, size):
    """Says of each pixel whether the cell of the grid under its centre is 1; False outside of the box."""
    (y1, x1, y2, x2), side = box, len(grid)
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    row = np.floor((rows - y1) / (y2 - y1) * side).astype(int)
    column = np.floor((columns - x1) / (x2 - x1) * side).astype(int)
    inside = ((row >= 0) & (row < side))[:, None] & ((column >= 0) & (column < side))
    return np.where(inside, grid[np.clip(row, 0, side - 1)][:, np.clip(column, 0, side - 1)], 0).astype(bool)


@pytest.mark.parametrize("as_bitmap", [False, True])
@pytest.mark.parametrize("move", [*MOVES, "tile"])
def test_pixels_under_a_mask_stay_under_it(move, as_bitmap):
    options = config(**{**MOVES, "tile": {"tile": 100}}[move])
    load, masks_seen = training_sample(marked_source(as_bitmap), options), 0
    for sample in range(12):
        image, size, boxes, labels, _, grids, has_mask = load(
            0, sample, bool(sample % 2 and options.input.flip), 1.0, 60, CANVAS
        )
        height, width = size.tolist()
        assert has_mask.tolist() == (labels >= 0).tolist()
        for box, label, grid in zip(boxes, labels, grids, strict=True):
            if label < 0 or (box[2:] - box[:2]).min() < 4:
                assert label >= 0 or not grid.any()
                continue
            masks_seen += 1
            own = image[:height, :width, 1 + label].astype(int) - image[:height, :width, 2 - label]
            drawn = pasted(grid, box, (height, width))
            assert (own[drawn] > 60).mean() > 0.8  # the rest is the border, which was blended
            assert drawn[own > 200].mean() > 0.9
    assert masks_seen >= 12


@pytest.mark.parametrize("as_bitmap", [False, True])
@pytest.mark.parametrize("rule", ["grid", "polygons"])
def test_a_part_that_shows_no_pixel_of_a_mask_does_not_show_its_object(rule, as_bitmap, monkeypatch):
    # A corner of the triangle's box, beyond its long side.
    monkeypatch.setattr("kfpn.data.training_sample.choose_view", lambda *_: View((50, 80, 150, 240)))
    source = marked_source(as_bitmap)
    options = dataclasses.replace(config(crop_keep=0.1), sampling=SamplingConfig(mask_targets=rule))
    labels_of = lambda: training_sample(source, options)(0, 0, False, 1.0, 60, CANVAS)[3].tolist()  # noqa: E731
    assert labels_of() == [1, -1]
    masks = source.record.masks
    source.record = dataclasses.replace(source.record, masks=ObjectMasks([b"", masks.contents[1]], masks.size))
    assert labels_of() == [0, 1]
    source.record = dataclasses.replace(source.record, masks=masks, crowd=np.array([True, False]))
    assert labels_of() == [0, 1]  # a crowd region stays as long as any part of its box is seen


def test_an_object_without_a_mask_has_its_box_and_zeros():
    source = marked_source()
    contents = ObjectMasks([b"", source.record.masks.contents[1]], (150, 240))
    source.record = dataclasses.replace(source.record, masks=contents)
    _, _, _, labels, _, grids, has_mask = training_sample(source, config())(0, 0, False, 1.0, 60, CANVAS)
    assert labels.tolist() == [0, 1]
    assert has_mask.tolist() == [False, True]
    assert not grids[0].any()
    assert grids[1].any()


def test_records_without_masks_have_none_and_without_a_mask_head_nothing_is_made():
    source = marked_source()
    source.record = dataclasses.replace(source.record, masks=None)
    *_, grids, has_mask = training_sample(source, config())(0, 0, False, 1.0, 60, CANVAS)
    assert grids.shape == (2, 112, 112)
    assert not has_mask.any()
    plain = Config(data="one", input=INPUT)
    assert len(training_sample(marked_source(), plain)(0, 0, False, 1.0, 60, CANVAS)) == 5


def test_an_exact_rule_gets_the_outlines_in_the_pixels_of_the_picture():
    exact = dataclasses.replace(config(), sampling=SamplingConfig(mask_targets="polygons"))
    made = training_sample(marked_source(), exact)(0, 0, True, 1.0, 60, CANVAS)
    image, size, *_, outlines, has_mask = made
    masks = ObjectMasks.from_serialized(outlines)
    assert has_mask.all()
    assert masks.size == tuple(size)
    assert (image[: size[0], : size[1], 1][masks.bitmap(0)] > 60).mean() > 0.9


def test_a_tile_has_the_masks_of_its_objects():
    tiles = TileSource(SizedImage(marked_source().record), Tiles(side=100, overlap=0.2, whole=False))
    seen = 0
    for i in range(len(tiles)):
        record = tiles[i]
        top, left, bottom, right = tiles.windows[i].tolist()
        assert len(record.masks) == len(record.boxes)
        for row, label in enumerate(record.labels.tolist()):
            whole = marked_source().record.masks.bitmap(label)[top:bottom, left:right]
            assert (record.masks.bitmap(row) == whole).all()
            seen += 1
    assert seen >= 2


@dataclasses.dataclass
class SizedImage(OneImage):
    sizes: np.ndarray = dataclasses.field(default_factory=lambda: np.array([[150, 240]], np.int32))
