import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpn.ops.nms import select_per_class, suppress


def overlap(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def greedy(boxes, threshold):
    """Returns the boxes that the textbook's loop keeps: it takes the best box and drops those that overlap it."""
    # The threshold is float32 as the IoU is. NumPy 1 would call a float32 IoU of 0.3 larger than the double 0.3.
    threshold = np.float32(threshold)
    kept = []
    for i, box in enumerate(boxes):
        if all(overlap(box, boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def random_boxes(rng, count):
    # With whole pixels every IoU is a ratio of small integers, the same in any order of operations.
    start = rng.integers(0, 30, (count, 2))
    return np.concatenate([start, start + rng.integers(1, 20, (count, 2))], axis=1).astype("float32")


def test_a_box_that_overlaps_only_a_dropped_box_is_kept():
    # The second overlaps the first. The third overlaps only the second, which is dropped, so the third stays.
    boxes = np.array([[[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18]]], "float32")
    keep = np.array(suppress(boxes, np.ones((1, 3), bool), 0.3))
    assert keep[0].tolist() == [True, False, True]


def test_iou_equal_to_the_threshold_does_not_suppress():
    boxes = np.array([[[0, 0, 10, 10], [0, 5, 10, 10]]], "float32")
    assert np.array(suppress(boxes, np.ones((1, 2), bool), 0.5))[0].tolist() == [True, True]


def test_invalid_boxes_are_dropped_and_suppress_nothing():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 10]]], "float32")
    assert np.array(suppress(boxes, np.array([[False, True]]), 0.5))[0].tolist() == [False, True]
    assert not np.array(suppress(boxes, np.zeros((1, 2), bool), 0.5)).any()


def test_nms_is_right_for_a_chain_of_300_boxes_that_each_overlap_the_next():
    count = 300
    boxes = np.array([[[0, 4 * i, 10, 4 * i + 10] for i in range(count)]], "float32")
    keep = np.array(suppress(boxes, np.ones((1, count), bool), 0.4))[0]
    assert np.flatnonzero(keep).tolist() == list(range(0, count, 2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppress_keeps_the_boxes_that_the_greedy_loop_keeps(seed, threshold):
    rng = np.random.default_rng(seed)
    boxes = np.stack([random_boxes(rng, 60), random_boxes(rng, 60)])
    keep = np.array(suppress(boxes, np.ones((2, 60), bool), threshold))
    for b in range(2):
        assert np.flatnonzero(keep[b]).tolist() == greedy(boxes[b], threshold)


def brute_force(boxes, scores, iou, floor, count):
    """Returns the best of all classes after NMS in each, over all candidates above the threshold."""
    detections = []
    for k in range(len(scores)):
        order = [i for i in np.argsort(-scores[k], kind="stable") if scores[k, i] > floor]
        detections += [(-scores[k, order[i]], k, tuple(boxes[k, order[i]])) for i in greedy(boxes[k, order], iou)]
    return sorted(detections)[:count]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1000, 60, 20, 1]))
def test_select_per_class_has_the_detections_of_the_greedy_loop_for_any_number_of_first_candidates(seed, first):
    rng = np.random.default_rng(seed)
    boxes = np.stack([[random_boxes(rng, 30) for _ in range(4)] for _ in range(2)])
    # All scores differ, so that there is only one order.
    scores = rng.permutation(2 * 4 * 30).reshape(2, 4, 30).astype("float32") / 240
    got = [np.array(x) for x in select_per_class(boxes, scores, 0.5, 0.25, 40, first)]
    for b in range(2):
        expected = brute_force(boxes[b], scores[b], 0.5, 0.25, 40)
        number = int(got[3][b])
        assert number == len(expected)
        assert [(-s, k, tuple(x)) for s, k, x in zip(got[1][b], got[2][b], got[0][b], strict=True)][:number] == expected
        assert (got[2][b, number:] == -1).all()
        assert not got[0][b, number:].any()
        assert not got[1][b, number:].any()


def test_boxes_of_other_groups_do_not_suppress():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]], "float32")
    keep = suppress(boxes, np.ones((1, 3), bool), 0.5, groups=np.array([[1, 2, 1]], "int32"))
    assert np.array(keep)[0].tolist() == [True, True, False]


def test_detections_that_are_not_among_the_first_candidates_are_selected():
    # Copies of the best box fill the first five places. The second object comes after them.
    boxes = np.array([[[[0, 0, 10, 10]] * 10 + [[50, 50, 60, 60]]]], "float32")
    scores = np.linspace(0.9, 0.5, 11, dtype="float32")[None, None]
    got = select_per_class(boxes, scores, 0.5, 0.1, 4, first=5)
    assert np.array(got[0])[0, :2].tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]
    assert int(got[3][0]) == 2


def test_select_per_class_drops_scores_that_are_not_above_the_threshold():
    boxes, scores = np.ones((1, 2, 5, 4), "float32"), np.full((1, 2, 5), 0.05, "float32")
    _, _, labels, number = select_per_class(boxes, scores, 0.5, 0.05, 3)
    assert int(number[0]) == 0
    assert np.array(labels).tolist() == [[-1, -1, -1]]


def test_two_empty_boxes_do_not_suppress_each_other():
    boxes = np.zeros((1, 1, 2, 4), "float32")
    got = select_per_class(boxes, np.array([[[0.9, 0.8]]], "float32"), 0.5, 0.1, 5)
    np.testing.assert_allclose(np.array(got[1])[0], [0.9, 0.8, 0, 0, 0], rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compiles with tf.function")
def test_both_compile_under_xla_with_equal_results():
    import tensorflow as tf

    rng = np.random.default_rng(3)
    boxes = np.stack([random_boxes(rng, 40)])
    eager = np.array(suppress(boxes, np.ones((1, 40), bool), 0.5))
    compiled = tf.function(lambda b: suppress(b, tf.ones((1, 40), tf.bool), 0.5), jit_compile=True)(boxes)
    np.testing.assert_array_equal(eager, compiled.numpy())
    scores = rng.uniform(size=(1, 2, 20)).astype("float32")
    pairs = boxes.reshape(1, 2, 20, 4)
    plain = select_per_class(pairs, scores, 0.5, 0.1, 10)
    jitted = tf.function(lambda b, s: select_per_class(b, s, 0.5, 0.1, 10), jit_compile=True)(pairs, scores)
    for a, b in zip(plain, jitted, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))
