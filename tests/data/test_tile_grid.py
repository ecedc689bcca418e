"""Checks by hand which tiles cover an image, and what the tiles of a data set hold."""

import numpy as np
import pytest
from PIL import Image

import kfpn.data.tile_source
from kfpn.config.input_config import InputConfig
from kfpn.config.tile_options import Tiles, asked_tiles, tiles_in_force
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.image import load_image
from kfpn.data.record import Record
from kfpn.data.tile_grid import tile_grid, tile_starts
from kfpn.data.tile_source import TileSource


def record_of(image, boxes=(), image_id=7, size=None):
    height, width = size or image.shape[:2]
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (rows[:, 2:] - rows[:, :2]).prod(-1)
    labels, crowd = np.zeros(len(rows), np.int32), np.zeros(len(rows), bool)
    return Record(image, image_id, height, width, rows, labels, crowd, areas, "photo")


@pytest.mark.parametrize(
    ("length", "side", "overlap", "starts"),
    [
        (4000, 640, 0.2, [0, 512, 1024, 1536, 2048, 2560, 3072, 3360]),  # the last one ends with the image
        (3000, 640, 0.2, [0, 512, 1024, 1536, 2048, 2360]),
        (1152, 640, 0.2, [0, 512]),  # 512 + 640: the second one ends with the image by itself
        (1153, 640, 0.2, [0, 512, 513]),
        (641, 640, 0.2, [0, 1]),
        (640, 640, 0.2, [0]),
        (100, 640, 0.2, [0]),
        (100, 50, 0.0, [0, 50]),
        (100, 40, 0.9, [*range(0, 60, 4), 60]),
        (34, 32, 0.9, [0, 2]),
    ],
)
def test_tiles_follow_one_another_and_the_last_one_ends_with_the_image(length, side, overlap, starts):
    assert tile_starts(length, side, overlap) == starts


def test_the_whole_image_comes_first_and_then_row_after_row():
    grid = tile_grid((100, 150), Tiles(64, 0.25))
    rows, columns = (0, 36), (0, 48, 86)
    tiles = [(top, left, top + 64, left + 64) for top in rows for left in columns]
    assert grid.windows.tolist() == [[0, 0, 100, 150], *map(list, tiles)]
    assert tile_grid((100, 150), Tiles(64, 0.25, whole=False)).windows.tolist() == [list(tile) for tile in tiles]
    nan = np.nan
    # End of the tile above, end of the one on the left, start of the one below, start of the one on the right.
    np.testing.assert_array_equal(grid.neighbours[0], [nan] * 4)
    np.testing.assert_array_equal(grid.neighbours[1], [nan, nan, 36, 48])
    np.testing.assert_array_equal(grid.neighbours[2], [nan, 64, 36, 86])
    np.testing.assert_array_equal(grid.neighbours[6], [64, 112, nan, nan])


@pytest.mark.parametrize("whole", [True, False])
def test_an_image_not_larger_than_a_tile_is_looked_at_once(whole):
    assert tile_grid((64, 40), Tiles(64, whole=whole)).windows.tolist() == [[0, 0, 64, 40]]
    assert tile_grid((40, 100), Tiles(64, 0.5, whole=False)).windows.tolist() == [
        [0, 0, 40, 64], [0, 32, 40, 96], [0, 36, 40, 100],
    ]  # fmt: skip


def test_every_pixel_is_in_a_tile():
    for size in ((100, 333), (64, 65), (500, 70)):
        seen = np.zeros(size, bool)
        for top, left, bottom, right in tile_grid(size, Tiles(64, 0.2, whole=False)).windows:
            assert (bottom - top, right - left) == (64, 64)
            seen[top:bottom, left:right] = True
        assert seen.all()


def test_the_tiles_of_images_are_records_with_their_pixels_and_cut_boxes():
    image = np.random.default_rng(0).integers(0, 255, (64, 100, 3)).astype(np.uint8)
    small = np.full((20, 30, 3), 9, np.uint8)
    boxes = [(10, 60, 30, 80), (0, 0, 5, 5)]
    source = IterableSource([record_of(image, boxes), record_of(small, image_id=8)], ["cat"])
    looks = TileSource(source, Tiles(64, 0.5))
    # The whole, then columns at 0, 32, 36.
    assert len(looks) == 5
    assert looks.image_of_tile.tolist() == [0, 0, 0, 0, 1]
    assert looks.sizes.tolist() == [[64, 100], [64, 64], [64, 64], [64, 64], [20, 30]]
    np.testing.assert_array_equal(load_image(looks[3]), image[:, 36:100])
    np.testing.assert_array_equal(load_image(looks[4]), small)
    # In the first column 4 of the 20 columns are seen, a fifth: too little. In the last all of it.
    assert [looks[index].boxes.tolist() for index in range(5)] == [
        [[10, 60, 30, 80], [0, 0, 5, 5]], [[0, 0, 5, 5]], [[10, 28, 30, 48]], [[10, 24, 30, 44]], [],
    ]  # fmt: skip
    assert looks[2].areas.tolist() == [400]
    assert looks[2].image_id == 2


def test_an_image_is_decoded_once_for_all_of_its_tiles(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(kfpn.data.tile_source, "load_image", lambda one: decoded.append(one.name) or load_image(one))
    records = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 200, 3), number, np.uint8)).save(path)
        records.append(record_of(str(path), image_id=number, size=(40, 200)))
    looks = TileSource(IterableSource(records, ["cat"]), Tiles(40))
    for index in range(len(looks)):
        assert (load_image(looks[index]) == looks.image_of_tile[index]).all()
    assert len(decoded) == 5


def test_the_tiles_in_force_are_those_asked_for_else_those_of_the_training():
    trained, plain = InputConfig(tile=300), InputConfig()
    assert tiles_in_force(None, plain) is None
    assert tiles_in_force(None, trained) == Tiles(300)
    assert tiles_in_force(640, trained) == Tiles(640)
    assert tiles_in_force(0, trained) is None
    assert tiles_in_force(Tiles(overlap=0.5), trained) == Tiles(300, 0.5)
    with pytest.raises(ValueError, match="tiles must have a side in pixels, got none"):
        tiles_in_force(Tiles(overlap=0.5), plain)
    assert asked_tiles(None, None, False) is None
    assert asked_tiles(640, None, True) == Tiles(640, 0.2, whole=False)
    assert asked_tiles(None, 0.3, False) == Tiles(None, 0.3)
    with pytest.raises(ValueError, match="overlap must be left out with --tiles 0"):
        asked_tiles(0, 0.3, False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"side": 31}, r"tiles\.side must be an integer of at least 32, or 0 for none, got 31"),
        ({"side": -1}, r"tiles\.side must"),
        ({"side": 64.0}, r"tiles\.side must"),
        ({"side": True}, r"tiles\.side must"),
        ({"side": "64"}, r"tiles\.side must"),
        ({"side": 64, "overlap": 0.95}, r"tiles\.overlap must be a share from 0 to 0\.9, got 0\.95"),
        ({"side": 64, "overlap": float("nan")}, r"tiles\.overlap must be a share"),
        ({"side": 64, "overlap": "0.2"}, r"tiles\.overlap must be a number"),
        ({"side": 64, "whole": "no"}, r"tiles\.whole must be True or False"),
    ],
)
def test_tiles_that_can_not_be_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        Tiles(**values)
