"""Tests where the windows of segments lie, and what is cut out of the levels for them."""

import numpy as np
import pytest
from keras import ops

from kfpn.ops.segment_windows import usable_windows, window_boxes, window_count, window_grids, window_patches
from tests.modeling import tiny

PAPER = (32.0, 64.0, 128.0, 256.0, 512.0)


def segments(**changes):
    return tiny.config(task="segments", **changes)


def test_windows_reach_a_quarter_beyond_the_objects_and_those_of_7x7_are_larger_by_the_root_of_two():
    grids = window_grids(segments(anchor_sizes=PAPER))
    assert [grid.side for grid in grids[:5]] == [40.0, 80.0, 160.0, 320.0, 640.0]
    np.testing.assert_allclose([grid.side for grid in grids[5:]], np.sqrt(2) * np.array([40, 80, 160, 320, 640]))
    assert [(grid.kind, grid.level, grid.stride) for grid in grids[4:6]] == [("5x5", "P6", 64), ("7x7", "P2", 4)]
    assert [grid.kind for grid in window_grids(segments(segment_windows="7x7"))] == ["7x7"] * 5


def test_windows_are_centred_on_cell_times_stride_level_after_level():
    config = segments(segment_windows="5x5", anchor_sizes=PAPER)
    counts = [(2, 3), (1, 2), (1, 1), (1, 1), (1, 1)]
    boxes = np.array(window_boxes(counts, config))
    assert boxes.shape == (6 + 2 + 3, 4)
    np.testing.assert_array_equal(boxes[0], [-20, -20, 20, 20])
    np.testing.assert_array_equal(boxes[4], [4 - 20, 4 - 20, 4 + 20, 4 + 20])  # row 1, column 1 of P2
    np.testing.assert_array_equal(boxes[7], [-40, 8 - 40, 40, 8 + 40])  # row 0, column 1 of P3


def test_windows_are_counted_and_those_in_padding_are_not_usable():
    config = segments()
    cells = 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2
    assert window_count(config, 64, 96) == 2 * cells
    assert window_count(segments(segment_windows="5x5"), 64, 96) == cells
    counts = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    usable = np.array(usable_windows(counts, np.array([[64, 96], [33, 40]]), config))
    assert usable.shape == (2, 2 * cells)
    assert usable[0].all()
    inside = 9 * 10 + 5 * 5 + 3 * 3 + 2 * 2 + 1 * 1
    assert usable[1].sum() == 2 * inside
    assert usable[1, :11].tolist() == [True] * 10 + [False]


@pytest.mark.parametrize(("kind", "cells"), [("5x5", 5), ("7x7", 7)])
def test_a_patch_is_the_window_of_its_level_with_zeros_beyond(kind, cells):
    config, rng, margin = segments(), np.random.default_rng(0), cells // 2
    shapes = {"P2": (6, 9), "P3": (3, 5), "P4": (2, 3), "P5": (1, 2), "P6": (1, 1)}
    levels = {name: rng.normal(size=(2, *shape, 4)).astype("float32") for name, shape in shapes.items()}
    places = [(name, y, x) for name, (height, width) in shapes.items() for y in range(height) for x in range(width)]
    # Windows of the second kind are counted behind all of the first.
    index = np.array([[0, 53, 54, len(places) - 1], [len(places) + 30, len(places) + 2, 68, 75]], "int32")
    patches = np.array(window_patches({k: ops.convert_to_tensor(v) for k, v in levels.items()}, index, kind, config))
    assert patches.shape == (8, cells, cells, 4)
    for row, number in enumerate(index.ravel()):
        name, y, x = places[number % len(places)]
        around = np.pad(levels[name][row // 4], ((margin, margin), (margin, margin), (0, 0)))
        np.testing.assert_array_equal(patches[row], around[y : y + cells, x : x + cells])
