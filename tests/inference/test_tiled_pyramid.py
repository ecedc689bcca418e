"""Checks that evaluation and prediction look at tiles when they are asked to, by options and by the run's own training."""

import dataclasses
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kfpn
import kfpn.runs.load
import kfpn.training.results
import kfpn.training.validation_run
from kfpn.cli import main
from kfpn.config.run import Config, InputConfig
from kfpn.config.tile_options import Tiles
from kfpn.data.formats.iterable import IterableSource
from kfpn.evaluation.detect import detect_image
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.evaluate import open_evaluation
from kfpn.inference.evaluation_request import EvaluationRequest
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.model_tiles import _settings
from kfpn.inference.predict import predict
from kfpn.inference.predict_files import predict_files
from kfpn.inference.tiled_pyramid import TiledPyramid, pyramid_asked_for
from kfpn.inference.user_inputs import UserInput
from kfpn.modeling.detector import inference_model
from kfpn.modeling.heads.box import SelectDetections
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.training.results import measure_recall
from kfpn.training.validation_run import ValidationRun
from tests.evaluation.test_tile_detections import CONFIG, OBJECTS, SIDE, Squares, picture, record_of
from tests.inference.test_image_pyramid import bright_spot
from tests.modeling import tiny

RUN = Config(data="seen", batch_size=4, samples=0, input=InputConfig(64, 64, tile=64), model=tiny.config())
TILES = Tiles(SIDE, 0.25, whole=False)


class Model(Squares):
    """Stands in for a loaded detector."""

    class_names, category_ids = ("ant", "bee", "cat"), (1, 2, 3)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Returns the work directory of a run on tiles of 64 pixels, whose detector is a stand-in."""
    (tmp_path / "run").mkdir()
    folder = Workdir(tmp_path / "run")
    folder.prepare(RUN, Model.class_names, Model.category_ids, "by hand")
    monkeypatch.setattr(kfpn.runs.load, "load_trained_detector", lambda *_: Model())
    return folder


def squares():
    images = [record_of(picture((200, 250), OBJECTS), 1), record_of(picture((64, 60), [(1, 2, 9, 9)]), 2)]
    return IterableSource(images, ["square"])


@pytest.mark.parametrize("flip", [False, True])
def test_the_pyramid_of_tiles_finds_every_square_once_in_a_source_and_in_an_image(flip):
    pyramid = TiledPyramid(Squares(), CONFIG, TILES, flip=flip)
    first, second = pyramid.detect_source(squares(), progress=False)
    assert sorted(first["boxes"].tolist()) == sorted(map(list, OBJECTS))
    assert second["boxes"].tolist() == [[1, 2, 9, 9]]
    of_image = pyramid.detect_image(picture((200, 250), OBJECTS), 1)
    np.testing.assert_array_equal(of_image["boxes"], first["boxes"])
    assert (first["image_id"], second["image_id"], of_image["image_id"]) == (1, 2, 1)
    cost = pyramid.cost()
    assert (cost["tile"], cost["overlap"], cost["whole"], cost["passes"]) == (64, 0.25, False, 1 + flip)
    # 20 tiles, one of the small image, and 20 again.
    assert cost["tiles_per_image"] == pytest.approx(41 / 3)
    assert cost["seconds_per_image"] > 0
    line = pyramid.cost_line()
    assert line.startswith("tiles: 64 pixels a side, overlap 0.25: 13.7 tiles an image at 64" + ", mirrored too" * flip)
    assert "s an image" in line


def test_tiles_are_looked_at_in_each_size():
    detector = Squares()
    pyramid = TiledPyramid(detector, CONFIG, TILES, (64, 128))
    boxes = pyramid.detect_image(picture((64, 60), [(10, 20, 20, 30)]))["boxes"]
    assert {shape[1:3] for shape in detector.shapes} == {(64, 64), (128, 128)}
    assert len(boxes) == 1


def test_an_image_of_one_tile_has_the_usual_detections():
    image = picture((64, 64), [(10, 20, 20, 30), (40, 40, 44, 60)])
    usual = detect_image(Squares(), image, CONFIG.input)
    for tiles in (Tiles(64), Tiles(100), Tiles(100, whole=False)):
        of_tiles = TiledPyramid(Squares(), CONFIG, tiles).detect_image(image)
        assert all((of_tiles[name] == usual[name]).all() for name in ("boxes", "scores", "labels"))


def test_tiles_are_those_asked_for_else_those_of_the_training():
    trained = dataclasses.replace(CONFIG, input=dataclasses.replace(CONFIG.input, tile=64))
    assert pyramid_asked_for(Squares(), CONFIG) is None
    assert pyramid_asked_for(Squares(), trained).tiles == Tiles(64)
    assert pyramid_asked_for(Squares(), trained, 100).tiles == Tiles(100)
    assert pyramid_asked_for(Squares(), trained, 0) is None
    assert type(pyramid_asked_for(Squares(), trained, 0, (64,))) is ImagePyramid
    with pytest.raises(ValueError, match="tiles must have a side in pixels"):
        TiledPyramid(Squares(), CONFIG)


def test_predict_decodes_a_large_jpeg_whole_for_tiles(tmp_path):
    # At a quarter, which is what 64 pixels need of 512, a square of 6 pixels would be gray and wider.
    Image.fromarray(picture((512, 512), [(200, 200, 206, 206)]) * 5).save(
        tmp_path / "a.jpg", quality=100, subsampling=0
    )
    seen = []

    class Looks(Model):
        def __call__(self, inputs):
            seen.extend(
                image for image, size in zip(inputs["images"], inputs["image_sizes"], strict=True) if size[0] == 64
            )
            outputs = super().__call__(inputs)
            return outputs | {"num_detections": np.zeros_like(outputs["num_detections"])}

    model = Looks()
    pyramid = TiledPyramid(model, CONFIG, TILES)
    predict_files(model, CONFIG, [UserInput(str(tmp_path / "a.jpg"), "image")], tmp_path / "out", 0.5, pyramid)
    assert max(int((image[..., 0] > 200).sum()) for image in seen) == 36


def test_a_run_on_tiles_predicts_in_its_tiles_and_says_so(workdir, tmp_path, capsys):
    Image.fromarray(picture((100, 90), [(10, 10, 40, 40), (55, 20, 65, 30)])).save(tmp_path / "a.png")
    command = ["predict", str(tmp_path / "a.png"), "--workdir", str(workdir.path), "--min-score", "0", "--output"]
    assert main([*command, str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "looks at tiles of 64 pixels, as the run trained; --tiles 0 looks at whole images only" in printed
    # Starts 0 36 and 0 26, and the whole image.
    assert "tiles: 64 pixels a side, overlap 0.2, and the whole image: 5.0 tiles an image at 64, " in printed
    assert main([*command, str(tmp_path / "b"), "--tiles", "0"]) == 0
    assert " tiles an image" not in capsys.readouterr().out
    assert main([*command, str(tmp_path / "c"), "--overlap", ".3", "--tiles-only"]) == 0
    assert "overlap 0.3: 4.0 tiles an image" in capsys.readouterr().out
    rows = json.loads((tmp_path / "c" / "detections.json").read_text())
    assert sorted(row["bbox"] for row in rows) == [[10, 10, 30, 30], [20, 55, 10, 10]]


@pytest.mark.parametrize("padded", [True, False])
def test_python_predicts_in_tiles_with_padding_and_without(padded):
    image = np.zeros((100, 90, 3), np.uint8)
    image[70:80, 60:75] = 250
    model = types.SimpleNamespace(
        class_names=("spot",), input_config=RUN.input, layers=[SelectDetections()], input={} if padded else None,
        compiled_detector=detect_function(bright if padded else lambda images: bright({"images": images})),
    )  # fmt: skip
    # Without tiles the object is looked at in 64 of 100 pixels.
    (collected,) = predict(model, image, min_score=0)
    assert collected.boxes[0].tolist() == [70, 60, 80, 75]
    assert predict(model, image, tiles=kfpn.Tiles(64, 0.5, whole=False), min_score=0)[0].boxes.tolist() == [
        [70, 60, 80, 75]
    ]
    assert predict(model, image, tiles=0, min_score=0)[0].boxes.tolist() != [[70, 60, 80, 75]]
    with pytest.raises(ValueError, match=r"tiles\.side must be an integer of at least 32"):
        predict(model, image, tiles=3)


def bright(inputs):
    """Finds the bright rectangle of each image, surest where it is largest; in black images nothing."""
    outputs = bright_spot(inputs)
    spots = tf.reduce_sum(tf.cast(tf.convert_to_tensor(inputs["images"])[..., 0] > 128, tf.float32), (1, 2))
    return outputs | {"scores": spots[:, None] / 1000, "num_detections": tf.cast(spots > 0, tf.int32)}


def test_evaluation_and_the_evaluation_of_a_training_see_the_same_tiles(workdir, monkeypatch):
    monkeypatch.setattr(kfpn.training.validation_run, "inference_model", lambda *_, **__: Model())
    boxes = np.array([(10, 10, 40, 40), (55, 20, 65, 30)], np.float32)
    record = dataclasses.replace(
        record_of(picture((100, 90), boxes.astype(int)), 4), boxes=boxes, labels=np.zeros(2, np.int32),
        crowd=np.zeros(2, bool), areas=np.array([900, 100], np.float32),
    )  # fmt: skip
    source = IterableSource([record], Model.class_names)
    evaluation = open_evaluation(EvaluationRequest(workdir.path, source))
    figures, detections = evaluation.measure()
    assert figures["tiles"]["tiles_per_image"] == 5
    assert "image_pyramid" not in figures
    run, kept = ValidationRun(RUN, workdir, None, source), {}
    monkeypatch.setattr(run, "_draw", kept.update)
    assert run(1)["AP"] == figures["AP"] > 0.4  # grays of blurred edges count as objects in the whole image
    np.testing.assert_array_equal(kept[4]["boxes"], detections[0]["boxes"])
    whole = open_evaluation(EvaluationRequest(workdir.path, source, tiles=0))
    assert whole.tiles is whole.pyramid is None


def test_the_recall_of_a_run_on_tiles_is_measured_on_its_tiles(workdir, monkeypatch):
    monkeypatch.setattr(kfpn.runs.load, "load_proposals_model", lambda *_: Squares())
    monkeypatch.setattr(kfpn.training.results, "load_proposals_model", lambda *_: Squares())
    boxes = np.array([(10, 10, 20, 20)], np.float32)
    record = dataclasses.replace(
        record_of(picture((100, 90), boxes.astype(int)), 4), boxes=boxes, labels=np.zeros(1, np.int32),
        crowd=np.zeros(1, bool), areas=np.array([100], np.float32),
    )  # fmt: skip
    source = IterableSource([record], Model.class_names)
    of_evaluation = open_evaluation(EvaluationRequest(workdir.path, source)).measure_proposals()
    assert of_evaluation["AR@100"] == 1.0  # in the whole image, resized, the square would be blurred
    assert measure_recall(RUN, workdir, source) == of_evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles", "20"], "tiles.side must be an integer of at least 32, or 0 for none, got 20"),
        (["--tiles", "64", "--overlap", "2"], "tiles.overlap must be a share from 0 to 0.9, got 2.0"),
        (["--tiles", "0", "--tiles-only"], "tiles-only must be left out with --tiles 0"),
    ],
)
def test_wrong_tiles_are_one_line(workdir, options, message, capsys):
    assert main(["evaluate", "--workdir", str(workdir.path), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_model_brings_its_settings_to_the_merge():
    config = dataclasses.replace(tiny.config(), nms_iou=0.4, score_threshold=0.1, max_detections=7)
    settings = _settings(inference_model(build_submodels(config), config, padded=True))
    assert (settings.nms_iou, settings.score_threshold, settings.max_detections) == (0.4, 0.1, 7)
