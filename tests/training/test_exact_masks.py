"""Tests the exact targets of masks within a step: the host makes them, and nothing is compiled."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import Config, SamplingConfig
from kfpn.data.mask_targets_exact import exact_mask_targets
from kfpn.data.object_masks import ObjectMasks
from kfpn.losses.training_losses import training_losses
from kfpn.training.exact_masks import OUTLINES, run_functions, with_exact_masks
from kfpn.training.step import build_train_step
from tests.modeling import tiny

SIZE = (64, 96)
RULES = ("polygons", "bitmaps", "soft")


def outlines():
    """Two images: one with a triangle, a bitmap and an object without a mask, and one without any mask."""
    bitmap = np.zeros(SIZE, bool)
    bitmap[10:40, 20:60] = True
    first = ObjectMasks.of([[[4, 4, 50, 8, 20, 60]], bitmap, None], SIZE)
    rows = np.full((2, 3), b"", object)
    rows[0] = first.serialized()
    return first, rows


def rois():
    boxes = np.array([[4, 4, 60, 50], [10, 20, 40, 60], [8, 18, 44, 70], [0, 0, 30, 30]], np.float32)
    return np.stack([boxes, boxes]), np.array([[0, 1, 1, -1], [0, -1, 2, -1]], np.int32)


def config(rule, **changes):
    sampling = SamplingConfig(rpn_batch=32, roi_batch=16, mask_targets=rule)
    return Config(model=tiny.config(mask=True), sampling=sampling, **changes)


def asked_losses(submodels, config, batch, noise, training=True):
    """Stands in for losses: returns the targets that the mask head would learn."""
    boxes, index = rois()
    return batch["exact_masks"](tf.constant(boxes), tf.constant(index), 28)


@pytest.mark.parametrize("rule", RULES)
def test_the_host_makes_the_targets_of_the_rows_that_count(rule):
    masks, rows = outlines()
    boxes, index = rois()

    @tf.function
    def step(batch):
        return with_exact_masks(asked_losses)(None, config(rule), {OUTLINES: batch}, {})

    targets = step(tf.constant(rows))
    assert targets.shape == (2, 4, 28, 28)
    expected = exact_mask_targets(masks, boxes[0, :3], index[0, :3], 28, rule)
    np.testing.assert_array_equal(targets[0, :3], expected)
    assert expected.any(axis=(1, 2)).all()
    assert not np.array(targets[0, 3]).any()
    assert not np.array(targets[1]).any()


def test_only_an_exact_rule_of_a_mask_head_needs_the_host():
    assert not config("grid").masks_on_host
    assert run_functions(config("grid"))[0] is training_losses
    for rule in RULES:
        assert config(rule).masks_on_host
        assert run_functions(config(rule))[0] is not training_losses
        assert not dataclasses.replace(config(rule), model=tiny.config()).masks_on_host


def test_an_unknown_rule_is_refused():
    with pytest.raises(
        ValueError, match=r"sampling.mask_targets must be one of grid, polygons, bitmaps, soft, got 'hard'"
    ):
        SamplingConfig(mask_targets="hard")


def test_of_a_step_that_needs_the_host_the_islands_are_compiled_and_a_line_says_so():
    class WithoutVariables:
        weights_model = type("Model", (), {"trainable_variables": [], "non_trainable_variables": [], "layers": []})

    with pytest.warns(
        UserWarning, match=r"compile is islands: sampling.mask_targets soft makes the masks' targets on the host"
    ):
        build_train_step(WithoutVariables, config("soft"), None, tf.distribute.OneDeviceStrategy("CPU:0"))
