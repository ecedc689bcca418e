import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpn.ops.nms import FINAL_NMS, LEVEL_NMS, checked_nms, select_by_gpu_kernel, select_by_kernel, select_per_class


def random_boxes(rng, *shape):
    # With whole pixels every IoU is a ratio of small integers, the same in any order of operations.
    start = rng.integers(0, 30, (*shape, 2))
    return np.concatenate([start, start + rng.integers(1, 20, (*shape, 2))], axis=-1).astype("float32")


def selected(form, boxes, scores, count, threshold=0.25):
    return [np.array(values) for values in form(boxes, scores, 0.5, threshold, count)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 10, 200]))
def test_the_form_for_gpus_selects_what_the_others_select(seed, count):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 2, 4, 20), rng.permutation(160).reshape(2, 4, 20).astype("float32") / 160
    ours = selected(select_by_gpu_kernel, boxes, scores, count)
    for other in (select_per_class, select_by_kernel):
        for got, expected in zip(ours, selected(other, boxes, scores, count), strict=True):
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_of_equal_scores_the_form_for_gpus_takes_those_of_select_per_class(seed):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 2, 3, 12), rng.integers(0, 4, (2, 3, 12)).astype("float32") / 4
    ours, rounds = (selected(form, boxes, scores, 9) for form in (select_by_gpu_kernel, select_per_class))
    for got, expected in zip(ours, rounds, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_equal_scores_keep_their_order_and_equal_boxes_of_two_classes_both_stay():
    box, apart = [0, 0, 10, 10], [0, 50, 10, 60]
    boxes = np.array([[[box, box, apart], [box, apart, apart]]], "float32")
    scores = np.full((1, 2, 3), 0.5, "float32")
    got = selected(select_by_gpu_kernel, boxes, scores, 10)
    assert got[0][0, :4].tolist() == [box, apart, box, apart]
    assert got[2][0].tolist() == [0, 0, 1, 1] + [-1] * 6
    assert got[3].tolist() == [4]
    assert not got[0][0, 4:].any()


def test_boxes_far_from_the_origin_are_not_rounded():
    # 4,096 classes to the side of each other would round these corners to whole pixels: the two would be one box.
    near = np.array([[4000, 4000, 4001, 4000.5], [4000, 4000.5, 4001, 4001]], "float32")
    boxes, scores = np.tile(near, (1, 80, 1, 1)), np.zeros((1, 80, 2), "float32")
    scores[0, 79] = 0.9, 0.8
    got = selected(select_by_gpu_kernel, boxes, scores, 5)
    assert got[3].tolist() == [2]
    np.testing.assert_array_equal(got[0][0, :2], near)


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_above_the_threshold_gives_empty_rows(images):
    got = selected(select_by_gpu_kernel, np.zeros((images, 3, 4, 4), "float32"), np.zeros((images, 3, 4), "float32"), 6)
    assert [values.shape for values in got] == [(images, 6, 4), (images, 6), (images, 6), (images,)]
    assert got[2].tolist() == [[-1] * 6] * images
    assert got[3].tolist() == [0] * images


def test_fewer_candidates_than_places_fill_the_rest_with_empty_rows():
    got = selected(
        select_by_gpu_kernel, random_boxes(np.random.default_rng(0), 1, 1, 1), np.full((1, 1, 1), 0.9, "float32"), 4
    )
    assert got[3].tolist() == [1]
    assert got[2].tolist() == [[0, -1, -1, -1]]


def test_every_form_has_both_selections():
    assert list(LEVEL_NMS) == list(FINAL_NMS)
    assert checked_nms("gpu_kernel") == "gpu_kernel"
    with pytest.raises(ValueError, match="nms must be one of rounds, kernel, gpu_kernel, got 'cuda'"):
        checked_nms("cuda")
