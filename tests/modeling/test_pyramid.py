"""Checks the pyramids of tables 1 to 3: their parts, at even and odd sizes, and the numbers of another implementation."""

import importlib.util
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.config.model import ModelConfig, Pyramid
from kfpn.config.presets import BILINEAR_PYRAMID
from kfpn.modeling.detector import inference_model
from kfpn.modeling.proposals import level_anchors
from kfpn.modeling.pyramid import PYRAMIDS, Upsample, UpsampleAdd
from kfpn.modeling.submodels import build_submodels
from kfpn.ops.pyramid_levels import anchors_a_cell, pooled_levels, pooled_size, pre_nms, stride
from tests.modeling import tiny

WORDS = ("fpn", "bottom_up", "top_down", "finest", "c4", "c5")
OTHERS = (
    {"shared_rpn": False},
    {"upsampling": "bilinear", "merge": "average"},
    {**BILINEAR_PYRAMID, "anchor_sizes": (8.0, 16.0, 32.0, 64.0)},
)
ALL = [{"pyramid": word} for word in WORDS] + list(OTHERS)
BOTTLENECKS = ({"backbone": "resnet26"}, {"backbone": "resnet26", "pyramid": "c5"})
"""Settings of a backbone whose stages hold anything in their padding."""
SIZES = {"P2": (19, 26), "P3": (10, 13), "P4": (5, 7), "P5": (3, 4), "P6": (2, 2), "C4": (5, 7), "C5": (3, 4)}


def name_of(settings):
    return "-".join(str(value) for value in settings.values() if not isinstance(value, tuple))


def made(**settings):
    keras.utils.set_random_seed(0)
    config = tiny.config(**settings)
    submodels = build_submodels(config)
    tiny.shake(submodels.weights_model)
    return config, submodels


def maps(submodels, height=75, width=101):
    levels = submodels.features(tiny.image(height, width)[None].astype("float32"))
    return {name: np.array(level) for name, level in levels.items()}


@pytest.mark.parametrize(
    ("word", "levels", "channels"),
    [
        ("fpn", ("P2", "P3", "P4", "P5", "P6"), 32),
        ("bottom_up", ("P2", "P3", "P4", "P5", "P6"), 32),
        ("top_down", ("P2", "P3", "P4", "P5", "P6"), 32),
        ("finest", ("P2",), 32),
        ("c4", ("C4",), 128),
        ("c5", ("C5",), 256),
    ],
)
def test_every_pyramid_has_its_levels_at_odd_sizes(word, levels, channels):
    config, submodels = made(pyramid=word)
    assert config.levels == levels
    assert {name: level.shape for name, level in maps(submodels).items()} == {
        name: (1, *SIZES[name], channels) for name in levels
    }


@pytest.mark.parametrize(
    ("settings", "size"),
    [*((settings, (75, 101)) for settings in (*ALL, *BOTTLENECKS)), (ALL[0], (64, 96)), (OTHERS[-1], (64, 96))],
)
def test_an_image_has_the_same_detections_alone_and_padded(settings, size):
    config, submodels = made(**settings)
    image = tiny.image(*size)[None]
    alone = tiny.detect(inference_model(submodels, config), image)
    canvas = np.zeros((1, 128, 160, 3), "uint8")
    canvas[:, : size[0], : size[1]] = image
    inputs = {"images": canvas, "image_sizes": np.array([size], "int32")}
    padded = tiny.detect(inference_model(submodels, config, padded=True), inputs)
    assert alone["num_detections"][0] > 0
    np.testing.assert_allclose(alone["boxes"], padded["boxes"], atol=1e-3)
    np.testing.assert_allclose(alone["scores"], padded["scores"], atol=1e-5)


SAVED = [settings for settings in ALL if settings.get("pyramid") not in ("fpn", "bottom_up", "finest", "c5")]
"""Settings of different layers. Those that are left out have the layers of another one, or are saved in test_detector."""


@pytest.mark.parametrize("settings", SAVED, ids=name_of)
def test_a_saved_and_loaded_detector_has_the_same_detections(settings, tmp_path):
    settings = {**tiny.SETTINGS, **settings}
    model = kfpn.build_detector(3, "resnet18", norm="gn", **settings)
    tiny.shake(model)
    model.save(tmp_path / "detector.keras")
    again = keras.models.load_model(tmp_path / "detector.keras")
    image = tiny.image(75, 101)[None]
    before, after = tiny.detect(model, image), tiny.detect(again, image)
    for key in before:
        np.testing.assert_allclose(before[key], after[key], atol=1e-4)


def test_a_pyramid_without_the_levels_that_it_must_have_is_refused(monkeypatch):
    kind = PYRAMIDS["fpn"]
    without_p6 = kind._replace(build=lambda units, stages: dict(list(kind.build(units, stages).items())[:-1]))
    monkeypatch.setitem(PYRAMIDS, "fpn", without_p6)
    with pytest.raises(ValueError, match="pyramid fpn must give the levels P2, P3, P4, P5, P6, got P2, P3, P4, P5:"):
        build_submodels(tiny.config())


def test_every_pyramid_that_options_name_has_a_row_in_the_table():
    assert tuple(PYRAMIDS) == get_args(Pyramid) == WORDS


def levels_changed_by(submodels, layer):
    """Changes the weights of a layer, and returns the levels that change with them."""
    before = maps(submodels)
    kernel = submodels.features.get_layer(layer).kernel
    kernel.assign(kernel + 0.1)
    after = maps(submodels)
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_in_fpn_every_level_depends_on_c5():
    assert levels_changed_by(made(pyramid="fpn")[1], "lateral_5") == {"P2", "P3", "P4", "P5", "P6"}


def test_in_bottom_up_the_finer_levels_do_not_depend_on_c5():
    submodels = made(pyramid="bottom_up")[1]
    assert levels_changed_by(submodels, "lateral_5") == {"P5", "P6"}
    assert levels_changed_by(submodels, "lateral_3") == {"P3"}


def test_top_down_has_only_the_lateral_of_c5():
    submodels = made(pyramid="top_down")[1]
    names = {layer.name for layer in submodels.features.layers}
    assert {name for name in names if name.startswith("lateral_")} == {"lateral_5"}
    assert {f"output_{level}" for level in (2, 3, 4, 5)} <= names
    assert levels_changed_by(submodels, "lateral_5") == {"P2", "P3", "P4", "P5", "P6"}


def test_finest_is_the_p2_of_fpn_with_anchors_of_all_sizes():
    config, finest = made(pyramid="finest")
    fpn = made()[1]
    for layer in finest.features.layers:
        if layer.weights:
            layer.set_weights(fpn.features.get_layer(layer.name).get_weights())
    np.testing.assert_array_equal(maps(finest)["P2"], maps(fpn)["P2"])
    anchors = np.array(level_anchors(maps(finest, 32, 32), np.array([[32, 32]]), config)[0])[0]
    assert anchors.shape == (8 * 8 * 15, 4)
    # The anchors of cell (0, 0) are three ratios of the first size, then of the next ones. Ratio 1 is in the middle.
    np.testing.assert_allclose(anchors[[1, 4, 13]], [[-4, -4, 4, 4], [-8, -8, 8, 8], [-64, -64, 64, 64]], atol=1e-4)
    np.testing.assert_allclose(anchors[15 + 1], [-4, 0, 4, 8], atol=1e-4)


def test_c4_has_conv5_as_its_head_which_halves_the_pooled_features():
    config, submodels = made(pyramid="c4")
    assert not [layer.name for layer in submodels.features.layers if layer.name.startswith("conv5")]
    assert submodels.heads["box"].get_layer("conv5_1_1_conv").strides == (2, 2)
    assert submodels.heads["box"].input_shape == (None, 14, 14, 128)
    assert submodels.heads["box"].get_layer("conv5_2_2_conv").output.shape == (None, 7, 7, 256)
    assert {layer.name for layer in submodels.heads["box"].layers if "fc" in layer.name} == set()
    assert pooled_size(config) == 14


def test_one_level_has_as_many_anchors_and_candidates_as_five_together():
    one, many = tiny.config(pyramid="c5"), tiny.config()
    assert [stride(level) for level in many.levels] == [4, 8, 16, 32, 64]
    assert (anchors_a_cell(one), anchors_a_cell(many)) == (15, 3)
    assert (pooled_levels(one), pooled_levels(many)) == (("C5",), ("P2", "P3", "P4", "P5"))
    # One level has as many candidates for NMS as all five levels together.
    assert (pre_nms(60, one), pre_nms(60, many)) == (300, 60)


def test_without_shared_rpn_each_level_has_weights_of_its_own():
    shared, own = (made(shared_rpn=value)[1].rpn for value in (True, False))
    assert own.count_params() == 5 * shared.count_params()
    levels = {name: np.ones((1, 2, 2, 32), "float32") for name in ("P2", "P3", "P4", "P5", "P6")}
    logits = [[np.array(level) for level in rpn(levels)["logits"]] for rpn in (shared, own)]
    assert all(np.array_equal(level, logits[0][0]) for level in logits[0])
    assert not np.allclose(logits[1][0], logits[1][1])


def test_the_merge_average_is_half_of_the_sum():
    rng = np.random.default_rng(0)
    coarse, lateral = rng.normal(size=(2, 2, 3, 4)).astype("f"), rng.normal(size=(2, 3, 5, 4)).astype("f")
    total = np.array(UpsampleAdd()(coarse, lateral))
    np.testing.assert_allclose(np.array(UpsampleAdd(merge="average")(coarse, lateral)), total / 2, rtol=1e-6)
    # Nearest neighbours: the enlarged cell (i, j) has the value of cell (i // 2, j // 2).
    np.testing.assert_array_equal(total[:, 2, 4], lateral[:, 2, 4] + coarse[:, 1, 2])


def test_bilinear_upsampling_has_the_values_computed_by_hand():
    # Two cells become four with half-pixel centres, at the positions -.25 (clamped to 0), .25, .75 and 1.25 (clamped to 1).
    coarse = np.array([0.0, 4.0], "f").reshape(1, 1, 2, 1)
    enlarged = Upsample("bilinear")(coarse, np.zeros((1, 1, 4, 1), "f"))
    np.testing.assert_allclose(np.array(enlarged).ravel(), [0.0, 1.0, 3.0, 4.0], atol=1e-6)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
def test_bilinear_upsampling_is_tensorflows_resize_and_does_not_use_padding(size):
    height, width = size
    coarse = np.random.default_rng(0).normal(size=(1, -(-height // 2), -(-width // 2), 3)).astype("f")
    want = tf.image.resize(coarse, size).numpy()
    layer = Upsample("bilinear", stride=4)
    np.testing.assert_allclose(np.array(layer(coarse, np.zeros((1, *size, 1), "f"))), want, atol=1e-5)
    padded = np.pad(coarse, ((0, 0), (0, 3), (0, 2), (0, 0)), constant_values=9.0)
    pixels = np.array([[4 * height - 1, 4 * width - 3]])
    fine = np.zeros((1, 2 * padded.shape[1], 2 * padded.shape[2], 1), "f")
    enlarged = np.array(layer(padded, fine, pixels))
    np.testing.assert_allclose(enlarged[:, :height, :width], want, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pyramid": "fpm"}, "model.pyramid must be one of fpn, bottom_up"),
        ({"pyramid": "bottom_up", "merge": "average"}, "model.merge must be 'sum' with pyramid bottom_up"),
        ({"pyramid": "c4", "p6": False}, "model.p6 must be True with pyramid c4"),
        ({"pyramid": "finest", "shared_rpn": False}, "model.shared_rpn must be True with pyramid finest"),
        ({"pyramid": "c5", "anchor_sizes": ()}, "model.anchor_sizes must be positive numbers"),
        ({"p6": False}, "model.anchor_sizes must be 4 positive numbers, for P2 to P5"),
        ({"upsampling": "cubic"}, "model.upsampling must be one of nearest, bilinear"),
    ],
)
def test_the_error_for_settings_that_do_not_fit_each_other_names_them(settings, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)


# ------------------------------------------------------------------------------- the pyramid of another implementation


def other_implementation(shared):
    """Returns the folder with its outputs, its batch norms by name, and the rule that makes all its other weights."""
    folder = shared("parity/pytorch_fpn")
    spec = importlib.util.spec_from_file_location("parity_rule", folder.parent / "weights.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    return folder, dict(np.load(folder / "norms.npz")), rule


def their_names(layer):
    """Returns their name of a layer: `layer2.0.conv2` for `conv3_1_2_conv`, `latlayer1` for `lateral_4`."""
    pyramid = {"lateral_5": "toplayer", "lateral_4": "latlayer1", "lateral_3": "latlayer2", "lateral_2": "latlayer3"}
    pyramid |= {"output_4": "smooth1", "output_3": "smooth2", "output_2": "smooth3"}
    if layer in pyramid:
        return pyramid[layer]
    unit, kind = layer.rsplit("_", 1)
    if unit == "stem":
        return "conv1" if kind == "conv" else "bn1"
    stage, block, part = unit.removeprefix("conv").split("_")
    if part == "shortcut":
        return f"layer{int(stage) - 1}.{int(block) - 1}.shortcut.{0 if kind == 'conv' else 1}"
    return f"layer{int(stage) - 1}.{int(block) - 1}.{'conv' if kind == 'conv' else 'bn'}{part}"


@pytest.fixture(scope="module")
def theirs(shared):
    """Returns the folder of the other implementation, and our features with its weights."""
    folder, norms, rule = other_implementation(shared)
    config = ModelConfig(
        backbone="resnet26",
        norm="frozen_bn",
        freeze_stages=0,
        pixel_mean=(0, 0, 0),
        pixel_std=(1, 1, 1),
        **BILINEAR_PYRAMID,
    )
    features = build_submodels(config).features
    for layer in features.layers:
        if not layer.weights:
            continue
        name = their_names(layer.name)
        if layer.name.endswith("_norm"):
            layer.set_weights([norms[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
            continue
        shape = layer.kernel.shape
        weights = [rule.make_weight(f"{name}.weight", (shape[3], shape[2], *shape[:2]), 0).transpose(2, 3, 1, 0)]
        if layer.use_bias:
            weights.append(rule.make_weight(f"{name}.bias", (shape[3],), 0))
        layer.set_weights(weights)
    return folder, features


@pytest.mark.parametrize("file", ["out_96x128.npz", "out_75x101.npz"])
def test_the_bilinear_pyramid_has_the_numbers_of_another_implementation(theirs, file):
    folder, features = theirs
    expected = np.load(folder / file)
    levels = features(expected["input"].transpose(0, 2, 3, 1))
    assert set(levels) == {"P2", "P3", "P4", "P5"}
    for level, value in levels.items():
        want = expected[level].transpose(0, 2, 3, 1)
        assert np.abs(np.array(value) - want).max() <= 1e-4 * want.std(), level
