"""Tests `kfpn.propose_segments`: the same segments in all forms, and what it refuses."""

import io

import numpy as np
import pytest
from PIL import Image

import kfpn
from kfpn.config.run import InputConfig
from kfpn.inference.segments import segment_image
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.modeling.segmenter import segments_model
from tests.eager import eagerly
from tests.modeling import tiny

SETTINGS = {"norm": "gn", "backbone_width": 32, "segment_width": 16, "max_segments": 30, "pyramid_channels": 32}


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def models():
    """Returns a network without the input `image_sizes` and one with it, of the same weights."""
    config = kfpn.ModelConfig(num_classes=1, task="segments", backbone="resnet18", **SETTINGS)
    submodels = build_segment_submodels(config)
    pair = [segments_model(submodels, config, padded) for padded in (False, True)]
    for model in pair:
        model.input_config = InputConfig(64, 96)
    return pair


@pytest.fixture(scope="module")
def image():
    return tiny.image(90, 120).astype("uint8")


def test_paths_bytes_arrays_and_both_kinds_of_networks_give_the_same(models, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    (expected,) = kfpn.propose_segments(models[1], image)
    assert (len(expected), expected.image_size) == (30, (90, 120))
    assert (np.diff(expected.scores) <= 0).all()
    direct = segment_image(models[1], image, InputConfig(64, 96))
    np.testing.assert_allclose(expected.boxes, direct.boxes, atol=1e-3)
    several = kfpn.propose_segments(models[0], iter([tmp_path / "a.png", content.getvalue(), image]))
    for one in (*several, *kfpn.propose_segments(models[0], str(tmp_path / "a.png"))):
        np.testing.assert_allclose(one.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(one.windows, expected.windows)
        np.testing.assert_allclose(one.boxes, expected.boxes, atol=1e-3)
    rows = expected.to_coco(7)
    assert [row["image_id"] for row in rows] == [7] * 30


def test_windows_are_in_pixels_of_the_image_as_it_was_given(models, image):
    (small,), (large,) = (
        kfpn.propose_segments(models[0], picture)
        for picture in (image[:64, :96], np.repeat(np.repeat(image[:64, :96], 2, 0), 2, 1))
    )
    sides = [set(np.round(one.boxes[:, 2] - one.boxes[:, 0], 1).tolist()) for one in (small, large)]
    of_levels = {1.25 * size * factor for size in (32, 64, 128, 256, 512) for factor in (1, 2**0.5)}
    assert all(min(abs(side - known) for known in of_levels) < 0.2 for side in sides[0])
    assert all(min(abs(side - 2 * known) for known in of_levels) < 0.4 for side in sides[1])


def test_count_and_min_score_leave_out_the_least_sure(models, image):
    (whole,) = kfpn.propose_segments(models[0], image)
    (few,) = kfpn.propose_segments(models[0], image, count=3)
    np.testing.assert_array_equal(few.scores, whole.scores[:3])
    least = float(whole.scores[4])
    (sure,) = kfpn.propose_segments(models[0], image, min_score=least)
    assert len(sure) == int((whole.scores >= least).sum()) < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be a whole number of at least 1 or None, got 0"),
        ({"count": 2.0}, "count must be a whole number of at least 1 or None, got 2.0"),
        ({"min_score": 1.5}, "min_score must lie in 0..1, got 1.5"),
        ({"min_score": float("nan")}, "min_score must lie in 0..1, got nan"),
    ],
)
def test_options_out_of_range_are_refused(models, image, options, message):
    with pytest.raises(ValueError, match=message):
        kfpn.propose_segments(models[0], image, **options)


def test_other_models_and_what_is_no_image_are_refused(models, image, tmp_path):
    detector = kfpn.build_detector(num_classes=2, backbone="resnet18", norm="gn", backbone_width=32)
    for model in (detector, kfpn.build_segmenter("resnet18", **SETTINGS)):
        with pytest.raises(ValueError, match=r"segmenter must be a model of kfpn\.load_segmenter, or a work directory"):
            kfpn.propose_segments(model, image)
    with pytest.raises(ValueError, match=r"workdir must be a folder, got .*which does not exist"):
        kfpn.propose_segments(tmp_path / "none", image)
    with pytest.raises(ValueError, match=r"images must be paths, bytes or \(H, W, 3\) uint8 arrays, got float32"):
        kfpn.propose_segments(models[0], image.astype("float32"))
    with pytest.raises(ValueError, match="images must exist, got"):
        kfpn.propose_segments(models[0], [image, str(tmp_path / "none.png")])
