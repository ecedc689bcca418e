import json

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.class_thresholds import above_thresholds, verify_thresholds
from kfpn.export.onnx.onnx_options import OnnxOptions
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.write_saved_model import export_saved_model
from kfpn.export.verify import ExportMismatch
from kfpn.runs.load import load_trained_detector
from kfpn.runs.thresholds import weights_digest, write_thresholds
from kfpn.runs.workdir import Workdir
from tests.export.conftest import CLASS_NAMES, write_workdir


def detections(*images):
    """Returns detections of images of rows (score, label) in four places; the box of row n begins at n."""
    scores, labels = np.zeros((len(images), 4), np.float32), np.full((len(images), 4), -1, np.int32)
    for image, rows in enumerate(images):
        for place, (score, label) in enumerate(rows):
            scores[image, place], labels[image, place] = score, label
    boxes = np.tile(np.arange(4, dtype=np.float32)[None, :, None], (len(images), 1, 4)) * (labels >= 0)[..., None]
    number = (labels >= 0).sum(1).astype(np.int32)
    return {"boxes": boxes, "scores": scores, "labels": labels, "num_detections": number}


@pytest.mark.parametrize("images", [1, 2])
def test_rows_below_the_threshold_of_their_class_are_removed_and_the_others_move_up_in_their_order(images):
    rows = [(0.9, 1), (0.8, 0), (0.8, 1), (0.3, 0)]
    plain = detections(*[rows] * images)
    left = above_thresholds({name: tf.constant(value) for name, value in plain.items()}, (0.3, 0.85))
    assert left["scores"].numpy()[-1].tolist() == pytest.approx([0.9, 0.8, 0.3, 0.0])
    assert left["labels"].numpy()[-1].tolist() == [1, 0, 0, -1]
    assert left["boxes"].numpy()[-1, :, 0].tolist() == [0, 1, 3, 0]
    assert left["num_detections"].numpy().tolist() == [3] * images


def test_empty_rows_stay_empty_even_with_a_threshold_of_zero():
    left = above_thresholds(detections([], [(0.0, 0)]), (0.0, 0.0))
    assert left["labels"].numpy().tolist() == [[-1] * 4, [0, -1, -1, -1]]
    assert left["num_detections"].numpy().tolist() == [0, 1]


def rows_of(*rows):
    boxes = np.array([[i, i, i + 9, i + 9] for i in range(len(rows))], np.float32).reshape(-1, 4)
    return boxes, np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def test_verification_counts_rows_and_allows_those_at_the_threshold(capsys):
    plain, own = rows_of((0.9, 7), (0.5001, 7), (0.2, 7)), rows_of((0.9, 7))
    verify_thresholds([(plain, own)], {7: 0.5})
    assert capsys.readouterr().out == "verify thresholds: 1 of 3 rows reach the threshold of their class\n"


@pytest.mark.parametrize("own", [rows_of(), rows_of((0.9, 7), (0.2, 7))], ids=["one too few", "one too many"])
def test_verification_refuses_rows_that_are_missing_or_should_be(own):
    with pytest.raises(ExportMismatch, match="got 1 rows too few or too many of 2"):
        verify_thresholds([(rows_of((0.9, 7), (0.2, 7)), own)], {7: 0.5})


@pytest.fixture(scope="module", params=[120, pytest.param(500, marks=pytest.mark.slow)])
def crowded_run(request, tmp_path_factory):
    """Returns a run that gives up to 120 or 500 detections, with thresholds that some of its detections reach, and the number."""
    count = request.param
    proposals = {120: 30, 500: 300}[count]
    path = write_workdir(
        tmp_path_factory.mktemp("crowded") / "run",
        max_detections=count,
        pre_nms_test=proposals,
        post_nms_test=proposals,
    )
    workdir = Workdir(path)
    rows = [{"name": name, "threshold": score} for name, score in zip(CLASS_NAMES, (0.3, 0.9, 0.2), strict=True)]
    write_thresholds(workdir, rows, {"weights": weights_digest(workdir)})
    return path, count


def test_a_saved_model_of_many_detections_leaves_out_what_is_below_the_thresholds(crowded_run, tmp_path, capsys):
    run, most = crowded_run
    names = ("image_tensor",)
    path = export_saved_model(run, tmp_path / "served", signatures=names, best_thresholds=True, verify=True)
    said = capsys.readouterr().out
    assert "verify thresholds: " in said
    assert [folder.name for folder in path.parent.iterdir()] == ["1"]
    assert json.loads((path / "assets/classes.json").read_text())["thresholds"] == [0.3, 0.9, 0.2]
    outputs = tf.saved_model.load(str(path)).signatures["image_tensor"](
        images=tf.constant(np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3)), tf.uint8)
    )
    assert outputs["detection_scores"].shape == (1, most)
    count = int(outputs["num_detections"][0])
    least = {3.0: 0.3, 7.0: 0.9, 18.0: 0.2}
    scores, classes = (outputs[f"detection_{key}"][0, :count].numpy() for key in ("scores", "classes"))
    assert all(score >= np.float32(least[label]) for score, label in zip(scores, classes, strict=True))


def test_an_onnx_file_of_many_detections_leaves_out_what_is_below_the_thresholds(crowded_run, tmp_path, capsys):
    run, most = crowded_run
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = export_onnx(run, tmp_path / "model.onnx", best_thresholds=True)
    assert "verify thresholds: " in capsys.readouterr().out
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["thresholds"]) == [0.3, 0.9, 0.2]
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3)).astype(np.float32)
    names = ("boxes", "scores", "labels", "num_detections")
    outputs = dict(zip(names, session.run(list(names), {"images": image}), strict=True))
    assert outputs["scores"].shape == (1, most)
    whole = load_trained_detector(run)(image)
    kept = np.array(whole["scores"][0]) >= np.array((0.3, 0.9, 0.2), np.float32)[np.array(whole["labels"][0])]
    assert 0 < int(outputs["num_detections"][0]) == (kept & (np.array(whole["labels"][0]) >= 0)).sum()


def test_an_export_without_thresholds_names_the_command_that_makes_them(tiny_workdir, tmp_path):
    for export in (export_saved_model, export_onnx):
        with pytest.raises(
            ValueError, match=r"without thresholds.json: kfpn evaluate --workdir .*run --best-thresholds"
        ):
            export(tiny_workdir, tmp_path / "out", best_thresholds=True)
    assert not list(tmp_path.iterdir())


def test_a_raw_file_has_no_thresholds(tmp_path):
    with pytest.raises(ValueError, match="best_thresholds must go without --raw"):
        OnnxOptions("run", "out.onnx", raw=True, best_thresholds=True)
    with pytest.raises(ValueError, match="best_thresholds must go without raw"):
        export_onnx("run", tmp_path / "out.onnx", raw=True, best_thresholds=True)
