"""Tests the losses on validation data with a real detector of few weights."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.data.pipeline import train_batches
from kfpn.losses.training_losses import noise_shapes
from kfpn.modeling.submodels import build_submodels
from kfpn.training.exact_masks import run_functions
from kfpn.training.sampler_noise import sampler_noise
from kfpn.training.validation_loss import ValidationLoss
from tests.training.made_up import source, with_masks


@pytest.fixture(scope="module", params=["grid", "polygons"])
def config(request):
    base = preset("shapes")
    small = {"backbone_width": 8, "pyramid_channels": 16, "head_width": 16, "pre_nms_train": 20, "post_nms_train": 20}
    small |= {"mask": True, "mask_channels": 8}
    return replace(
        base,
        batch_size=2,
        jit_compile=False,
        model=replace(base.model, **small, num_classes=2),
        input=InputConfig(64, 64, flip=0.0),
        sampling=replace(base.sampling, rpn_batch=16, roi_batch=8, mask_targets=request.param),
    )


@pytest.fixture(scope="module")
def submodels(config):
    keras.utils.set_random_seed(3)
    return build_submodels(config.model)


@pytest.fixture(scope="module")
def measured(config, submodels):
    """The losses of three images, in batches of two: the last one is filled up."""
    validation = ValidationLoss(submodels, config, source(0, 3, kind=with_masks))
    before = [variable.numpy() for variable in submodels.weights_model.variables]
    losses = [validation.measure(), validation.measure()]
    after = [variable.numpy() for variable in submodels.weights_model.variables]
    return losses, before, after


def test_equal_weights_have_equal_losses_and_no_statistic_changes(measured):
    losses, before, after = measured
    assert losses[0] == losses[1]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_they_are_means_over_the_images_of_the_training_losses(config, submodels, measured):
    images = source(0, 3, kind=with_masks)
    one = replace(config, batch_size=1)
    batches = {int(b["record_index"][0]): b for b in train_batches(images, one).take(3)}
    assert len(batches) == 3  # each image once
    sums: dict[str, float] = {}
    for index, batch in batches.items():
        shapes = noise_shapes(config, 64, 64, batch["gt_boxes"].shape[1])
        noise = sampler_noise(config.seed, tf.constant([index], tf.int64), shapes)
        for name, value in run_functions(config)[0](submodels, config, batch, noise, training=False).items():
            sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + float(value[0]) / 3
    losses = measured[0][0]
    assert losses["val_roi_mask"] == pytest.approx(np.log(2), abs=0.1)
    assert losses.keys() == {"val_loss", *sums}
    for name, value in sums.items():
        assert losses[name] == pytest.approx(value, rel=1e-4), name
    assert losses["val_loss"] == pytest.approx(sum(sums.values()), rel=1e-4)
