import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses import training_losses as training
from kfpn.losses.training_losses import fixed_noise_shapes, fixed_proposal_losses
from kfpn.modeling.detector import inference_model
from kfpn.modeling.fast_rcnn import fast_rcnn_model, proposals_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

SIZE = (64, 96)


def setup(**changes):
    model = tiny.config(pre_nms_train=80, post_nms_train=50, **changes)
    config = Config(model=model, sampling=SamplingConfig(rpn_batch=32, roi_batch=16))
    submodels = build_submodels(model)
    tiny.shake(submodels.weights_model)
    return config, submodels


def batch_of(config, noise_shapes=training.noise_shapes, count=2, boxes=3, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 30, (count, boxes, 2))
    batch = {
        "images": np.stack([tiny.image(*SIZE, seed=seed + i) for i in range(count)]),
        "image_sizes": np.full((count, 2), SIZE, "int32"),
        "gt_boxes": np.concatenate([start, start + rng.uniform(8, 30, (count, boxes, 2))], -1).astype("float32"),
        "gt_labels": rng.integers(0, 3, (count, boxes)).astype("int32"),
        "gt_crowd": np.zeros((count, boxes), bool),
    }
    # Three special cases: a row without a box, a crowd, and an image that is smaller than the canvas.
    batch["gt_boxes"][0, 2], batch["gt_labels"][0, 2] = 0.0, -1
    batch["gt_crowd"][1, 1] = True
    batch["image_sizes"][1] = 50, 70
    shapes = noise_shapes(config, *SIZE, boxes)
    return batch, {key: rng.uniform(size=(count, *shape)).astype("float32") for key, shape in shapes.items()}


def inputs_of(batch):
    return {"images": batch["images"], "image_sizes": batch["image_sizes"]}


@pytest.mark.parametrize("pyramid", ["fpn", "c4"])
def test_the_losses_with_fixed_proposals_are_those_of_the_ordinary_step_with_the_same_proposals(pyramid, monkeypatch):
    config, submodels = setup(pyramid=pyramid)
    batch, noise = batch_of(config)
    chosen = []
    ordinary = training.select_proposals
    monkeypatch.setattr(training, "select_proposals", lambda *args: chosen.append(ordinary(*args)) or chosen[-1])
    expected = training.training_losses(submodels, config, batch, noise)
    proposals, _, origins = map(np.array, chosen[0])
    assert proposals.shape == (2, 50, 4)
    anchors = noise["rpn"].shape[1]
    rows = np.concatenate([np.take_along_axis(noise["roi"], origins, axis=1), noise["roi"][:, anchors:]], axis=1)
    losses = fixed_proposal_losses(submodels, config, {**batch, "proposals": proposals}, {"roi": rows})
    assert set(losses) == {"roi_class", "roi_box"}
    for name, value in losses.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)
        assert (np.array(value) > 0).all()


def test_fixed_proposals_need_noise_for_rois_only():
    config, _ = setup()
    assert fixed_noise_shapes(config, *SIZE, 3) == {"roi": (53,)}


def test_with_fixed_proposals_every_weight_but_the_rpns_has_a_gradient():
    config, submodels = setup()
    batch, noise = batch_of(config, fixed_noise_shapes)
    rng = np.random.default_rng(1)
    start = rng.uniform(0, 40, (2, 50, 2))
    batch["proposals"] = np.concatenate([start, start + rng.uniform(5, 25, (2, 50, 2))], -1).astype("float32")
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(v) for v in fixed_proposal_losses(submodels, config, batch, noise).values())
    variables = submodels.weights_model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    without = {v.path for v, g in zip(variables, gradients, strict=True) if g is None}
    assert without == {v.path for v in submodels.rpn.trainable_variables}
    submodels.rpn.trainable = False
    assert without.isdisjoint(v.path for v in submodels.weights_model.trainable_variables)


def test_without_proposals_the_losses_are_finite_and_without_ground_truth_too_they_are_zero():
    config, submodels = setup()
    batch, noise = batch_of(config, fixed_noise_shapes)
    batch["proposals"] = np.zeros((2, 50, 4), "float32")
    losses = fixed_proposal_losses(submodels, config, batch, noise)
    assert all(np.isfinite(value).all() for value in losses.values())
    # Without ground truth as well, nothing is trained.
    batch["gt_labels"][:], batch["gt_boxes"][:] = -1, 0.0
    for value in fixed_proposal_losses(submodels, config, batch, noise).values():
        np.testing.assert_array_equal(value, [0.0, 0.0])


def test_fast_rcnn_with_the_detectors_proposals_has_the_detectors_detections():
    config, submodels = setup()
    batch, _ = batch_of(config)
    whole = tiny.detect(inference_model(submodels, config.model, padded=True), inputs_of(batch))
    first = proposals_model(submodels, config.model, config.model.post_nms_test)
    proposals = np.array(first(inputs_of(batch), training=False)["boxes"])
    parts = tiny.detect(fast_rcnn_model(submodels, config.model), {**inputs_of(batch), "proposals": proposals})
    assert whole["num_detections"].min() > 0
    for key, value in whole.items():
        np.testing.assert_allclose(parts[key], value, atol=1e-4)


def test_with_empty_proposals_there_are_no_detections():
    config, submodels = setup()
    batch, _ = batch_of(config)
    detections = tiny.detect(
        fast_rcnn_model(submodels, config.model), {**inputs_of(batch), "proposals": np.zeros((2, 40, 4), "float32")}
    )
    assert detections["num_detections"].tolist() == [0, 0]


@pytest.mark.parametrize("pyramid", ["fpn", "c5"])
def test_a_proposals_model_has_as_many_proposals_as_asked_for_with_any_test_settings(pyramid):
    config, submodels = setup(pyramid=pyramid)
    batch, _ = batch_of(config)
    proposals = tiny.detect(proposals_model(submodels, config.model, 300), inputs_of(batch))
    wide = dataclasses.replace(config.model, pre_nms_test=300)
    more = tiny.detect(proposals_model(submodels, wide, 300), inputs_of(batch))
    for key, value in proposals.items():
        np.testing.assert_array_equal(value, more[key])
    assert proposals["boxes"].shape == (2, 300, 4)
    exists = (proposals["boxes"][..., 2:] > proposals["boxes"][..., :2]).all(-1)
    assert (exists.sum(1) > config.model.post_nms_test).all()
    assert (proposals["scores"][exists] > 0).all()
    assert (proposals["scores"] <= 1).all()
    # The order is that of the logits. TensorFlow's sigmoid can give a smaller score to the larger of two logits that are
    # neighbours, by the last bit.
    assert (np.diff(proposals["scores"]) <= 1.2e-7).all()
    assert not proposals["boxes"][~exists].any()
    assert not proposals["scores"][~exists].any()
    assert (proposals["boxes"][1, :, 2:] <= (50, 70)).all()
