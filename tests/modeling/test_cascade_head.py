"""Tests the cascade of box heads at inference: each stage against NumPy, what the stages say together, and files."""

import keras
import numpy as np
import pytest

import kfpn
from kfpn.export.raw_detector import RawDetector
from kfpn.modeling.detector import inference_model
from kfpn.modeling.fast_rcnn import fast_rcnn_model, proposals_model
from kfpn.modeling.heads.cascade import JoinedStages, MovedBoxes, delta_scale
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.precision import dtype_policy
from tests.modeling import tiny

CASCADE = {"cascade": True, "mask": True, "mask_channels": 8, "max_detections": 6}
SIZE = np.array([[64, 96]], np.int32)


def shaken(model):
    """Gives a model norms, biases and last layers with random values, so that its stages differ and move boxes."""
    tiny.shake(model)
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if variable.path.endswith("kernel") and any(
            name in variable.path for name in ("head_logits", "head_deltas", "mask_logits")
        ):
            variable.assign(rng.normal(0.0, 0.5, variable.shape))
    return model


def detector(**changes):
    keras.utils.set_random_seed(0)
    return shaken(kfpn.build_detector(3, "resnet18", **{"norm": "gn", **tiny.SETTINGS, **CASCADE, **changes}))


@pytest.fixture(scope="module")
def model():
    return detector()


@pytest.fixture(scope="module")
def parts():
    config = tiny.config(**CASCADE)
    submodels = build_submodels(config)
    shaken(submodels.weights_model)
    return config, submodels


def moved(deltas, boxes, factors, size=(64, 96)):
    """Moves boxes (R, 4) yxyx by deltas (R, 4), which were multiplied by four factors, and cuts them to an image."""
    dy, dx, dh, dw = (deltas / factors).T
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    y, x = boxes[:, 0] + height / 2 + dy * height, boxes[:, 1] + width / 2 + dx * width
    height, width = height * np.exp(dh), width * np.exp(dw)
    corners = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
    return np.clip(corners, 0.0, [*size, *size])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def box_head(head, pooled, ending):
    """Computes a box head with NumPy: pooled RoIs (R, 7, 7, C) -> logits (R, K + 1) and deltas (R, 4)."""

    def dense(x, name):
        layer = head.get_layer(f"{name}{ending}")
        return x @ np.array(layer.kernel) + np.array(layer.bias)

    x = np.maximum(dense(np.array(pooled).reshape(len(pooled), -1), "head_fc1"), 0.0)
    x = np.maximum(dense(x, "head_fc2"), 0.0)
    return dense(x, "head_logits"), dense(x, "head_deltas")


def test_the_factors_of_the_deltas_are_those_of_the_stages():
    assert [delta_scale(stage) for stage in (1, 2, 3)] == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]


def test_boxes_move_by_the_deltas_of_their_stage_and_are_cut_to_their_image():
    boxes = np.array([[[10, 20, 30, 60], [0, 0, 40, 40], [0, 0, 0, 0]]], np.float32)
    deltas = np.array([[2, 4, 10 * np.log(2), 0], [0, 0, 0, 10 * np.log(3)], [9, 9, 9, 9]], np.float32)[:, None]
    got = MovedBoxes(delta_scale(2))(deltas, boxes, np.array([[35, 64]], np.int32))
    # The centre (20, 40) moves by .1 of 20 and .2 of 40, the height doubles; the second box is cut to 35 x 64.
    np.testing.assert_allclose(got, [[[2, 28, 35, 64], [0, 0, 35, 64], [0, 0, 0, 0]]], atol=1e-4)
    layer = MovedBoxes.from_config(MovedBoxes(delta_scale(3)).get_config())
    assert layer.scale == (30, 30, 15, 15)


def test_the_stages_have_the_mean_of_their_scores_and_the_deltas_of_the_last():
    scores = np.array([[[0.2, 0.8], [1.0, 0.0]], [[0.4, 0.6], [1.0, 0.0]], [[0.9, 0.1], [1.0, 0.0]]], np.float32)
    with np.errstate(divide="ignore"):
        logits = list(np.maximum(np.log(scores), -200.0) + 7)
    joined = JoinedStages()(logits, np.array([[[3, 6, 9, 12]], [[0, 3, 0, 0]]], np.float32))
    np.testing.assert_allclose(softmax(np.array(joined["logits"])), [[0.5, 0.5], [1.0, 0.0]], atol=1e-6)
    assert np.isfinite(joined["logits"]).all()
    np.testing.assert_allclose(joined["deltas"], [[[1, 2, 3, 4]], [[0, 1, 0, 0]]], atol=1e-6)


def test_each_stage_computes_what_numpy_computes_on_the_boxes_that_the_one_before_has_moved(parts):
    config, submodels = parts
    one = RawDetector(submodels, config, padded=False)
    stages = one.run(tiny.image(64, 96)[None].astype("float32"), SIZE)
    assert list(stages.outputs) == ["box", "box_2", "box_3"]
    boxes, scores = np.array(stages.rois.boxes)[0], []
    proposals = boxes
    for number, (name, outputs) in enumerate(stages.outputs.items(), start=1):
        if number > 1:
            np.testing.assert_allclose(np.array(outputs["boxes"])[0], boxes, atol=1e-3)
        ending = f"_{number}" if number > 1 else ""
        pooled = one.pool(stages.levels, boxes[None].astype("float32"), SIZE, name)
        logits, deltas = box_head(submodels.heads[name], pooled, ending)
        np.testing.assert_allclose(outputs["logits"], logits, atol=1e-3)
        np.testing.assert_allclose(np.array(outputs["deltas"])[:, 0], deltas, atol=1e-3)
        scores.append(softmax(logits))
        boxes = moved(deltas, boxes, number * np.array([10, 10, 5, 5]))
    raw = one.finish(stages, SIZE)
    real = np.isfinite(np.array(stages.rois.scores)[0])
    assert real.sum() > 5
    assert np.abs(boxes - proposals)[real].max() > 3.0
    np.testing.assert_allclose(np.array(raw["scores"])[0][real], np.mean(scores, axis=0)[real, :-1], atol=1e-4)
    assert not np.array(raw["scores"])[0][~real].any()
    for label in range(3):
        np.testing.assert_allclose(np.array(raw["boxes"])[0, :, label], boxes, atol=5e-3)


def test_the_stages_have_weights_of_their_own_and_one_box_for_all_classes(parts):
    submodels = parts[1]
    assert list(submodels.heads) == ["box", "box_2", "box_3", "mask"]
    kernels = [
        np.array(submodels.heads[name].get_layer(layer).kernel)
        for name, layer in (("box", "head_fc1"), ("box_2", "head_fc1_2"), ("box_3", "head_fc1_3"))
    ]
    assert not any(np.array_equal(kernels[i], kernels[i - 1]) for i in range(3))
    paths = {variable.path: tuple(variable.shape) for variable in submodels.weights_model.variables}
    assert [paths[f"head_deltas{ending}/kernel"] for ending in ("", "_2", "_3")] == [(32, 4)] * 3
    assert len(paths) == len(submodels.weights_model.variables)


def test_masks_are_those_of_the_last_boxes(model):
    outputs = tiny.detect(model, np.stack([tiny.image(75, 101), tiny.image(75, 101, 1)]))
    assert outputs["masks"].shape == (2, 6, 28, 28)
    filled = np.arange(6) < outputs["num_detections"][:, None]
    assert filled.any()
    assert (outputs["masks"].max((2, 3))[filled] > 0).all()
    assert (outputs["labels"][filled] >= 0).all()


def test_a_padded_image_has_the_detections_that_it_has_alone(parts):
    config, submodels = parts
    alone, padded = (inference_model(submodels, config, padded) for padded in (False, True))
    batch, sizes = np.zeros((2, 96, 128, 3), np.uint8), np.array([[64, 96], [96, 128]], np.int32)
    batch[0, :64, :96], batch[1] = tiny.image(64, 96), tiny.image(96, 128, 1)
    single = tiny.detect(alone, batch[:1, :64, :96])
    together = tiny.detect(padded, {"images": batch, "image_sizes": sizes})
    assert single["num_detections"][0] > 0
    np.testing.assert_array_equal(together["labels"][0], single["labels"][0])
    np.testing.assert_allclose(together["scores"][0], single["scores"][0], atol=1e-4)
    np.testing.assert_allclose(together["boxes"][0], single["boxes"][0], atol=2e-2)


def test_a_saved_detector_has_the_same_detections_and_shares_its_parts(model, tmp_path):
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    tiny.require_same_detections(model, loaded, tiny.image(64, 96)[None])
    assert loaded.model_config.cascade
    model.input_config = kfpn.InputConfig(short_side=64, long_side=96)
    kfpn.save_detector(model, tmp_path / "folder")
    tiny.require_same_detections(model, kfpn.load_detector(tmp_path / "folder"), tiny.image(64, 96)[None])
    assert "A Cascade Mask R-CNN with" in (tmp_path / "folder" / "README.md").read_text()


def test_mixed_precision_detects_in_float32():
    with dtype_policy("mixed_bfloat16"):
        outputs = tiny.detect(detector(), tiny.image(64, 96)[None])
    assert {str(value.dtype) for value in outputs.values()} == {"float32", "int32"}
    assert all(np.isfinite(value).all() for value in outputs.values())


def test_on_given_proposals_a_cascade_has_the_detections_of_the_whole_detector(parts):
    config, submodels = parts
    inputs = {"images": tiny.image(64, 96)[None], "image_sizes": SIZE}
    whole = tiny.detect(inference_model(submodels, config, padded=True), inputs)
    proposals = tiny.detect(proposals_model(submodels, config, config.post_nms_test), inputs)["boxes"]
    given = tiny.detect(fast_rcnn_model(submodels, config), {**inputs, "proposals": proposals})
    assert whole["num_detections"][0] > 0
    for key, value in whole.items():
        np.testing.assert_allclose(given[key], value, atol=1e-3)


def test_settings_that_a_cascade_cannot_have_are_named():
    with pytest.raises(ValueError, match=r"model\.cascade must be off with pyramid c4, got both: the box head of c4"):
        kfpn.build_detector(3, "resnet18", cascade=True, pyramid="c4")
    with pytest.raises(ValueError, match=r"roi_positive_iou must be at most 0\.6 with model\.cascade, got 0\.65"):
        kfpn.Config(model=kfpn.ModelConfig(cascade=True), sampling=kfpn.SamplingConfig(roi_positive_iou=0.65))
    with pytest.raises(ValueError, match=r"model\.cascade must be"):
        kfpn.build_detector(3, "resnet18", cascade="three")
