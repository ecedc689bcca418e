import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kfpn.config.run import SamplingConfig
from kfpn.losses.matching import MatchRule, match, sample
from kfpn.losses.targets import roi_targets, rpn_targets


def arrays(*values):
    return [np.array(value) for value in values]


def call_match(candidates, boxes, labels, crowd, **options):
    gt = {
        "gt_boxes": np.array([boxes], "float32"),
        "gt_labels": np.array([labels], "int32"),
        "gt_crowd": np.array([crowd]),
    }
    matched, index = match(np.array([candidates], "float32"), gt, MatchRule(0.7, 0.3, **options))
    return np.array(matched)[0].tolist(), np.array(index)[0].tolist()


def test_the_two_thresholds_decide_between_positive_ignored_and_negative():
    gt = [[0, 0, 10, 10]]
    candidates = [[0, 0, 10, 10], [0, 0, 10, 7], [0, 0, 10, 5], [0, 0, 10, 3], [0, 0, 10, 2.9], [50, 50, 60, 60]]
    assert call_match(candidates, gt, [3], [False])[0] == [1, 1, -1, -1, 0, 0]


def test_a_candidate_is_matched_to_the_box_of_the_highest_iou():
    gt = [[0, 0, 10, 10], [0, 0, 10, 8]]
    assert call_match([[0, 0, 10, 9], [0, 0, 10, 8]], gt, [0, 0], [False, False])[1] == [0, 1]


def test_keep_best_makes_the_best_candidates_of_a_box_positive_at_any_iou():
    gt = [[0, 0, 10, 10]]
    candidates = [[0, 0, 5, 5], [5, 5, 10, 10], [0, 0, 2, 2]]
    assert call_match(candidates, gt, [0], [False], keep_best=True)[0] == [1, 1, 0]
    assert call_match(candidates, gt, [0], [False])[0] == [0, 0, 0]


def test_a_box_that_nothing_overlaps_makes_no_positive():
    assert call_match([[50, 50, 60, 60]], [[0, 0, 10, 10]], [0], [False], keep_best=True)[0] == [0]


def test_padding_and_crowd_boxes_never_make_positives():
    gt = [[0, 0, 10, 10], [20, 20, 30, 30]]
    candidates = [[0, 0, 10, 10], [20, 20, 30, 30]]
    # The first box is padding, so its candidate is negative. The second is a crowd, so its candidate is ignored.
    assert call_match(candidates, gt, [-1, 2], [False, True], keep_best=True)[0] == [0, -1]


def test_a_candidate_that_is_mostly_inside_a_crowd_is_ignored_and_others_are_negative():
    crowd = [[0, 0, 100, 100]]
    candidates = [[0, 0, 10, 10], [95, 0, 105, 10]]
    assert call_match(candidates, crowd, [0], [True])[0] == [-1, 0]


def test_no_ground_truth_makes_all_negative():
    assert call_match([[0, 0, 9, 9]], [[0, 0, 0, 0]], [-1], [False], keep_best=True)[0] == [0]


def test_sample_takes_the_largest_noise_and_puts_a_limited_number_of_positives_first():
    matched = np.array([[1, 1, 1, 0, 0, 0, -1]], "int32")
    noise = np.array([[0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 0.99]], "float32")
    index, positive, valid = (np.array(x)[0].tolist() for x in sample(matched, noise, 4, 0.5))
    assert index == [1, 2, 4, 5]
    assert positive == [True, True, False, False]
    assert valid == [True] * 4


def test_sample_fills_up_with_negatives_and_leaves_the_rest_empty():
    matched = np.array([[1, 0, 0, -1, -1]], "int32")
    index, positive, valid = sample(matched, np.full((1, 5), 0.5, "float32"), 8, 0.5)
    assert np.array(valid)[0].tolist() == [True] * 3 + [False] * 5
    assert sorted(np.array(index)[0, :3].tolist()) == [0, 1, 2]
    assert np.array(positive)[0].tolist() == [True] + [False] * 7


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 2**31 - 1))
def test_sample_agrees_with_sorting(matched, count, seed):
    noise = np.random.default_rng(seed).permutation(len(matched)).astype("float32") / len(matched)
    index, positive, valid = (np.array(x)[0] for x in sample(np.array([matched], "int32"), noise[None], count, 0.25))
    best_first = np.argsort(-noise)
    positives = [i for i in best_first if matched[i] == 1][: int(count * 0.25)]
    negatives = [i for i in best_first if matched[i] == 0][: count - len(positives)]
    assert index[valid].tolist() == positives + negatives
    assert index[positive].tolist() == positives


def ground_truth():
    boxes, labels, crowd = arrays([[[0.0, 0, 16, 16], [0, 0, 0, 0]]], [[4, -1]], [[False, False]])
    return {"gt_boxes": boxes.astype("float32"), "gt_labels": labels.astype("int32"), "gt_crowd": crowd}


def test_rpn_targets_leave_out_unusable_anchors_and_encode_the_matched_box():
    anchors = np.array([[0, 0, 16, 16], [0, 0, 16, 15], [40, 40, 50, 50], [60, 60, 70, 70]], "float32")
    usable = np.array([[True, True, True, False]])
    noise = np.array([[0.1, 0.2, 0.3, 0.4]], "float32")
    targets = rpn_targets(anchors[None], usable, ground_truth(), SamplingConfig(rpn_batch=4), noise)
    assert np.array(targets.index)[0].tolist() == [1, 0, 2, 0]
    assert np.array(targets.valid)[0].tolist() == [True, True, True, False]
    np.testing.assert_allclose(np.array(targets.deltas)[0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(np.array(targets.deltas)[0, 0, 3], np.log(16 / 15), rtol=1e-4)


def test_roi_targets_give_positives_their_class_and_all_others_the_background():
    rois = np.array([[[0, 0, 16, 12], [30, 30, 40, 40], [0, 0, 16, 7]]], "float32")
    sampling = SamplingConfig(roi_batch=3, roi_positive_fraction=0.4)
    targets = roi_targets(rois, np.ones((1, 3), bool), ground_truth(), 7, sampling, np.ones((1, 3), "float32") / 2)
    assert np.array(targets.index)[0, 0] == 0
    assert np.array(targets.labels)[0].tolist() == [4, 7, 7]
