"""Tests networks that propose segments: their outputs, which windows they take, and that padding leaves no trace."""

import keras
import numpy as np
import pytest

import kfpn
from kfpn.config.run import Config
from kfpn.modeling.networks import build_network
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.modeling.segmenter import Segmenter, segments_model
from kfpn.modeling.submodels import build_submodels
from kfpn.ops.segment_windows import window_boxes, window_count
from tests.modeling import tiny

COUNT = 60
SETTINGS = {"anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0), "segment_width": 24, "max_segments": COUNT}


def settings(**changes):
    return tiny.config(task="segments", **{**SETTINGS, **changes})


def built(padded=False, **changes):
    config = settings(**changes)
    submodels = build_segment_submodels(config)
    tiny.shake(submodels.weights_model)
    return config, submodels, segments_model(submodels, config, padded)


def test_the_outputs_are_the_best_windows_and_masks_within_them():
    config, submodels, model = built()
    image = tiny.image(64, 96)[None]
    outputs = tiny.detect(model, image)
    assert {name: value.shape for name, value in outputs.items()} == {
        "masks": (1, COUNT, 14, 14), "boxes": (1, COUNT, 4), "scores": (1, COUNT), "levels": (1, COUNT), "windows": (1, COUNT),
    }  # fmt: skip
    scores = outputs["scores"][0]
    assert (np.diff(scores) <= 0).all()
    assert 0 < outputs["masks"].min() < outputs["masks"].max() < 1
    # Training computes the same numbers from each window's own cells: of all windows, the best are those.
    segmenter = Segmenter(submodels, config)
    sizes = np.array([[64, 96]], "int32")
    count = window_count(config, 64, 96)
    levels = segmenter.pyramid(image, sizes, training=False)
    logits, masks = (
        np.array(part)[0] for part in segmenter.at_windows(levels, np.arange(count, dtype="int32")[None], count)
    )
    order = np.argsort(-logits, kind="stable")[:COUNT]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[order])), rtol=1e-5)
    np.testing.assert_allclose(outputs["masks"][0], 1 / (1 + np.exp(-masks[order])), atol=1e-5)
    counts = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    np.testing.assert_array_equal(outputs["boxes"][0], np.array(window_boxes(counts, config))[order])
    kinds = np.repeat([5, 7], count // 2)
    places = np.tile(np.repeat([2, 3, 4, 5, 6], [h * w for h, w in counts]), 2)
    np.testing.assert_array_equal(outputs["windows"][0], kinds[order])
    np.testing.assert_array_equal(outputs["levels"][0], places[order])


@pytest.mark.parametrize("changes", [{}, {"norm_heads": True, "smooth_p5": False}], ids=["plain", "norms"])
def test_padding_leaves_no_trace(changes):
    _, submodels, padded = built(padded=True, **changes)
    alone = segments_model(submodels, settings(**changes))
    canvas = np.full((2, 96, 128, 3), 91, "uint8")
    images = [tiny.image(50, 70), tiny.image(96, 65, seed=1)]
    for row, image in enumerate(images):
        canvas[row, : image.shape[0], : image.shape[1]] = image
    sizes = np.array([image.shape[:2] for image in images], "int32")
    together = tiny.detect(padded, {"images": canvas, "image_sizes": sizes})
    for row, image in enumerate(images):
        own = tiny.detect(alone, image[None])
        for name, value in own.items():
            np.testing.assert_allclose(together[name][row], value[0], atol=2e-5, err_msg=name)


def test_an_image_with_fewer_windows_than_segments_has_empty_rows():
    _, _, model = built(max_segments=200)
    outputs = tiny.detect(model, tiny.image(32, 32)[None])
    exists = window_count(settings(), 32, 32)
    assert exists == 2 * (64 + 16 + 4 + 1 + 1)
    assert (outputs["scores"][0, :exists] > 0).all()
    assert (outputs["levels"][0, :exists] > 0).all()
    for name in ("scores", "boxes", "masks", "levels", "windows"):
        assert not outputs[name][0, exists:].any(), name


@pytest.mark.parametrize(("windows", "cells", "side"), [("5x5", 5, 28), ("7x7", 7, 14)])
def test_one_kind_of_window_and_masks_of_28_cells(windows, cells, side):
    _, submodels, model = built(segment_windows=windows, segment_side=side)
    outputs = tiny.detect(model, tiny.image(48, 48)[None])
    assert set(submodels.windows) == {windows}
    assert set(outputs["windows"].ravel().tolist()) == {cells}
    assert outputs["masks"].shape == (1, COUNT, side, side)


def test_a_single_level_of_stride_16_has_windows_of_one_size_and_padding_leaves_no_trace_in_it():
    changes = {"pyramid": "c4", "anchor_sizes": (40.0,), "segment_windows": "5x5", "max_segments": 30}
    _, submodels, padded = built(padded=True, **changes)
    alone = segments_model(submodels, settings(**changes))
    image = tiny.image(50, 70)
    canvas = np.full((1, 96, 128, 3), 91, "uint8")
    canvas[0, :50, :70] = image
    together = tiny.detect(padded, {"images": canvas, "image_sizes": np.array([[50, 70]], "int32")})
    own = tiny.detect(alone, image[None])
    exists = 4 * 5  # 50 x 70 pixels are 4 x 5 cells
    assert own["levels"][0].tolist() == [4] * exists + [0] * 10
    sides = own["boxes"][0, :exists, 2:] - own["boxes"][0, :exists, :2]
    np.testing.assert_array_equal(sides, 1.25 * 40)
    for name, value in own.items():
        np.testing.assert_allclose(together[name], value, atol=2e-5, err_msg=name)


def test_the_public_function_builds_the_papers_network_and_a_saved_one_gives_the_same(tmp_path):
    model = kfpn.build_segmenter("resnet18", norm="gn", backbone_width=32, **SETTINGS)
    assert model.model_config.pyramid_channels == 128
    assert model.model_config.task == "segments"
    hidden = model.get_layer("segment_hidden_7x7")
    assert hidden.get_layer("segment_7x7_conv").kernel.shape == (7, 7, 128, 24)
    tiny.shake(model)
    model.save(tmp_path / "segmenter.keras")
    again = keras.models.load_model(tmp_path / "segmenter.keras")
    assert again.model_config == model.model_config
    tiny.require_same_detections(model, again, tiny.image(48, 64)[None])


def test_windows_of_all_levels_share_their_weights():
    submodels = build_segment_submodels(settings())
    names = [variable.path for variable in submodels.weights_model.variables if "segment_" in variable.path]
    assert len(names) == len(set(names)) == 2 * 3 * 2
    assert build_network(Config(model=settings())).windows.keys() == submodels.windows.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": True}, "model.mask must be off with model.task segments"),
        ({"cascade": True}, "model.cascade must be off with model.task segments"),
        ({"padding": "foreign"}, "model.padding must be zero with model.task segments, got foreign"),
        (
            {"pyramid": "c5", "anchor_sizes": (32.0,)},
            "model.pyramid must be one of fpn, bottom_up, top_down, c4 with model.task segments, got c5",
        ),
        (
            {"pyramid": "c4"},
            r"model.anchor_sizes must be one number with model.task segments and pyramid c4, got \(8.0, 16.0",
        ),
        (
            {"pyramid": "c4", "anchor_sizes": (32.0,)},
            "model.segment_windows must be 5x5 or 7x7 with pyramid c4, got both",
        ),
        ({"segment_windows": "3x3"}, "model.segment_windows must be one of both, 5x5, 7x7, got '3x3'"),
        ({"segment_side": 0}, "model.segment_side must be an integer of at least 1, got 0"),
        (
            {"anchor_sizes": (32.0, 16.0, 64.0, 128.0, 256.0)},
            r"model.anchor_sizes must rise with model.task segments, got \(32.0, 16.0, 64.0",
        ),
        ({"anchor_sizes": (32.0, 32.0, 64.0, 128.0, 256.0)}, r"model.anchor_sizes must rise with model.task segments"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_a_detector_is_not_built_from_settings_of_segments_nor_the_other_way_round():
    with pytest.raises(ValueError, match=r"model.task must be detections for a detector, got segments"):
        build_submodels(settings())
    with pytest.raises(ValueError, match=r"model.task must be segments for segments, got detections"):
        build_segment_submodels(tiny.config())
    for unused in ({"mask": True}, {"score_threshold": 0.5}):
        with pytest.raises(
            ValueError, match=rf"build_segmenter settings must be fields of .*, got .'{next(iter(unused))}'"
        ):
            kfpn.build_segmenter(**unused)
    with pytest.raises(ValueError, match=r"build_detector settings must be those of a detector, got .'segment_side'"):
        kfpn.build_detector(segment_side=28)
    model = built()[2]
    with pytest.raises(ValueError, match=r"detector must be a model of kfpn.build_detector, got segmenter_fpn"):
        kfpn.trainable(model)
