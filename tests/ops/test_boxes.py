import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpn.ops import boxes

SIXTEENTHS = st.integers(-3200, 3200).map(lambda n: n / 16)  # these numbers and their sums are exact in float32
ANY = st.floats(width=32)
WEIGHTS = st.sampled_from([boxes.RPN_DELTA_SCALE, boxes.HEAD_DELTA_SCALE])


def rows(value, most=6):
    """Returns lists of boxes, four numbers each, some of them inverted or without a side."""
    return st.lists(st.tuples(*[value] * 4), min_size=1, max_size=most)


def with_sides(least, most):
    """Returns boxes with positive sides anywhere near an image."""
    corner, side = st.floats(-2000, 2000, width=32), st.floats(least, most, width=32)
    return st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def array(values):
    return np.array(values, "float32")


def plain_overlap(a, b):
    """Returns (shared, area of a, area of b) of two boxes, number by number."""
    sides = [(max(box[2] - box[0], 0), max(box[3] - box[1], 0)) for box in (a, b)]
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    return max(height, 0) * max(width, 0), sides[0][0] * sides[0][1], sides[1][0] * sides[1][1]


def test_area_is_height_times_width_and_zero_when_inverted():
    got = np.array(boxes.area(np.array([[0, 0, 2, 3], [1, 1, 1, 5], [4, 4, 2, 8]], "float32")))
    np.testing.assert_array_equal(got, [6, 0, 0])


def test_iou_has_the_values_computed_by_hand():
    a = np.array([[0, 0, 4, 4], [10, 10, 20, 20]], "float32")
    b = np.array([[0, 2, 4, 6], [0, 0, 4, 4], [0, 0, 0, 0], [4, 0, 8, 4]], "float32")
    # The first box of b shares 4 x 2 with the first of a, of 16 + 16 - 8 in all. The second is the same box, the third is
    # empty, and the fourth is a neighbour that shares nothing.
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


def test_encoded_deltas_are_those_computed_by_hand():
    anchor, box = np.array([0, 0, 10, 20], "float32"), np.array([5, 0, 25, 10], "float32")
    # The centre moves from (5, 10) to (15, 5): 10 / 10 and -5 / 20. The sides change by 20 / 10 and 10 / 20.
    expected = [1.0, -0.25, math.log(2), -math.log(2)]
    np.testing.assert_allclose(np.array(boxes.encode_boxes(box, anchor)), expected, rtol=1e-6)
    weighted = np.array(boxes.encode_boxes(box, anchor, boxes.HEAD_DELTA_SCALE))
    np.testing.assert_allclose(weighted, np.array(expected) * (10, 10, 5, 5), rtol=1e-6)


@pytest.mark.parametrize("weights", [boxes.RPN_DELTA_SCALE, boxes.HEAD_DELTA_SCALE])
def test_decode_undoes_encode(weights):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, (2, 50, 2))
    box, anchor = np.concatenate([start, start + rng.uniform(1, 50, (2, 50, 2))], -1).astype("float32")
    back = boxes.decode_boxes(boxes.encode_boxes(box, anchor, weights), anchor, weights)
    np.testing.assert_allclose(np.array(back), box, atol=1e-3)


def test_decode_clamps_growth_at_1000_over_16():
    got = np.array(boxes.decode_boxes(np.array([0, 0, 99, 99], "float32"), np.array([0, 0, 16, 16], "float32")))
    np.testing.assert_allclose(got, [8 - 500, 8 - 500, 8 + 500, 8 + 500], rtol=1e-5)


def test_clip_uses_each_images_own_size():
    box = np.tile(np.array([-5, -5, 500, 500], "float32"), (2, 3, 1))
    got = np.array(boxes.clip(box, np.array([[10, 20], [30, 40]], "int32")))
    np.testing.assert_array_equal(got[0, 1], [0, 0, 10, 20])
    np.testing.assert_array_equal(got[1, 2], [0, 0, 30, 40])


@settings(max_examples=60, deadline=None)
@given(rows(SIXTEENTHS), rows(SIXTEENTHS))
def test_overlaps_are_those_of_a_plain_loop(first, second):
    shared, iou, share = (
        np.array(function(array(first), array(second)))
        for function in (boxes.intersection, boxes.iou, boxes.intersection_over_area)
    )
    np.testing.assert_allclose(boxes.area(array(first)), [plain_overlap(a, a)[1] for a in first], rtol=1e-6)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            common, area_a, area_b = plain_overlap(a, b)
            union = area_a + area_b - common
            expected = [common, common / union if union > 0 else 0.0, common / area_a if area_a > 0 else 0.0]
            np.testing.assert_allclose([shared[i, j], iou[i, j], share[i, j]], expected, rtol=1e-5, err_msg=f"{a} {b}")


@settings(max_examples=60, deadline=None)
@given(rows(ANY), rows(ANY))
def test_an_iou_lies_in_0_to_1_for_any_numbers(first, second):
    one, two = np.array(boxes.iou(array(first), array(second))), np.array(boxes.iou(array(second), array(first)))
    assert (one >= 0).all()  # false for NaN
    assert (one <= 1 + 1e-6).all()
    np.testing.assert_array_equal(one, two.T)


@settings(max_examples=60, deadline=None)
@given(with_sides(0.125, 4000), with_sides(0.125, 4000), WEIGHTS)
def test_decode_undoes_encode_until_growth_is_clamped(box, anchor, weights):
    box, anchor = array(box), array(anchor)
    back = np.array(boxes.decode_boxes(boxes.encode_boxes(box, anchor, weights), anchor, weights))
    sides, of_anchor = box[2:] - box[:2], anchor[2:] - anchor[:2]
    centre, clamped = (box[:2] + box[2:]) / 2, np.minimum(sides, of_anchor * 1000 / 16)
    np.testing.assert_allclose((back[:2] + back[2:]) / 2, centre, atol=2e-3)
    np.testing.assert_allclose(back[2:] - back[:2], clamped, rtol=1e-4, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 4), with_sides(1, 4000))
def test_boxes_without_sides_or_inverted_have_finite_deltas(box, anchor):
    assert np.isfinite(boxes.encode_boxes(array(box), array(anchor))).all()


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-10, 10, width=32)] * 2, *[st.floats(allow_nan=False, width=32)] * 2), with_sides(1, 4000))
def test_decoded_boxes_are_finite_and_not_inverted_for_any_deltas(deltas, anchor):
    anchor = array(anchor)
    got = np.array(boxes.decode_boxes(array(deltas), anchor))
    assert np.isfinite(got).all()
    assert (got[2:] >= got[:2]).all()
    assert (got[2:] - got[:2] <= (anchor[2:] - anchor[:2]) * 62.6 + 0.1).all()


@settings(max_examples=60, deadline=None)
@given(rows(st.floats(allow_nan=False, allow_subnormal=False, width=32)), st.integers(1, 4000), st.integers(1, 4000))
def test_any_clipped_box_lies_inside_its_image(values, height, width):
    got = np.array(boxes.clip(array([values]), np.array([[height, width]], "int32")))
    limits = array([height, width, height, width])
    np.testing.assert_array_equal(got[0], np.clip(array(values), 0, limits))
