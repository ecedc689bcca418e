import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn
from kfpn.modeling.detector import Detector, inference_model
from kfpn.modeling.heads.mask import Deconvolution, DetectionMasks, own_logits
from kfpn.modeling.submodels import build_submodels
from kfpn.ops.mask_paste import paste_masks
from kfpn.runs.precision import dtype_policy
from tests.modeling import tiny

MASKS = {"mask": True, "mask_channels": 8, "max_detections": 6}


def detector(padded=False, **changes):
    keras.utils.set_random_seed(0)
    model = kfpn.build_detector(3, "resnet18", padded=padded, **{"norm": "gn", **tiny.SETTINGS, **MASKS, **changes})
    return shaken(model)


def shaken(model):
    """Gives a model random norms and biases, and masks that are not .5 everywhere."""
    tiny.shake(model)
    for variable in model.variables:
        if variable.path.endswith("mask_logits/kernel"):
            variable.assign(np.random.default_rng(3).normal(0, 1, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return detector()


def test_each_row_takes_the_mask_of_its_own_class():
    logits = np.arange(2 * 2 * 2 * 3, dtype=np.float32).reshape(2, 2, 2, 3)
    got = np.array(own_logits(logits, np.array([2, 0], np.int32)))
    np.testing.assert_array_equal(got, [logits[0, ..., 2], logits[1, ..., 0]])


def test_a_label_that_is_no_class_has_zeros_and_one_mask_for_all_is_everyones():
    logits = np.ones((2, 2, 2, 3), np.float32)
    assert not np.array(own_logits(logits, np.array([-1, 3], np.int32))).any()
    np.testing.assert_array_equal(own_logits(logits[..., :1], np.array([-1, 7], np.int32)), np.ones((2, 2, 2)))


def test_masks_are_the_sigmoid_of_the_logits_and_zeros_in_empty_rows():
    logits = np.log(np.array([3.0, 1.0], np.float32)).repeat(4).reshape(2, 2, 2, 1)
    masks = np.array(DetectionMasks()(logits, np.array([[0, -1]], np.int32)))
    np.testing.assert_allclose(masks, [[np.full((2, 2), 0.75), np.zeros((2, 2))]], atol=1e-6)


def test_the_deconvolution_is_that_of_keras_with_the_same_weights():
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    ours, keras_own = Deconvolution(6, bias_initializer="normal"), keras.layers.Conv2DTranspose(6, 2, strides=2)
    outputs = ours(images)
    keras_own.build(images.shape)
    keras_own.set_weights(ours.get_weights())
    np.testing.assert_allclose(outputs, keras_own(images), atol=1e-5)
    with_relu = Deconvolution.from_config({**ours.get_config(), "activation": "relu"})
    with_relu.build(images.shape)
    with_relu.set_weights(ours.get_weights())
    np.testing.assert_array_equal(with_relu(images), np.maximum(outputs, 0.0))
    assert Deconvolution.from_config(ours.get_config()).get_config() == ours.get_config()


def test_the_convolutions_start_from_weights_of_their_own():
    head = build_submodels(tiny.config(**MASKS)).heads["mask"]
    second, third, fourth = (np.array(head.get_layer(f"mask_conv{i}").kernel) for i in (2, 3, 4))
    assert second.shape == third.shape == fourth.shape
    assert not any(np.array_equal(one, other) for one, other in ((second, third), (third, fourth), (second, fourth)))


def test_a_detector_with_masks_has_one_for_each_detection(model):
    outputs = tiny.detect(model, np.stack([tiny.image(75, 101), tiny.image(75, 101, 1)]))
    assert outputs["masks"].shape == (2, 6, 28, 28)
    assert outputs["masks"].dtype == np.float32
    filled = np.arange(6) < outputs["num_detections"][:, None]
    masks = outputs["masks"].max((2, 3))
    assert filled.any()
    assert (masks[filled] > 0).all()
    assert (outputs["masks"] <= 1).all()
    assert not masks[~filled].any()


def test_the_head_reads_the_detections_at_twice_the_size_of_the_box_heads_cells():
    config = tiny.config(**MASKS)
    submodels = build_submodels(config)
    shaken(submodels.weights_model)
    image, size = tiny.image(64, 96)[None].astype("float32"), np.array([[64, 96]], np.int32)
    one = Detector(submodels, config, padded=False)
    stages = one.run(image, size)
    assert list(stages.outputs) == ["box"]
    found = one.finish(stages, size)
    pooled = one.pool(stages.levels, found["boxes"], size, "mask")
    assert tuple(pooled.shape) == (6, 14, 14, 32)
    logits = np.array(submodels.heads["mask"](pooled))
    assert logits.shape == (6, 28, 28, 3)
    labels = np.array(found["labels"])[0]
    for row in np.flatnonzero(labels >= 0):
        expected = 1 / (1 + np.exp(-logits[row, ..., labels[row]]))
        np.testing.assert_allclose(np.array(found["masks"])[0, row], expected, atol=1e-5)


def test_boxes_are_those_of_the_detector_without_masks():
    config = tiny.config(**MASKS)
    submodels = build_submodels(config)
    shaken(submodels.weights_model)
    image = tiny.image(64, 96)[None]
    with_masks = tiny.detect(inference_model(submodels, config), image)
    alone = inference_model(submodels._replace(heads={"box": submodels.heads["box"]}), config)
    for name, value in tiny.detect(alone, image).items():
        np.testing.assert_array_equal(with_masks[name], value, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_classes": "agnostic"},
        {"norm": "bn"},
        {"norm_heads": True},
        {"num_classes": 1},
        *({"pyramid": pyramid} for pyramid in ("bottom_up", "top_down", "finest", "c4", "c5")),
        tiny.FOREIGN,
        {"padding": "foreign"},
    ],
    ids=str,
)
def test_masks_work_with_every_pyramid_norm_and_foreign_setting(changes):
    classes = changes.get("num_classes", 3)
    settings = {"norm": "gn", **tiny.SETTINGS, **MASKS, **changes, "num_classes": classes}
    model = shaken(kfpn.build_detector(backbone="resnet18", **settings))
    outputs = tiny.detect(model, tiny.image(64, 96)[None])
    count = outputs["num_detections"][0]
    assert count > 0
    assert np.isfinite(outputs["masks"]).all()
    assert (outputs["masks"][0, :count].max((1, 2)) > 0).all()
    head = {variable.path: variable.shape for variable in model.variables if "mask_logits/kernel" in variable.path}
    assert [shape[-1] for shape in head.values()] == [1 if "mask_classes" in changes else classes]


def test_padding_leaves_no_trace_in_the_masks():
    alone, padded = detector(), detector(padded=True)
    image = tiny.image(64, 96)
    batch = np.zeros((2, 96, 128, 3), np.uint8)
    batch[0, :64, :96], batch[1] = image, tiny.image(96, 128, 1)
    sizes = np.array([[64, 96], [96, 128]], np.int32)
    expected = tiny.detect(alone, image[None])
    got = tiny.detect(padded, {"images": batch, "image_sizes": sizes})
    np.testing.assert_array_equal(got["labels"][0], expected["labels"][0])
    np.testing.assert_allclose(got["masks"][0], expected["masks"][0], atol=1e-3)


def test_a_saved_detector_has_the_same_masks(model, tmp_path):
    model.save(tmp_path / "m.keras")
    image = tiny.image(64, 96)[None]
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(tiny.detect(loaded, image)["masks"], tiny.detect(model, image)["masks"])


def test_masks_are_float32_in_mixed_precision():
    with dtype_policy("mixed_bfloat16"):
        model = detector()
    outputs = tiny.detect(model, tiny.image(64, 96)[None])
    assert outputs["masks"].dtype == np.float32
    assert np.isfinite(outputs["masks"]).all()
    assert {layer.name: layer.compute_dtype for layer in model.layers if layer.name == "masks"} == {"masks": "float32"}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_give_the_same_masks(model, backend, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    image = tiny.image(75, 101)[None]
    model.save(tmp_path / "detector.keras")
    np.save(tmp_path / "image.npy", image)
    code = (
        "import keras, numpy as np, kfpn.modeling.detector\n"
        "from kfpn.ops.mask_paste import paste_masks\n"
        f"m = keras.models.load_model(r'{tmp_path}/detector.keras')\n"
        f"got = m.predict(np.load(r'{tmp_path}/image.npy'), verbose=0)\n"
        "to = keras.ops.convert_to_tensor\n"
        "for rule in ('sampled', 'resized'):\n"
        "    pasted = paste_masks(to(got['masks'][0]), to(got['boxes'][0]), 75, 101, rule=rule)\n"
        "    got['pasted_' + rule] = keras.ops.convert_to_numpy(pasted)\n"
        f"np.savez(r'{tmp_path}/got.npz', **got)\n"
    )
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)
    got, expected = np.load(tmp_path / "got.npz"), tiny.detect(model, image)
    np.testing.assert_array_equal(got["labels"], expected["labels"])
    np.testing.assert_allclose(got["masks"], expected["masks"], atol=2e-3)
    for rule in ("sampled", "resized"):
        pasted = paste_masks(got["masks"][0], got["boxes"][0], 75, 101, rule=rule)
        assert (got[f"pasted_{rule}"] != pasted).mean() < 1e-4


def test_wrong_settings_of_masks_are_named():
    for field, value, words in (
        ("mask_channels", 0, "model.mask_channels must"),
        ("mask_classes", "some", "model.mask_classes must be"),
        ("pasting", "nearest", "model.pasting must be"),
    ):
        with pytest.raises(ValueError, match=words):
            kfpn.build_detector(3, "resnet18", mask=True, **{field: value})
