"""Tests what the stages of a cascade learn, by hand arithmetic, and how gradients pass through them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses import find_loss
from kfpn.losses.box import own_deltas
from kfpn.losses.cascade import stage_targets
from kfpn.losses.training_losses import TrainingDetector, noise_shapes, training_losses, with_gradient_share
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

GT = {
    "gt_boxes": np.array([[[0, 0, 100, 100], [0, 200, 40, 240], [200, 200, 300, 300]]], np.float32),
    "gt_labels": np.array([[1, 0, 2]], np.int32),
    "gt_crowd": np.array([[False, False, True]]),
}
# IoU .65, .55, .75 and .9 with objects; far from all; in the crowd region; no area; no box.
BOXES = np.array(
    [
        [
            *([0, 0, 100, 65], [0, 0, 55, 100], [0, 0, 100, 75], [0, 200, 36, 240]),
            *([400, 400, 420, 420], [210, 210, 250, 250], [50, 50, 50, 90], [0, 0, 100, 100]),
        ]
    ],
    np.float32,
)
EXISTS = np.array([[True] * 7 + [False]])
K = 3


@pytest.mark.parametrize(
    ("stage", "labels"), [(2, [1, K, 1, 0, K, K, K, K]), (3, [K, K, 1, 0, K, K, K, K])], ids=["0.6", "0.7"]
)
def test_a_stage_matches_its_boxes_anew_by_its_own_threshold_and_counts_them_all(stage, labels):
    targets = stage_targets(BOXES, EXISTS, GT, K, stage)
    np.testing.assert_array_equal(targets.labels[0], labels)
    np.testing.assert_array_equal(targets.positive[0], np.array(labels) < K)
    # A box in a crowd region is no negative, and an empty box and an empty row are nothing.
    np.testing.assert_array_equal(targets.valid[0], [True] * 5 + [False] * 3)
    assert np.array(targets.gt_index)[0, :4].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("stage", [2, 3])
def test_the_deltas_of_a_stage_have_its_factors(stage):
    deltas = np.array(stage_targets(BOXES, EXISTS, GT, K, stage).deltas)[0]
    # Width 75 to 100 around 37.5 to 50; height 36 to 40 around 18 to 20.
    np.testing.assert_allclose(
        deltas[2], [0, 10 * stage * 12.5 / 75, 0, 5 * stage * np.log(100 / 75)], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        deltas[3], [10 * stage * 2 / 36, 0, 5 * stage * np.log(40 / 36), 0], rtol=1e-4, atol=1e-5
    )


def test_the_losses_of_a_stage_have_its_number_and_are_those_of_its_own_targets():
    config = Config(model=tiny.config(cascade=True), sampling=SamplingConfig(roi_batch=8, roi_box_beta=0.0))
    outputs = {"boxes": BOXES, "logits": np.zeros((8, K + 1), "float32"), "deltas": np.zeros((8, 1, 4), "float32")}
    first = stage_targets(BOXES, EXISTS, GT, K, 2)  # of which only `valid` is read
    losses = find_loss("box_3").losses(outputs, first, GT, config)
    assert list(losses) == ["roi_class_3", "roi_box_3"]
    # Five boxes count of eight, all classes are equally probable; two boxes are positive, plain L1.
    np.testing.assert_allclose(losses["roi_class_3"], [5 * np.log(4) / 8], rtol=1e-5)
    size = 30 * 12.5 / 75 + 15 * np.log(100 / 75) + 30 * 2 / 36 + 15 * np.log(40 / 36)
    np.testing.assert_allclose(losses["roi_box_3"], [size / 8], rtol=1e-5)


def test_the_deltas_of_one_box_for_all_classes_are_those_of_every_label():
    deltas = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    np.testing.assert_array_equal(own_deltas(deltas, np.array([[2, 3]]), 3), deltas.reshape(1, 2, 4))
    of_classes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    own = own_deltas(of_classes, np.array([[2, 0]], np.int32), 3)
    np.testing.assert_array_equal(own, [[of_classes[0, 2], of_classes[1, 0]]])


def test_a_share_of_the_gradient_leaves_the_values_as_they_are():
    x = tf.constant([1 / 3, -7.1, 1e-20])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = with_gradient_share(x, 0.25)
        total = tf.reduce_sum(3.0 * y)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_allclose(tape.gradient(total, x), [0.75] * 3)


@pytest.fixture(scope="module")
def made():
    """Returns a small cascade with masks, its configuration, a batch and noise."""
    keras.utils.set_random_seed(0)
    model = tiny.config(pre_nms_train=80, post_nms_train=50, cascade=True, mask=True, mask_channels=8)
    config = Config(model=model, sampling=SamplingConfig(rpn_batch=32, roi_batch=16, roi_positive_fraction=0.5))
    submodels = build_submodels(model)
    tiny.shake(submodels.weights_model)
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 30, (2, 3, 2))
    batch = {
        "images": np.stack([tiny.image(64, 96, seed=i) for i in range(2)]),
        "image_sizes": np.full((2, 2), (64, 96), "int32"),
        "gt_boxes": np.concatenate([start, start + rng.uniform(16, 30, (2, 3, 2))], -1).astype("float32"),
        "gt_labels": rng.integers(0, 3, (2, 3)).astype("int32"),
        "gt_crowd": np.zeros((2, 3), bool),
        "gt_has_mask": np.ones((2, 3), bool),
        "gt_masks": rng.integers(0, 2, (2, 3, 112, 112)).astype("uint8"),
    }
    shapes = noise_shapes(config, 64, 96, 3)
    noise = {key: rng.uniform(size=(2, *shape)).astype("float32") for key, shape in shapes.items()}
    return config, submodels, batch, noise


def test_all_stages_have_losses_and_every_weight_learns_from_its_own(made):
    config, submodels, batch, noise = made
    variables = {v.path: v.value for v in submodels.weights_model.trainable_variables}
    with tf.GradientTape(persistent=True) as tape:
        losses = training_losses(submodels, config, batch, noise)
        total = tf.add_n([tf.reduce_sum(value) for value in losses.values()])
        of_third = tf.reduce_sum(losses["roi_class_3"] + losses["roi_box_3"])
    assert list(losses) == [
        *("rpn_class", "rpn_box", "roi_class", "roi_box", "roi_mask"),
        *("roi_class_2", "roi_box_2", "roi_class_3", "roi_box_3"),
    ]
    assert all(
        value.shape == (2,) and np.isfinite(value).all() and (np.array(value) > 0).all() for value in losses.values()
    )
    gradients = tape.gradient(total, variables)
    unmoved = {path for path, value in gradients.items() if value is None or not np.any(value)}
    assert unmoved <= {"output_5/kernel", "output_5/bias"}  # no sampled box or anchor of these pictures lies on P5
    # The boxes are given: nothing of the third stage's losses reaches the heads before it.
    third = tape.gradient(of_third, variables)
    heads = {path for path, value in third.items() if path.startswith("head_") and value is not None and np.any(value)}
    assert heads == {path for path in variables if path.startswith("head_") and path.split("/")[0].endswith("_3")}


def test_the_stages_look_at_the_sample_of_the_first_and_the_mask_head_at_its_positives(made):
    config, submodels, batch, noise = made
    detector = TrainingDetector(submodels, config, batch, noise)
    stages = detector.run(batch["images"], batch["image_sizes"], training=True)
    assert list(stages.outputs) == ["box", "mask", "box_2", "box_3"]
    for name in ("box_2", "box_3"):
        boxes = np.array(stages.outputs[name]["boxes"])
        assert boxes.shape == (2, 16, 4)
        assert (boxes >= 0).all()
        assert (boxes <= [64, 96, 64, 96]).all()
    assert stages.outputs["mask"].shape == (2 * 8, 28, 28, 3)


@pytest.mark.parametrize(("head", "share"), [("box", 1 / 3), ("box_2", 1 / 3), ("box_3", 1 / 3), ("mask", 1.0)])
def test_a_third_of_a_stages_gradient_reaches_the_pyramid(made, head, share):
    config, submodels, batch, noise = made
    detector = TrainingDetector(submodels, config, batch, noise)
    levels = {name: tf.random.normal((2, 64 // size, 96 // size, 32)) for name, size in
              (("P2", 4), ("P3", 8), ("P4", 16), ("P5", 32))}  # fmt: skip
    boxes = np.tile(np.array([[8.0, 8.0, 40.0, 40.0]], "float32"), (2, 16, 1))
    with tf.GradientTape() as tape:
        tape.watch(levels)
        pooled = detector.pool(levels, boxes, batch["image_sizes"], head)
        total = tf.reduce_sum(pooled)
    # Each cell is a weighted mean of the level's: the gradient of the sum of all cells is their number.
    cells = sum(float(tf.reduce_sum(value)) for value in tape.gradient(total, levels).values() if value is not None)
    assert cells == pytest.approx(share * int(np.prod(pooled.shape)), rel=1e-3)
