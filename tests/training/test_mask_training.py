"""Tests training with masks: what a batch has, and that a step on few pictures learns the masks by either kind of targets."""

import contextlib
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.data.object_masks import GRID_SIDE, ObjectMasks
from kfpn.data.pipeline import train_batches
from kfpn.modeling.submodels import build_submodels
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.exact_masks import OUTLINES, run_functions
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step
from tests.eager import eagerly
from tests.training import made_up
from tests.training.distribution.same_answer import detector_config


def settings(rule, **changes):
    base = detector_config(norm="gn", steps=4, mask=True, **changes)
    return replace(base, sampling=replace(base.sampling, mask_targets=rule))


def batch_of(config):
    return next(iter(train_batches(made_up.source(0, 8, kind=made_up.with_masks), config)))


def test_a_batch_has_the_mask_of_each_object_over_its_own_box_flipped_with_the_image():
    config = settings("grid")
    batch = batch_of(config)
    assert batch["gt_masks"].shape == (4, 1, GRID_SIDE, GRID_SIDE)
    assert batch["gt_masks"].dtype == tf.uint8
    assert batch["gt_has_mask"].numpy().all()
    rows, columns = np.mgrid[:GRID_SIDE, :GRID_SIDE]
    upper_left = rows + columns < GRID_SIDE - 1
    for grid in batch["gt_masks"].numpy()[:, 0]:
        assert max((grid == upper_left).mean(), (grid[:, ::-1] == upper_left).mean()) > 0.97


def test_with_an_exact_rule_a_batch_has_the_compressed_masks_in_its_own_pixels():
    grids, exact = batch_of(settings("grid")), batch_of(settings("polygons"))
    assert set(exact) == set(grids) - {"gt_masks"} | {OUTLINES}
    assert exact[OUTLINES].dtype == tf.string
    for row, boxes, grid in zip(
        exact[OUTLINES].numpy(), exact["gt_boxes"].numpy(), grids["gt_masks"].numpy(), strict=True
    ):
        np.testing.assert_array_equal(ObjectMasks.from_serialized(row).grids(boxes), grid)


def test_without_a_mask_head_a_batch_has_no_masks():
    assert not {"gt_masks", "gt_has_mask", OUTLINES} & set(batch_of(detector_config()))


@pytest.mark.parametrize(
    ("rule", "parts", "mode"), [("grid", 1, eagerly), ("soft", 2, contextlib.nullcontext)], ids=["grid", "soft"]
)
def test_steps_have_the_loss_of_masks_and_learn_them(rule, parts, mode):
    config = settings(rule, accumulate=parts)
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=0.05, warmup_steps=0, ema_decay=0.0))
    keras.utils.set_random_seed(0)
    submodels = build_submodels(config.model)
    optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    step = build_train_step(submodels, config, optimizer, make_strategy("one_device"), *run_functions(config))
    batch = batch_of(config)
    with mode():  # masks that are made on the host leave and enter the graph, so this rule has one
        losses = [float(step(batch)["roi_mask"]) for _ in range(8)]
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < losses[0] - 5e-4
