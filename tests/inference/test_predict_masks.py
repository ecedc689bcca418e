import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import kfpn
from kfpn.cli import command_line as cli
from kfpn.cli.evaluate_command import _figures_table
from kfpn.config.run import Config, InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import FIGURES
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.inference.inspect_pyramid import model_with_intermediates, view_image
from kfpn.inference.predict_files import predict_files
from kfpn.inference.user_inputs import find_inputs
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

NAMES = ("ant", "bee", "cat")
MODEL = tiny.config(mask=True, mask_channels=8, pasting="resized")
CONFIG = Config(data="seen", batch_size=1, input=InputConfig(64, 96), model=MODEL)
IMAGE = tiny.image(50, 70, 1)


@pytest.fixture(scope="module")
def submodels():
    keras.utils.set_random_seed(0)
    made = build_submodels(MODEL)
    tiny.shake(made.weights_model)
    return made


@pytest.fixture(scope="module")
def detector(submodels):
    model = inference_model(submodels, MODEL, padded=True)
    model.class_names, model.category_ids, model.input_config = NAMES, (1, 2, 3), CONFIG.input
    model.compiled_detector = detect_function(model)
    return model


def test_predict_gives_a_mask_for_each_detection_and_the_model_its_rule_of_pasting(detector):
    (answer,) = kfpn.predict(detector, IMAGE, min_score=0)
    count = len(answer.boxes)
    assert count > 5
    assert answer.box_masks.shape == (count, 28, 28)
    assert 0.0 <= answer.box_masks.min() < answer.box_masks.max() <= 1.0
    pasted = kfpn.paste_masks(answer.box_masks, answer.boxes, *IMAGE.shape[:2], rule=detector.pasting)
    assert (detector.pasting, pasted.shape, pasted.dtype) == ("resized", (count, 50, 70), bool)
    (best,) = kfpn.predict(detector, IMAGE, min_score=float(answer.scores[3]))
    np.testing.assert_array_equal(best.box_masks, answer.box_masks[: len(best.boxes)])


def test_the_rule_of_pasting_travels_with_the_file_of_a_model(detector, tmp_path):
    detector.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").pasting == "resized"
    assert not hasattr(kfpn.build_detector(2, "resnet18", **tiny.SETTINGS), "pasting")


class Compiled:
    """Stands for the detector of the tests, so that it is not compiled again."""

    get_concrete_function = None
    class_names, category_ids = NAMES, (1, 2, 3)

    def __init__(self, detector):
        self.detector = detector

    def __call__(self, inputs):
        return self.detector.compiled_detector(inputs)


def test_pictures_and_the_file_of_detections_have_the_pasted_masks(detector, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "one.png")
    (answer,) = kfpn.predict(detector, IMAGE, min_score=0)
    predict_files(Compiled(detector), CONFIG, find_inputs([str(tmp_path / "one.png")]), tmp_path / "out", 0.0)
    written = json.loads((tmp_path / "out" / "detections.json").read_text())
    masks = np.stack([coco_mask.decode(row["segmentation"]) for row in written]).astype(bool)
    pasted = kfpn.paste_masks(answer.box_masks, answer.boxes, *IMAGE.shape[:2], rule="resized")
    np.testing.assert_array_equal(masks, pasted)
    picture = np.asarray(Image.open(tmp_path / "out" / "one.png"))
    drawn = kfpn.draw_detections(IMAGE, answer.boxes, answer.labels, answer.scores, NAMES, masks=pasted)
    np.testing.assert_array_equal(picture, drawn)


def test_evaluation_gives_twelve_figures_of_boxes_and_twelve_of_masks(detector):
    boxes = np.array([[4, 4, 30, 40]], np.float32)
    record = Record(
        IMAGE, 1, 50, 70, boxes, np.zeros(1, np.int32), np.zeros(1, bool), np.array([900], np.float32), "one",
        ObjectMasks.of([[[4, 4, 40, 4, 40, 30, 4, 30]]], (50, 70)),
    )  # fmt: skip
    source_pass = SourcePass(IterableSource([record], NAMES), CONFIG, progress=False)
    figures, detections = evaluate_source(detector.compiled_detector, source_pass, NAMES)
    assert list(figures) == [*FIGURES, "per_class", *(f"mask_{name}" for name in FIGURES), "mask_per_class"]
    assert len(detections[0]["segmentations"]) == len(detections[0]["boxes"])
    lines = _figures_table({**figures, "mask_AP": 0.25}).splitlines()
    assert [lines[0], lines[3], lines[6]] == ["boxes:", "masks:", "AP of each class, boxes and masks:"]
    assert lines[4].startswith("   AP 0.2500")
    assert lines[7].split()[0] == "ant"
    assert len(lines[7].split()) == 3


def test_the_page_of_an_image_has_its_masks(submodels):
    config = dataclasses.replace(CONFIG, input=InputConfig(64, 64))
    view = view_image(model_with_intermediates(submodels, MODEL), config, tiny.image(64, 64), NAMES)
    assert view.masks.shape == (len(view.boxes), 28, 28)
    window, pixels = view.parts(0)
    assert pixels.shape == (window[0].stop - window[0].start, window[1].stop - window[1].start)


def test_data_without_masks_are_measured_on_boxes_and_that_is_said(tmp_path, monkeypatch, capsys):
    figures = dict.fromkeys((*FIGURES, *(f"mask_{name}" for name in FIGURES)), 0.5)
    figures |= {"per_class": {"ant": 0.5}, "mask_per_class": {"ant": None}, "mask_AP": None}
    record = Record(
        IMAGE,
        1,
        50,
        70,
        np.array([[4, 4, 30, 40]], np.float32),
        np.zeros(1, np.int32),
        np.zeros(1, bool),
        np.ones(1, np.float32),
    )
    evaluation = SimpleNamespace(
        source=IterableSource([record], NAMES, name="mine"), measure=lambda: (figures, []), pyramid=None, tiles=None,
        source_pass=SimpleNamespace(config=CONFIG),
    )  # fmt: skip
    monkeypatch.setattr("kfpn.inference.evaluate.open_evaluation", lambda request: evaluation)
    assert cli.main(["evaluate", "--workdir", str(tmp_path)]) == 0
    assert (
        "mine: no object has a mask, so only boxes are measured; the other figures are empty" in capsys.readouterr().out
    )
