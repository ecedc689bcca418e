import math

import numpy as np
import pytest

from kfpn.losses import terms as losses


def test_smooth_l1_has_the_values_computed_by_hand():
    loss = np.array(losses.smooth_l1(np.array([0.0, 0.5, -0.5, 2.0], "float32"), 1.0))
    np.testing.assert_allclose(loss, [0, 0.125, 0.125, 1.5])
    loss = np.array(losses.smooth_l1(np.array([0.1, -2.0], "float32"), 1 / 9))
    np.testing.assert_allclose(loss, [0.5 * 0.01 * 9, 2 - 1 / 18], rtol=1e-6)


def test_smooth_l1_with_beta_zero_is_l1():
    np.testing.assert_allclose(np.array(losses.smooth_l1(np.array([-0.25, 3.0], "float32"), 0.0)), [0.25, 3.0])


def test_rpn_class_loss_has_the_value_computed_by_hand_and_skips_empty_rows():
    logits = np.array([[0.0, 2.0, 777.0]], "float32")
    loss = losses.rpn_class_loss(logits, np.array([[True, False, True]]), np.array([[True, True, False]]), 4.0)
    assert float(loss[0]) == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 4, rel=1e-6)


def test_rpn_class_loss_is_finite_for_huge_logits():
    logits = np.array([[1e4, -1e4]], "float32")
    loss = losses.rpn_class_loss(logits, np.array([[False, True]]), np.array([[True, True]]), 1.0)
    assert float(loss[0]) == pytest.approx(2e4)


def test_box_loss_counts_only_positives_even_if_other_rows_are_nan():
    deltas = np.array([[[1, 2, 3, 4], [9, 9, 9, 9]]], "float32")
    targets = np.array([[[1, 2, 3, 6], [np.nan] * 4]], "float32")
    loss = losses.box_loss(deltas, targets, np.array([[True, False]]), 8.0, 0.0)
    assert float(loss[0]) == pytest.approx(2 / 8)


def test_roi_class_loss_has_the_value_computed_by_hand():
    logits = np.log(np.array([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]], "float32"))
    loss = losses.roi_class_loss(logits, np.array([[1, 2]], "int32"), np.array([[True, True]]), 2.0)
    assert float(loss[0]) == pytest.approx(-(math.log(0.3) + math.log(0.8)) / 2, rel=1e-5)
