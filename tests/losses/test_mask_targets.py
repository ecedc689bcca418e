"""Tests what the mask head should predict: the cells of a RoI that lie at least half in its object."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.losses.mask_targets import grid_targets

SIDE, S = 28, 112


def targets_of(grid, box, rois, side=SIDE):
    masks, boxes = np.asarray(grid, "uint8")[None, None], np.array([[box]], "float32")
    index = np.zeros((1, len(rois)), "int32")
    return np.array(grid_targets(masks, boxes, np.array([rois], "float32"), index, side))[0]


def left_half():
    grid = np.zeros((S, S))
    grid[:, : S // 2] = 1
    return grid


def test_a_roi_that_is_its_objects_box_sees_the_mask_as_it_is():
    (target,) = targets_of(left_half(), [10, 20, 70, 140], [[10, 20, 70, 140]])
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, np.repeat([[1.0] * 14 + [0.0] * 14], SIDE, axis=0))


def test_half_a_cell_is_inside_whatever_the_rounding_of_the_box():
    # Rows of the grid are 1, 1, 0, 0 and so on: each cell of the RoI, four rows high, is half covered.
    grid = np.zeros((S, S))
    grid[np.arange(S) % 4 < 2] = 1
    for box in ([0, 0, 28, 28], [10.1, 20.7, 43.4, 61.3], [3e3 / 7, 0.1, 1e3, 777.7]):
        assert targets_of(grid, box, [box]).all()
    grid[0] = 0
    (target,) = targets_of(grid, [0, 0, 28, 28], [[0, 0, 28, 28]])
    assert not target[0].any()
    assert target[1:].all()


def test_a_roi_beside_the_object_sees_the_part_that_lies_in_it():
    # The object fills its box, rows 0 to 28 and columns 0 to 28. The RoI is as large and begins 7 lower and 14 farther right.
    (target,) = targets_of(np.ones((S, S)), [0, 0, 28, 28], [[7, 14, 35, 42]])
    expected = np.zeros((SIDE, SIDE))
    expected[:21, :14] = 1
    np.testing.assert_array_equal(target, expected)


def test_a_roi_far_away_sees_nothing_and_empty_boxes_and_rois_give_finite_numbers():
    rois = [[500, 500, 600, 600], [4, 4, 4, 4], [0, 0, 0, 0]]
    assert not targets_of(np.ones((S, S)), [0, 0, 28, 28], rois)[[0, 2]].any()
    assert np.isfinite(targets_of(np.ones((S, S)), [0, 0, 0, 0], rois)).all()


def test_each_roi_sees_its_own_object_of_its_own_image():
    masks = np.zeros((2, 2, S, S), "uint8")
    masks[0, 1], masks[1, 0, : S // 2] = 1, 1
    boxes = np.tile(np.array([0, 0, 56, 56], "float32"), (2, 2, 1))
    rois = np.tile(np.array([0, 0, 56, 56], "float32"), (2, 2, 1))
    index = np.array([[1, 0], [0, 1]], "int32")
    shares = np.array(grid_targets(masks, boxes, rois, index, SIDE)).mean((2, 3))
    np.testing.assert_array_equal(shares, [[1.0, 0.0], [0.5, 0.0]])


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_finely_counted_areas(seed):
    rng = np.random.default_rng(seed)
    grid = (rng.random((16, 16)) > 0.5).repeat(7, 0).repeat(7, 1)
    box = np.array([3.0, 5.0, 45.0, 77.0])
    roi = box + rng.uniform(-6, 6, 4)
    fine = 40
    rows, columns = (
        ((roi[a] + (np.arange(SIDE * fine) + 0.5) * (roi[a + 2] - roi[a]) / (SIDE * fine)) - box[a])
        * S
        / (box[a + 2] - box[a])
        for a in (0, 1)
    )
    inside = ((rows >= 0) & (rows < S))[:, None] & ((columns >= 0) & (columns < S))[None]
    cells = grid[np.clip(rows, 0, S - 1).astype(int)[:, None], np.clip(columns, 0, S - 1).astype(int)[None]] & inside
    shares = cells.reshape(SIDE, fine, SIDE, fine).mean((1, 3))
    (target,) = targets_of(grid, box, [roi])
    sure = np.abs(shares - 0.5) > 0.02
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(target[sure], (shares >= 0.5)[sure])


def test_a_compiled_step_has_the_same_targets():
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 3, S, S)) > 0.4).astype("uint8")
    boxes = rng.uniform(0, 40, (2, 3, 2)).astype("float32")
    boxes = np.concatenate([boxes, boxes + rng.uniform(5, 60, (2, 3, 2)).astype("float32")], -1)
    index = rng.integers(0, 3, (2, 5)).astype("int32")
    rois = np.take_along_axis(boxes, index[..., None], 1) + rng.uniform(-2, 2, (2, 5, 4)).astype("float32")
    plain = grid_targets(masks, boxes, rois, index, SIDE)
    compiled = tf.function(grid_targets, jit_compile=True)(
        tf.constant(masks), tf.constant(boxes), tf.constant(rois), tf.constant(index), SIDE
    )
    assert (np.array(plain) != np.array(compiled)).sum() == 0
