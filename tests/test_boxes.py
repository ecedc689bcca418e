import math

import numpy as np
import pytest

from kfpn import boxes


def test_area_is_height_times_width_and_zero_when_inverted():
    got = np.array(boxes.area(np.array([[0, 0, 2, 3], [1, 1, 1, 5], [4, 4, 2, 8]], "float32")))
    np.testing.assert_array_equal(got, [6, 0, 0])


def test_iou_by_hand():
    a = np.array([[0, 0, 4, 4], [10, 10, 20, 20]], "float32")
    b = np.array([[0, 2, 4, 6], [0, 0, 4, 4], [0, 0, 0, 0], [4, 0, 8, 4]], "float32")
    # 4x2 shared of 16 + 16 - 8; itself; an empty box; a neighbour that touches (half-open: nothing shared).
    np.testing.assert_allclose(np.array(boxes.iou(a, b)), [[8 / 24, 1, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_iou_of_two_empty_boxes_is_zero_not_nan():
    empty = np.zeros((1, 4), "float32")
    assert float(boxes.iou(empty, empty)[0, 0]) == 0.0


def test_iou_keeps_batch_dimensions():
    a, b = np.random.default_rng(0).uniform(0, 9, (2, 3, 5, 4)).astype("float32"), np.zeros((2, 3, 7, 4), "float32")
    assert boxes.iou(a, b).shape == (2, 3, 5, 7)


def test_intersection_over_area_is_the_share_of_the_first_box():
    a, b = np.array([[0, 0, 4, 4]], "float32"), np.array([[0, 0, 2, 100]], "float32")
    assert float(boxes.intersection_over_area(a, b)[0, 0]) == pytest.approx(0.5)


def test_encode_by_hand():
    anchor, box = np.array([0, 0, 10, 20], "float32"), np.array([5, 0, 25, 10], "float32")
    # centre (15, 5) from (5, 10): 10 / 10 and -5 / 20; sides 20 / 10 and 10 / 20.
    want = [1.0, -0.25, math.log(2), -math.log(2)]
    np.testing.assert_allclose(np.array(boxes.encode(box, anchor)), want, rtol=1e-6)
    weighted = np.array(boxes.encode(box, anchor, boxes.HEAD_WEIGHTS))
    np.testing.assert_allclose(weighted, np.array(want) * (10, 10, 5, 5), rtol=1e-6)


@pytest.mark.parametrize("weights", [boxes.RPN_WEIGHTS, boxes.HEAD_WEIGHTS])
def test_decode_undoes_encode(weights):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, (2, 50, 2))
    box, anchor = np.concatenate([start, start + rng.uniform(1, 50, (2, 50, 2))], -1).astype("float32")
    back = boxes.decode(boxes.encode(box, anchor, weights), anchor, weights)
    np.testing.assert_allclose(np.array(back), box, atol=1e-3)


def test_decode_clamps_growth_at_1000_over_16():
    got = np.array(boxes.decode(np.array([0, 0, 99, 99], "float32"), np.array([0, 0, 16, 16], "float32")))
    np.testing.assert_allclose(got, [8 - 500, 8 - 500, 8 + 500, 8 + 500], rtol=1e-5)


def test_clip_uses_each_images_own_size():
    box = np.tile(np.array([-5, -5, 500, 500], "float32"), (2, 3, 1))
    got = np.array(boxes.clip(box, np.array([[10, 20], [30, 40]], "int32")))
    np.testing.assert_array_equal(got[0, 1], [0, 0, 10, 20])
    np.testing.assert_array_equal(got[1, 2], [0, 0, 30, 40])
