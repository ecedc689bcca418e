"""Tests the loss of the mask head: which rows count, and how they are averaged."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses import mask
from kfpn.losses.mask_targets import grid_targets
from kfpn.losses.targets import Targets, mask_rows, positive_rows
from kfpn.losses.training_losses import training_losses
from kfpn.modeling.heads.mask import MASK_SIDE
from kfpn.modeling.submodels import build_submodels
from tests.losses.test_training_losses import batch_of
from tests.modeling import tiny

S = 112
SAMPLING = SamplingConfig(rpn_batch=32, roi_batch=16, roi_positive_fraction=0.25)


def loss_of(logits, labels, positive, has_mask, index, **settings):
    """The loss of one image whose objects fill their boxes; the logits (P, K) are those of all cells of a mask."""
    config = Config(model=tiny.config(mask=True, **settings), sampling=SAMPLING)
    outputs = np.broadcast_to(
        np.asarray(logits, "float32")[:, None, None], (len(logits), MASK_SIDE, MASK_SIDE, np.shape(logits)[1])
    )
    rest = 16 - 4
    pad = lambda values, value: np.array([[*values, *([value] * rest)]])  # noqa: E731
    boxes = np.tile(np.array([0, 0, 28, 28], "float32"), (1, 16, 1))
    targets = Targets(None, pad(positive, False), None, pad(labels, 3), None, boxes, pad(index, 0).astype("int32"))
    batch = {
        "gt_has_mask": np.array([has_mask]),
        "gt_boxes": boxes[:, :2],
        "gt_masks": np.ones((1, 2, S, S), "uint8"),
    }
    (loss,) = mask.losses(outputs, targets, batch, config).values()
    return float(loss[0])


def entropy(logit):
    return np.log1p(np.exp(-logit))  # of a target of 1


def test_the_loss_is_the_mean_over_the_positives_of_the_labels_own_mask():
    logits = [[2.0, 9, 9], [9, -1.0, 9], [5, 5, 5], [5, 5, 5]]
    loss = loss_of(logits, [0, 1, 3, 3], [True, True, False, False], [True, True], [0, 1, 0, 0])
    assert loss == pytest.approx((entropy(2.0) + entropy(-1.0)) / 2, rel=1e-5)


def test_objects_without_a_mask_are_left_out_of_the_sum_and_of_the_number():
    logits = [[2.0, 9, 9], [9, -1.0, 9], [5, 5, 5], [5, 5, 5]]
    loss = loss_of(logits, [0, 1, 3, 3], [True, True, False, False], [True, False], [0, 1, 0, 0])
    assert loss == pytest.approx(entropy(2.0), rel=1e-5)
    assert loss_of(logits, [0, 1, 3, 3], [True, True, False, False], [False, False], [0, 1, 0, 0]) == 0.0


def test_an_image_without_positives_has_no_loss():
    assert loss_of(np.full((4, 3), 7.0), [3] * 4, [False] * 4, [True, True], [0] * 4) == 0.0


def test_one_mask_for_all_classes_is_every_labels_own():
    loss = loss_of(
        [[2.0], [-1.0], [5], [5]],
        [0, 2, 3, 3],
        [True, True, False, False],
        [True, True],
        [0, 1, 0, 0],
        mask_classes="agnostic",
    )
    assert loss == pytest.approx((entropy(2.0) + entropy(-1.0)) / 2, rel=1e-5)


def test_the_largest_logits_have_finite_losses():
    assert loss_of(np.full((4, 3), -1e4), [0] * 4, [True] * 4, [True, True], [0] * 4) == pytest.approx(1e4)
    assert loss_of(np.full((4, 3), 1e4), [0] * 4, [True] * 4, [True, True], [0] * 4) == pytest.approx(0.0)


def test_positive_rows_are_at_least_one():
    assert positive_rows(SAMPLING) == 4
    assert positive_rows(dataclasses.replace(SAMPLING, roi_batch=3)) == 1
    assert positive_rows(SamplingConfig()) == 128


@pytest.mark.parametrize(("most", "rows"), [(None, 4), (3, 3), (9, 4)])
def test_the_mask_head_looks_at_no_more_rows_than_asked_for(most, rows):
    assert mask_rows(dataclasses.replace(SAMPLING, mask_batch=most)) == rows


def test_with_a_smaller_mask_batch_only_its_first_rows_are_in_the_loss(monkeypatch):
    # All four rows are positive, and the head gave logits for two.
    monkeypatch.setattr(f"{__name__}.SAMPLING", dataclasses.replace(SAMPLING, mask_batch=2))
    first = loss_of([[2.0], [-1.0]], [0, 2, 1, 1], [True] * 4, [True, True], [0, 1, 0, 0], mask_classes="agnostic")
    assert first == pytest.approx((entropy(2.0) + entropy(-1.0)) / 2, rel=1e-5)


def with_masks(batch, seed=0):
    rng = np.random.default_rng(seed)
    count, boxes = batch["gt_labels"].shape
    grids = rng.random((count, boxes, 7, 7)).repeat(16, 2).repeat(16, 3) > 0.5
    return {**batch, "gt_masks": grids.astype("uint8"), "gt_has_mask": np.ones((count, boxes), bool)}


@pytest.fixture(scope="module")
def detector():
    model = tiny.config(mask=True, mask_channels=16, pre_nms_train=80, post_nms_train=50)
    config = Config(model=model, sampling=SAMPLING)
    batch, noise = batch_of(config)
    return config, build_submodels(model), with_masks(batch), noise


def test_a_step_has_the_loss_of_masks_beside_the_unchanged_others(detector):
    config, submodels, batch, noise = detector
    losses = training_losses(submodels, config, batch, noise)
    assert set(losses) == {"rpn_class", "rpn_box", "roi_class", "roi_box", "roi_mask"}
    # Fresh logits are near 0, so each cell has the loss of equal probabilities.
    np.testing.assert_allclose(losses["roi_mask"], np.log(2), atol=0.05)
    boxes_alone = submodels._replace(heads={"box": submodels.heads["box"]})
    for name, value in training_losses(boxes_alone, config, batch, noise).items():
        np.testing.assert_array_equal(value, losses[name])


def test_the_mask_head_sees_the_rows_that_can_be_positive(detector, monkeypatch):
    config, submodels, batch, noise = detector
    seen = {}
    whole = mask.losses

    def losses(outputs, targets, *rest):
        seen["rows"], seen["positive"] = outputs.shape, np.array(targets.positive)
        return whole(outputs, targets, *rest)

    monkeypatch.setattr(mask, "losses", losses)
    training_losses(submodels, config, batch, noise)
    assert seen["rows"] == (2 * 4, MASK_SIDE, MASK_SIDE, 3)
    assert seen["positive"].shape == (2, 16)
    assert seen["positive"][:, :4].any()
    assert not seen["positive"][:, 4:].any()


def test_an_images_mask_loss_does_not_depend_on_its_batch(detector):
    config, submodels, batch, noise = detector
    together = training_losses(submodels, config, batch, noise)["roi_mask"]
    for i in range(2):
        alone = training_losses(submodels, config, *({k: v[i : i + 1] for k, v in d.items()} for d in (batch, noise)))
        np.testing.assert_allclose(together[i], alone["roi_mask"][0], rtol=2e-4)


def test_a_function_of_exact_targets_takes_the_place_of_the_grids(detector):
    config, submodels, batch, noise = detector
    batch = {**batch, "gt_has_mask": np.array([[True, True, True], [True, False, True]])}
    given = {name: value for name, value in batch.items() if name != "gt_masks"}
    asked = []

    def exact(rois, index, side):
        asked.append((rois.shape, np.array(index), side))
        return grid_targets(batch["gt_masks"], batch["gt_boxes"], rois, tf.maximum(index, 0), side)

    losses = training_losses(submodels, config, {**given, "exact_masks": exact}, noise)
    np.testing.assert_array_equal(losses["roi_mask"], training_losses(submodels, config, batch, noise)["roi_mask"])
    ((shape, index, side),) = asked
    assert (shape, index.shape, side) == ((2, 4, 4), (2, 4), MASK_SIDE)
    assert 1 not in index[1]  # an object without a mask counts for none
    assert (index >= 0).any()


def test_the_loss_of_masks_reaches_the_head_and_the_pyramid(detector):
    config, submodels, batch, noise = detector
    variables = [v for v in submodels.weights_model.trainable_variables if "mask" in v.path or "lateral" in v.path]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(training_losses(submodels, config, batch, noise)["roi_mask"])
    gradients = tape.gradient(loss, [v.value for v in variables])
    norms = {v.path: float(tf.norm(gradient)) for v, gradient in zip(variables, gradients, strict=True)}
    assert np.isfinite(list(norms.values())).all()
    for name in ("mask_conv1/kernel", "mask_deconv/kernel", "mask_logits/kernel"):
        assert norms[name] > 0, name
    assert max(norm for path, norm in norms.items() if "lateral" in path) > 0
