"""Checks that heads which are added to the table of heads work through the one composition."""

import types

import keras
import numpy as np
import pytest
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, SamplingConfig
from kfpn.losses import box as box_losses
from kfpn.losses import training_losses as training
from kfpn.modeling import heads
from kfpn.modeling.detector import Detector, inference_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

SIZE = 5
"""Cells a side of the pooled RoIs of the two made-up heads. The box head has 7."""


def head_of(name, looks_at):
    """Returns the module of a made-up head. Its output (R, 1) follows from the mean of each pooled RoI; `seen` keeps its RoIs."""
    seen = []

    def build(config, channels, layers, make_units):
        inputs = keras.Input((SIZE, SIZE, channels), name=f"{name}_features")
        mean = keras.layers.GlobalAveragePooling2D(name=f"{name}_mean")(inputs)
        return keras.Model(inputs, keras.layers.Dense(1, name=f"{name}_out")(mean), name=f"{name}_head")

    def select(config, nms="rounds"):
        def values_of(outputs, rois, image_sizes):
            seen.append(rois)
            boxes = rois.boxes if looks_at == "proposals" else rois["boxes"]
            return {name: ops.reshape(outputs, (-1, boxes.shape[1]))}

        return values_of

    return types.SimpleNamespace(LOOKS_AT=looks_at, build=build, select=select, seen=seen)


class ThreeHeads(ModelConfig):
    """Is the configuration of a network with three heads."""

    heads = ("box", "first", "late")


@pytest.fixture
def made_up(monkeypatch):
    """Puts two heads into the table: `first` looks at proposals, `late` at detections."""
    modules = {"first": head_of("first", "proposals"), "late": head_of("late", "detections")}
    for name, module in modules.items():
        monkeypatch.setitem(heads.HEADS, name, module)
    return modules


def three_heads(**changes):
    keras.utils.set_random_seed(0)
    config = ThreeHeads(**{"num_classes": 3, "backbone": "resnet18", "norm": "gn", **tiny.SETTINGS, **changes})
    submodels = build_submodels(config)
    tiny.shake(submodels.weights_model)
    return config, submodels


def mean_of(submodels, head, pooled):
    """Returns the output (R, 1) of a made-up head for pooled RoIs (R, SIZE, SIZE, C)."""
    dense = submodels.heads[head].get_layer(f"{head}_out")
    return np.array(pooled).mean((1, 2)) @ np.array(dense.kernel) + np.array(dense.bias)


def test_the_weights_of_all_heads_are_in_the_weights_model(made_up):
    _, submodels = three_heads()
    assert list(submodels.heads) == ["box", "first", "late"]
    paths = {variable.path for variable in submodels.weights_model.variables}
    assert {"first_out/kernel", "late_out/kernel", "head_fc1/kernel"} <= paths


def test_at_inference_one_head_reads_the_proposals_and_the_late_head_the_detections(made_up):
    config, submodels = three_heads()
    detector, size = Detector(submodels, config, padded=False), np.array([[64, 96]], "int32")
    image = tiny.image(64, 96)[None].astype("float32")
    stages = detector.run(image, size)
    assert list(stages.outputs) == ["box", "first"]
    detections = {key: np.array(value) for key, value in detector.finish(stages, size).items()}
    assert set(detections) == {"boxes", "scores", "labels", "num_detections", "first", "late"}
    assert detections["first"].shape == (1, config.post_nms_test)
    assert detections["late"].shape == (1, config.max_detections)
    assert detections["num_detections"][0] > 0
    np.testing.assert_array_equal(np.array(made_up["first"].seen[-1].boxes), np.array(stages.rois.boxes))
    np.testing.assert_array_equal(np.array(made_up["late"].seen[-1]["boxes"]), detections["boxes"])
    for name, boxes in (("first", stages.rois.boxes), ("late", detections["boxes"])):
        pooled = detector.pool(stages.levels, boxes, size, name)
        assert pooled.shape == (boxes.shape[1], SIZE, SIZE, 32)
        np.testing.assert_allclose(detections[name][0], mean_of(submodels, name, pooled)[:, 0], atol=1e-4)


def test_the_model_has_the_outputs_of_all_heads_and_the_detections_of_the_box_head_alone(made_up):
    config, submodels = three_heads()
    image = tiny.image(64, 96)[None]
    detections = tiny.detect(inference_model(submodels, config), image)
    box_alone = submodels._replace(heads={"box": submodels.heads["box"]})
    for key, value in tiny.detect(inference_model(box_alone, config), image).items():
        np.testing.assert_array_equal(detections.pop(key), value)
    assert {key: value.shape for key, value in detections.items()} == {"first": (1, 40), "late": (1, 20)}


def test_in_training_all_heads_read_the_sampled_rois_and_their_losses_are_called(made_up, monkeypatch):
    config, submodels = three_heads(pre_nms_train=80, post_nms_train=50)
    config = Config(model=config, sampling=SamplingConfig(rpn_batch=32, roi_batch=16))
    seen = {}

    def loss_module(name):
        def losses(outputs, targets, batch, config):
            seen[name] = outputs, targets
            return {name: ops.sum(ops.reshape(outputs, (-1, config.sampling.roi_batch)), axis=1)}

        return box_losses if name == "box" else types.SimpleNamespace(losses=losses)

    monkeypatch.setattr(training, "find_loss", loss_module)
    rng = np.random.default_rng(0)
    batch = {
        "images": tiny.image(64, 96)[None],
        "image_sizes": np.array([[64, 96]], "int32"),
        "gt_boxes": np.array([[[4, 4, 40, 30], [10, 50, 60, 90]]], "float32"),
        "gt_labels": np.array([[0, 2]], "int32"),
        "gt_crowd": np.zeros((1, 2), bool),
    }
    shapes = training.noise_shapes(config, 64, 96, 2)
    noise = {key: rng.uniform(size=(1, *shape)).astype("float32") for key, shape in shapes.items()}
    losses = training.training_losses(submodels, config, batch, noise)
    assert set(losses) == {"rpn_class", "rpn_box", "roi_class", "roi_box", "first", "late"}
    assert all(np.isfinite(value).all() for value in losses.values())
    (first, rois), (late, of_late) = seen["first"], seen["late"]
    assert first.shape == late.shape == (16, 1)
    assert rois is of_late
    detector = Detector(submodels, config.model)
    levels = detector.features(batch["images"].astype("float32"), batch["image_sizes"], training=True)
    for name, outputs in (("first", first), ("late", late)):
        pooled = detector.pool(levels, rois.boxes, batch["image_sizes"], name)
        np.testing.assert_allclose(np.array(outputs), mean_of(submodels, name, pooled), atol=1e-4)
