import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

import kfpn
from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture
from kfpn.evaluation.detect import detect_image
from kfpn.inference.predict_files import predict_files
from kfpn.inference.user_inputs import find_inputs
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from tests.eager import eagerly, graphs
from tests.modeling import tiny

NAMES = ("ant", "bee", "cat")
CONFIG = Config(data="seen", batch_size=2, input=InputConfig(64, 96), model=tiny.config())
KEYS = ("boxes", "scores", "labels")


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a work directory with random weights. Its detector has detections of high and low scores."""
    keras.utils.set_random_seed(0)
    submodels = build_submodels(CONFIG.model)
    tiny.shake(submodels.weights_model)
    workdir = Workdir(tmp_path_factory.mktemp("run"))
    workdir.prepare(CONFIG, NAMES, (1, 2, 3), "by hand")
    workdir.save_weights(submodels.weights_model)
    return workdir.path


@pytest.fixture(scope="module")
def detector(run):
    return kfpn.load_detector(run, padded=True)


def require_equal(detections, expected, atol=0.0):
    assert detections.names == expected.names
    for key in KEYS:
        np.testing.assert_allclose(getattr(detections, key), getattr(expected, key), rtol=0, atol=atol)


def test_arrays_and_files_give_the_detections_of_evaluation_in_original_pixels(detector, tmp_path):
    images = [tiny.image(50, 70, 1), tiny.image(128, 64, 2)]
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    same = [tmp_path / "one.png", str(tmp_path / "one.png"), (tmp_path / "one.png").read_bytes()]
    answers = kfpn.predict(detector, iter([images[0], *same]), min_score=0)
    assert [answer.image_size for answer in answers] == [(50, 70), (128, 64), (128, 64), (128, 64)]
    require_equal(answers[1], answers[2])
    require_equal(answers[1], answers[3])
    for image, answer in zip(images, answers, strict=False):
        expected = detect_image(detector, image, CONFIG.input)
        assert len(answer.boxes) > 5
        for key in KEYS:
            np.testing.assert_array_equal(getattr(answer, key), expected[key])
            assert getattr(answer, key).dtype == expected[key].dtype
        assert (answer.boxes[:, 2:] <= image.shape[:2]).all()
        assert answer.boxes[:, 2:].max() > 40
        assert answer.names == tuple(NAMES[label] for label in answer.labels)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_drawn_whole(detector, tmp_path):
    path, rule = tmp_path / "large.jpg", size_rule(CONFIG.input)
    Image.fromarray(tiny.image(301, 403, 5)).save(
        path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    )
    image = decode_picture(path, "it", rule)
    assert image.pixels.shape == (202, 151, 3)
    expected = detect_image(detector, image, CONFIG.input)
    (answer,) = kfpn.predict(detector, path, min_score=0)
    for key in KEYS:
        np.testing.assert_array_equal(getattr(answer, key), expected[key])
    assert 151 < answer.boxes[:, 2].max() <= 403
    tally = predict_files(detector, CONFIG, find_inputs([str(path)]), tmp_path / "out", 0.0)
    assert tally.line() == f"objects: {len(answer)}; images: 1 of 1"
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == len(answer)
    assert Image.open(tmp_path / "out" / "large.png").size == (301, 403)


def test_predicting_a_single_image_returns_a_list_of_one(detector):
    image = tiny.image(64, 64)
    (alone,) = kfpn.predict(detector, image)
    require_equal(alone, kfpn.predict(detector, (image,))[0])
    assert kfpn.predict(detector, []) == []


def test_a_work_directory_and_a_model_without_padding_have_the_same_detections(run, detector):
    image = tiny.image(50, 70, 3)
    (expected,) = kfpn.predict(detector, image, min_score=0)
    require_equal(kfpn.predict(run, image, min_score=0)[0], expected)
    require_equal(kfpn.predict(str(run), image, min_score=0)[0], expected)
    require_equal(kfpn.predict(kfpn.load_detector(run), image, min_score=0)[0], expected, atol=1e-3)


def test_detections_below_the_least_score_are_left_out(detector):
    image = tiny.image(64, 64)
    (whole,) = kfpn.predict(detector, image, min_score=0)
    limit = float(whole.scores[3])
    (best,) = kfpn.predict(detector, image, min_score=limit)
    count = int((whole.scores >= limit).sum())
    assert len(best.boxes) == len(best.names) == count < len(whole.scores)
    require_equal(kfpn.predict(detector, image, min_score=whole.scores[3])[0], best)  # a float32
    (usual,) = kfpn.predict(detector, image)
    assert len(usual) == (whole.scores >= 0.5).sum()


def test_a_model_is_compiled_once(detector):
    with graphs():
        kfpn.predict(detector, tiny.image(64, 64))
        traces = detector.compiled_detector.experimental_get_tracing_count()
        assert traces > 0
        kfpn.predict(detector, tiny.image(64, 64, 5))
        assert detector.compiled_detector.experimental_get_tracing_count() == traces


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("missing.png", "images must exist, got 'missing.png', which does not"),
        (["missing.png"], "images must exist, got 'missing.png', which does not"),
        ("text.png", r"text.png: is not an image"),
        (b"no image", r"images: the bytes of an image: is not an image"),
        (
            np.zeros((8, 8), np.uint8),
            r"images must be paths, bytes or \(H, W, 3\) uint8 arrays, got uint8 of shape \(8, 8\)",
        ),
        (np.zeros((8, 8, 4), np.uint8), r"got uint8 of shape \(8, 8, 4\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"got uint8 of shape \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.float32), r"got float32 of shape \(8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got uint8 of shape \(0, 8, 3\)"),
        ([None], r"images must be paths, bytes or \(H, W, 3\) uint8 arrays, got NoneType"),
        (7, r"images must be paths, bytes or \(H, W, 3\) uint8 arrays, got int"),
    ],
)
def test_the_error_for_something_that_is_no_image_is_one_sentence(detector, tmp_path, monkeypatch, images, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=message):
        kfpn.predict(detector, images)


def test_other_detectors_and_scores_are_refused(tmp_path, detector):
    image = tiny.image(64, 64)
    with pytest.raises(ValueError, match="workdir must be a folder, got 'nope', which does not exist"):
        kfpn.predict("nope", image)
    with pytest.raises(ValueError, match="workdir must be one that `kfpn train` made"):
        kfpn.predict(os.fspath(tmp_path), image)
    with pytest.raises(ValueError, match=r"detector must be a model of kfpn\.load_detector"):
        kfpn.predict(keras.Sequential(), image)
    segmenter = kfpn.build_segmenter("resnet18", norm="gn", backbone_width=32, segment_width=8, max_segments=4)
    with pytest.raises(ValueError, match=r"which proposes segments: kfpn\.propose_segments takes it"):
        kfpn.predict(segmenter, image)
    with pytest.raises(ValueError, match=r"min_score must lie in 0\.\.1 or be 'best' or None, got 2"):
        kfpn.predict(detector, image, min_score=2)
