import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses import training_losses as training
from kfpn.losses.training_losses import noise_shapes, training_losses
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

LOSSES = {"rpn_class", "rpn_box", "roi_class", "roi_box"}


def setup(**changes):
    model = tiny.config(pre_nms_train=80, post_nms_train=50, **changes)
    config = Config(model=model, sampling=SamplingConfig(rpn_batch=32, roi_batch=16))
    return config, build_submodels(model)


def batch_of(config, count=2, size=(64, 96), boxes=3, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 30, (count, boxes, 2))
    batch = {
        "images": np.stack([tiny.image(*size, seed=seed + i) for i in range(count)]),
        "image_sizes": np.full((count, 2), size, "int32"),
        "gt_boxes": np.concatenate([start, start + rng.uniform(8, 30, (count, boxes, 2))], -1).astype("float32"),
        "gt_labels": rng.integers(0, 3, (count, boxes)).astype("int32"),
        "gt_crowd": np.zeros((count, boxes), bool),
    }
    shapes = noise_shapes(config, *size, boxes)
    noise = {key: rng.uniform(size=(count, *shape)).astype("float32") for key, shape in shapes.items()}
    return batch, noise


def rows(tree, which):
    return {key: value[which] for key, value in tree.items()}


def test_each_loss_is_one_finite_positive_number_for_each_image():
    config, submodels = setup()
    losses = training_losses(submodels, config, *batch_of(config))
    assert set(losses) == LOSSES
    for value in losses.values():
        assert value.shape == (2,)
        assert np.isfinite(value).all()
        assert (np.array(value) > 0).all()


def test_with_foreign_padding_the_cells_of_the_canvas_count_as_image():
    # The network pads 50 x 70 to 64 x 96 itself, and noise and anchors are those of that canvas.
    config, submodels = setup(padding="foreign", anchor_strides="image")
    batch, noise = batch_of(config, size=(50, 70))
    assert noise["rpn"].shape == (2, 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2))
    alone = training_losses(submodels, config, batch, noise)
    canvas = np.full((2, 64, 96, 3), 37, "uint8")
    canvas[:, :50, :70] = batch["images"]
    padded = training_losses(submodels, config, {**batch, "images": canvas}, noise)
    for key in LOSSES:
        assert np.isfinite(alone[key]).all()
        np.testing.assert_allclose(alone[key], padded[key], rtol=2e-3)


def test_the_sampled_rois_do_not_depend_on_the_order_of_the_proposals(monkeypatch):
    config, submodels = setup()
    batch, noise = batch_of(config)
    expected, ordinary = training_losses(submodels, config, batch, noise), training.select_proposals

    def reversed_ranks(*args):
        return [ops.flip(part, axis=1) for part in ordinary(*args)]

    monkeypatch.setattr(training, "select_proposals", reversed_ranks)
    for name, value in training_losses(submodels, config, batch, noise).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_untrained_classifiers_have_the_loss_of_equal_probabilities():
    config, submodels = setup()
    losses = training_losses(submodels, config, *batch_of(config))
    assert float(losses["rpn_class"][0]) == pytest.approx(np.log(2), abs=0.1)
    assert float(losses["roi_class"][0]) == pytest.approx(np.log(4), abs=0.5)


@pytest.mark.parametrize("settings", [{}, tiny.FOREIGN], ids=["own", "foreign"])
def test_an_images_losses_do_not_depend_on_its_batch(settings):
    config, submodels = setup(**settings)
    batch, noise = batch_of(config, count=3)
    batch["image_sizes"][1] = 40, 60
    together = training_losses(submodels, config, batch, noise)
    for i in range(3):
        alone = training_losses(submodels, config, rows(batch, slice(i, i + 1)), rows(noise, slice(i, i + 1)))
        for key in LOSSES:
            np.testing.assert_allclose(together[key][i], alone[key][0], rtol=2e-4)


def test_padding_changes_no_loss_if_the_same_anchors_are_sampled():
    # Every anchor and RoI that can be sampled is sampled, so that the noise does not matter.
    config, submodels = setup()
    every = SamplingConfig(rpn_batch=9000, roi_batch=60, rpn_positive_fraction=1.0, roi_positive_fraction=1.0)
    config = dataclasses.replace(config, sampling=every)
    batch, noise = batch_of(config, size=(50, 70))
    alone = training_losses(submodels, config, batch, noise)
    canvas = np.full((2, 96, 128, 3), 37, "uint8")
    canvas[:, :50, :70] = batch["images"]
    _, noise = batch_of(config, size=(96, 128))
    padded = training_losses(submodels, config, {**batch, "images": canvas}, noise)
    for key in LOSSES:
        np.testing.assert_allclose(alone[key], padded[key], rtol=2e-3)


def test_images_without_boxes_have_no_box_loss_and_a_class_loss():
    config, submodels = setup()
    batch, noise = batch_of(config)
    batch["gt_labels"][:] = -1
    batch["gt_boxes"][:] = 0
    losses = training_losses(submodels, config, batch, noise)
    assert not np.array(losses["rpn_box"]).any()
    assert not np.array(losses["roi_box"]).any()
    assert (np.array(losses["rpn_class"]) > 0).all()


def test_images_with_crowd_boxes_only_have_no_box_loss():
    config, submodels = setup()
    batch, noise = batch_of(config)
    batch["gt_crowd"][:] = True
    losses = training_losses(submodels, config, batch, noise)
    assert not np.array(losses["rpn_box"]).any()
    assert not np.array(losses["roi_box"]).any()


def gradients(submodels, config, batch, noise, jit=False):
    """Computes the gradients eagerly, because a graph takes longer to build than a few steps take, or compiled by XLA."""
    variables = [v.value for v in submodels.weights_model.trainable_variables]

    def run():
        with tf.GradientTape() as tape:
            losses = training_losses(submodels, config, batch, noise)
            total = sum(tf.reduce_sum(value) for value in losses.values())
        return tape.gradient(total, variables)

    return (tf.function(run, jit_compile=True) if jit else run)()


@pytest.mark.parametrize("settings", [{}, pytest.param(tiny.FOREIGN, marks=pytest.mark.slow)], ids=["own", "foreign"])
def test_every_trainable_weight_has_a_gradient_and_xla_gives_the_same_one(settings):
    config, submodels = setup(**settings)
    tiny.shake(submodels.weights_model)  # an untrained residual branch ends in zeros, through which no gradient passes
    batch, noise = batch_of(config)
    plain, compiled = (gradients(submodels, config, batch, noise, jit) for jit in (False, True))
    assert all(g is not None for g in plain)
    norms = [(float(tf.norm(a)), float(tf.norm(b))) for a, b in zip(plain, compiled, strict=True)]
    assert all(a > 0 for a, _ in norms)
    np.testing.assert_allclose(*zip(*norms, strict=True), rtol=2e-2)


def test_three_steps_against_the_gradient_lower_the_loss():
    config, submodels = setup()
    batch, noise = batch_of(config)

    def total():
        return sum(float(tf.reduce_sum(v)) for v in training_losses(submodels, config, batch, noise).values())

    before = total()
    for _ in range(3):
        steps = gradients(submodels, config, batch, noise)
        for variable, gradient in zip(submodels.weights_model.trainable_variables, steps, strict=True):
            variable.assign_sub(0.005 * gradient)
    assert total() < before


def test_with_a_frozen_backbone_the_gradients_of_pyramid_and_heads_are_finite():
    config, submodels = setup(freeze_stages=5)
    values = gradients(submodels, config, *batch_of(config))
    names = [v.path.split("/")[-2] for v in submodels.weights_model.trainable_variables]
    assert {"lateral_2", "lateral_5", "output_2", "rpn_conv", "head_fc1"} <= set(names)
    assert all(np.isfinite(np.array(g)).all() for g in values)
