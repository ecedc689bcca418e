import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

KEYS = ("boxes", "scores", "labels", "num_detections")


def test_build_detector_needs_no_argument():
    model = kfpn.build_detector()
    assert sorted(model.output) == sorted(KEYS)
    assert model.output["boxes"].shape == (None, 100, 4)
    # torchvision's fasterrcnn_resnet50_fpn for 80 classes and the background has 41.4 million with frozen norms.
    assert model.count_params() == pytest.approx(41.5e6, rel=0.01)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", r"a list of names, got 'cat': write a list, \['cat'\] for one class"),
        ({0: "cat", 1: "dog"}, "a list of names, got {0: 'cat', 1: 'dog'}"),
        (["cat", "dog", "cat"], "unique, got 'cat' more than once"),
        (["cat", 1], "text, got 1"),
        (["cat", " "], "text, got ' '"),
    ],
)
def test_names_that_are_no_list_of_different_names_are_refused(names, message):
    with pytest.raises(ValueError, match=f"^class_names must be {message}"):
        kfpn.build_detector(class_names=names)


@pytest.mark.parametrize("backbone", ["resnet18", "keras:mobilenet_v2"])
def test_channels_in_front_are_refused_in_one_line(backbone, monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    text = r"^keras\.config\.image_data_format\(\) must be 'channels_last', got 'channels_first': call"
    with pytest.raises(ValueError, match=text):
        kfpn.build_detector(2, backbone)
    with pytest.raises(ValueError, match=text):
        build_submodels(tiny.config())


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def of_any_size(request):
    return kfpn.build_detector(3, request.param, norm="gn", **tiny.SETTINGS)


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 32), (1, 1)])
def test_any_size_gives_well_formed_detections(of_any_size, size):
    model = of_any_size
    detections = tiny.detect(model, np.stack([tiny.image(*size), tiny.image(*size, seed=1)]))
    assert detections["boxes"].shape == (2, 20, 4)
    for b in range(2):
        number = detections["num_detections"][b]
        boxes, scores, labels = (detections[key][b] for key in KEYS[:3])
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= size).all()
        assert (np.diff(scores) <= 0).all()
        assert set(labels[:number]) <= {0, 1, 2}
        assert (labels[number:] == -1).all()
        assert not scores[number:].any()
        assert not boxes[number:].any()


def test_one_image_without_an_axis_of_images_is_refused_in_one_line(of_any_size):
    with pytest.raises(ValueError, match=r"^images must be \(B, H, W, 3\), got \(64, 96, 3\): write image\[None\]"):
        of_any_size.predict(np.zeros((64, 96, 3), np.uint8), verbose=0)


def test_the_pyramid_has_the_papers_strides_and_its_channels():
    submodels = build_submodels(tiny.config())
    levels = submodels.features(tiny.image(75, 101)[None].astype("float32"))
    cells = {level: tuple(x.shape[1:]) for level, x in levels.items()}
    expected = {"P2": (19, 26), "P3": (10, 13), "P4": (5, 7), "P5": (3, 4), "P6": (2, 2)}
    assert cells == {level: (*side, 32) for level, side in expected.items()}
    np.testing.assert_array_equal(np.array(levels["P6"]), np.array(levels["P5"])[:, ::2, ::2])


def test_uint8_and_float_images_give_the_same():
    model = kfpn.build_detector(3, "resnet18", norm="gn", **tiny.SETTINGS)
    image = tiny.image(64, 64)[None]
    for key in KEYS:
        np.testing.assert_array_equal(tiny.detect(model, image)[key], tiny.detect(model, image.astype("float32"))[key])


@pytest.mark.parametrize(
    ("backbone", "norm", "settings"),
    [  # each block and each norm once with the other's
        ("resnet18", "gn", {}),
        ("resnet50", "bn", {}),
        ("resnet50", "frozen_bn", {}),
        ("resnet18", "frozen_bn", tiny.FOREIGN),
    ],
)
def test_a_padded_image_has_the_detections_that_it_has_alone(backbone, norm, settings):
    keras.utils.set_random_seed(2)
    config = tiny.config(backbone=backbone, norm=norm, norm_heads=norm == "gn", **settings)
    submodels = build_submodels(config)
    tiny.shake(submodels.weights_model)
    alone, padded = (inference_model(submodels, config, padded) for padded in (False, True))
    sizes = np.array([[75, 101], [128, 90], [40, 64]], "int32")
    batch = np.zeros((3, 160, 192, 3), "float32")
    for i, (height, width) in enumerate(sizes):
        batch[i, :height, :width] = tiny.image(height, width, seed=i)
    together = tiny.detect(padded, {"images": batch, "image_sizes": sizes})
    for i, (height, width) in enumerate(sizes):
        single = tiny.detect(alone, batch[i : i + 1, :height, :width])
        assert single["num_detections"][0] > 0
        np.testing.assert_array_equal(single["num_detections"][0], together["num_detections"][i])
        np.testing.assert_array_equal(single["labels"][0], together["labels"][i])
        np.testing.assert_allclose(single["scores"][0], together["scores"][i], atol=1e-5)
        np.testing.assert_allclose(single["boxes"][0], together["boxes"][i], atol=2e-3)


def test_the_pixels_of_the_padding_do_not_change_the_pyramid():
    submodels = build_submodels(tiny.config())
    tiny.shake(submodels.weights_model)
    image = tiny.image(50, 70)[None].astype("float32")
    grey = np.full((1, 96, 96, 3), 200.0, "float32")
    grey[:, :50, :70] = image
    sizes = np.array([[50, 70]], "int32")
    levels = submodels.padded_features({"images": grey, "image_sizes": sizes})
    for level, expected in submodels.features(image).items():
        _, height, width, _ = expected.shape
        got = np.array(levels[level])
        np.testing.assert_allclose(got[:, :height, :width], np.array(expected), atol=1e-4)
        assert not got[:, height:].any()
        assert not got[:, :, width:].any()


@pytest.mark.parametrize("padded", [False, True])
def test_save_and_load_give_equal_outputs(tmp_path, padded):
    model = kfpn.build_detector(3, "resnet18", norm="bn", padded=padded, **tiny.SETTINGS)
    tiny.shake(model)
    inputs = tiny.image(64, 80)[None].astype("float32")
    if padded:
        inputs = {"images": inputs, "image_sizes": np.array([[60, 70]], "int32")}
    model.save(tmp_path / "detector.keras")
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    for key in KEYS:
        np.testing.assert_array_equal(tiny.detect(model, inputs)[key], tiny.detect(loaded, inputs)[key])


def test_mixed_precision_detects_in_float32():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = kfpn.build_detector(3, "resnet18", norm="gn", **tiny.SETTINGS)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    detections = tiny.detect(model, tiny.image(64, 64)[None])
    assert detections["boxes"].dtype == detections["scores"].dtype == np.float32
    assert np.isfinite(detections["boxes"]).all()


def test_stride_on_puts_the_stride_on_the_1x1_or_the_3x3_convolution():
    shapes = {}
    for place in ("1x1", "3x3"):
        features = build_submodels(tiny.config(backbone="resnet50", stride_on=place)).features
        shapes[place] = {n: features.get_layer(f"conv3_1_{n}_conv").strides for n in (1, 2)}
    assert shapes == {"1x1": {1: (2, 2), 2: (1, 1)}, "3x3": {1: (1, 1), 2: (2, 2)}}


def test_every_norm_of_the_backbone_has_the_configured_epsilon():
    for norm, heads in (("frozen_bn", False), ("gn", True)):
        features = build_submodels(tiny.config(norm=norm, norm_epsilon=1e-3, norm_heads=heads)).features
        epsilons = {layer.epsilon for layer in features.layers if layer.name.endswith("_norm")}
        assert epsilons == {1e-3}


def test_norm_heads_adds_norms_to_the_pyramid_and_the_box_head_only():
    names = {
        on: {v.path.split("/")[-2] for v in build_submodels(tiny.config(norm_heads=on)).weights_model.variables}
        for on in (False, True)
    }
    pyramid = {f"{part}_{level}_norm" for part in ("lateral", "output") for level in (2, 3, 4, 5)}
    assert names[True] - names[False] == pyramid | {"head_fc1_norm", "head_fc2_norm"}


def test_frozen_stages_and_frozen_norms_do_not_train():
    def trainable(**changes):
        return {v.path.split("/")[-2] for v in build_submodels(tiny.config(**changes)).features.trainable_variables}

    assert "stem_conv" in trainable(freeze_stages=0)
    two = trainable(freeze_stages=2)
    assert not any(name.startswith(("stem", "conv2")) for name in two)
    assert any(name.startswith("conv3") for name in two)
    assert {name.split("_")[0] for name in trainable(freeze_stages=5)} == {"lateral", "output"}
    assert not any(name.endswith("_norm") for name in trainable(norm="frozen_bn"))


def test_no_two_kernels_have_equal_initial_values():
    kernels = [v for v in build_submodels(tiny.config()).weights_model.variables if v.path.endswith("kernel")]
    seen = {np.array(v).tobytes() for v in kernels}
    assert len(seen) == len(kernels) > 30


def test_the_error_for_a_wrong_setting_names_it():
    with pytest.raises(ValueError, match="colour"):
        kfpn.build_detector(colour="red")
    with pytest.raises(ValueError, match=r"model\.backbone.*resnet18"):
        kfpn.build_detector(3, "resnet19")
    with pytest.raises(ValueError, match=r"model\.num_classes"):
        kfpn.build_detector(0)


# XLA takes longest to compile adaptive sampling, so only one of the cases has it.
@pytest.mark.parametrize(
    ("padded", "settings"),
    [
        (False, {}),
        # The next case has these settings but for RoIAlign's adaptive samples, which XLA compiles in tests/ops/test_roi_align.py.
        pytest.param(False, tiny.FOREIGN, marks=pytest.mark.slow),
        (True, {**tiny.FOREIGN, "sampling_ratio": 2}),
    ],
)
def test_predict_compiled_by_xla_gives_the_same_as_the_plain_call(padded, settings):
    model = kfpn.build_detector(3, "resnet18", norm="gn", padded=padded, **tiny.SETTINGS, **settings)
    model.compile(jit_compile=True)
    inputs = np.stack([tiny.image(64, 80), tiny.image(64, 80, seed=1)])
    if padded:
        inputs = {"images": inputs, "image_sizes": np.array([[64, 80], [33, 70]], "int32")}
    got, expected = model.predict(inputs, verbose=0), tiny.detect(model, inputs)
    np.testing.assert_array_equal(got["labels"], expected["labels"])
    np.testing.assert_allclose(got["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_allclose(got["boxes"], expected["boxes"], atol=2e-3)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_give_the_same_detections(backend, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    image, expected = tiny.image(75, 101)[None], {}
    for name, settings in (("own", {}), ("foreign", tiny.FOREIGN)):
        model = kfpn.build_detector(3, "resnet18", norm="gn", **tiny.SETTINGS, **settings)
        tiny.shake(model)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = model.predict(image, verbose=0)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import keras, numpy as np, kfpn.modeling.detector\n"
        "for name in ('own', 'foreign'):\n"
        f"    m = keras.models.load_model(r'{tmp_path}/' + name + '.keras')\n"
        f"    np.savez(r'{tmp_path}/' + name + '.npz', **m.predict(np.load(r'{tmp_path}/image.npy'), verbose=0))\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)
    for name, own in expected.items():
        got = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(got["labels"], own["labels"], err_msg=name)
        np.testing.assert_allclose(got["scores"], own["scores"], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(got["boxes"], own["boxes"], atol=2e-2, err_msg=name)
