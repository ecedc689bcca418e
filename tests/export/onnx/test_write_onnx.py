import json
import shutil
import sys

import numpy as np
import pytest

from kfpn.export.edge_rows import Selection
from kfpn.export.input_shape import parse_input_shape
from kfpn.export.onnx.verify_onnx import outputs_difference, pictures
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.verify import ExportMismatch


@pytest.fixture(scope="module")
def runtime():
    for package in ("onnx", "tf2onnx"):
        pytest.importorskip(package)
    return pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((800, 1344, 3), "four whole numbers"),
        ("1x800x1344", "four whole numbers"),
        ("1x800x1344x4", "end in 3"),
        ((1, 0, 1344, 3), "at least 64 pixels"),
        ((0, 800, 1344, 3), "batch of at least 1"),
        ((1, -1, 1344, 3), "at least 64 pixels"),
        ((1, 640.5, 1344, 3), "four whole numbers"),
        ("1x+64x64x3", "four whole numbers"),
    ],
)
def test_the_error_for_a_wrong_input_shape_says_what_it_must_be(shape, words):
    with pytest.raises(ValueError, match=words):
        parse_input_shape(shape)


def test_a_shape_is_read_from_text_and_from_numbers():
    assert parse_input_shape("2x800X1344x3") == parse_input_shape([2, 800, np.int64(1344), 3]) == (2, 800, 1344, 3)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ValueError, match="pip install tf2onnx"):
        export_onnx(tmp_path / "run", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_not_overwritten(runtime, tmp_path):
    target = tmp_path / "model.onnx"
    target.write_text("mine")
    with pytest.raises(ValueError, match="must not exist"):
        export_onnx(tmp_path / "run", target)
    assert target.read_text() == "mine"


def test_the_dynamic_file_holds_its_classes_and_takes_any_size_in_onnxruntime(runtime, onnx_file):
    session = runtime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    data = session.get_modelmeta().custom_metadata_map
    assert json.loads(data["class_names"]) == ["ant", "bee", "cat"]
    assert json.loads(data["category_ids"]) == [3, 7, 18]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    outputs = session.run(["boxes", "scores", "labels", "num_detections"], {"images": pictures((3, 70, 90, 3), 5)})
    assert outputs[0].shape == (3, 20, 4)
    assert outputs[3].min() > 0
    assert {path.name for path in onnx_file.parent.iterdir()} == {"lock", "model.onnx"}


@pytest.fixture(scope="module")
def raw_file(runtime, tiny_workdir, tmp_path_factory):
    target = tmp_path_factory.mktemp("raw") / "raw.onnx"
    return export_onnx(tiny_workdir, target, input_shape=(1, 96, 128, 3), raw=True)


def test_the_static_raw_file_has_fixed_sizes_and_no_nms(raw_file):
    import onnx

    graph = onnx.load(str(raw_file)).graph
    values = [*graph.input, *graph.output]
    sizes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
    assert sizes == {"images": [1, 96, 128, 3], "boxes": [1, 40, 3, 4], "scores": [1, 40, 3]}
    assert not {"NonMaxSuppression", "RoiAlign"} & {node.op_type for node in graph.node}


def test_adaptive_sampling_is_exported(runtime, make_workdir, tmp_path):
    workdir = make_workdir(tmp_path / "run", sampling_ratio=0, aligned=False)
    assert export_onnx(workdir, tmp_path / "model.onnx").exists()


def test_a_file_whose_outputs_differ_from_keras_is_not_kept(raw_file, tiny_workdir, tmp_path, monkeypatch):
    from kfpn.export.onnx import verify_onnx as onnx_check
    from kfpn.export.onnx import write_onnx as exporter

    expected = onnx_check.keras_result

    def shifted(*args):
        result = expected(*args)
        return {**result, "boxes": result["boxes"] + 0.1}

    monkeypatch.setattr(onnx_check, "keras_result", shifted)
    monkeypatch.setattr(exporter, "write_onnx", lambda trained, path, shape, raw: shutil.copy(raw_file, path))
    with pytest.raises(ExportMismatch, match=r"within 0\.05 pixel"):
        export_onnx(tiny_workdir, tmp_path / "model.onnx", input_shape=(1, 96, 128, 3), raw=True)
    assert list(tmp_path.iterdir()) == []


def test_scores_may_differ_by_a_multiple_of_what_folding_changes_in_keras(raw_file, tiny_workdir, monkeypatch):
    from kfpn.export.onnx import verify_onnx as onnx_check
    from kfpn.export.trained import open_trained

    trained, expected = open_trained(tiny_workdir), onnx_check.keras_result

    def spread(by):
        # Keras then has scores that differ from the file's by 3e-4, and by more where the norms are not folded.
        def result(trained, submodels, images, raw):
            outputs = expected(trained, submodels, images, raw)
            off = by if submodels is trained.submodels else 0.0
            return {**outputs, "scores": np.where(outputs["scores"] > 0, outputs["scores"] + 3e-4 + off, 0.0)}

        monkeypatch.setattr(onnx_check, "keras_result", result)

    spread(2e-4)
    differences = onnx_check.verify_onnx(trained, raw_file, (1, 96, 128, 3), True)
    assert differences["ONNX Runtime"].score == pytest.approx(3e-4, abs=2e-5)
    spread(1e-4)
    with pytest.raises(ExportMismatch, match="without counterpart in ONNX Runtime"):
        onnx_check.verify_onnx(trained, raw_file, (1, 96, 128, 3), True)


def _detections(boxes, scores, labels):
    # One row stays empty. In a full list the last detection may be another one, and would not be compared.
    rows = np.array([[*boxes, [0] * 4]], "float32"), np.array([[*scores, 0.0]]), np.array([[*labels, -1]])
    return dict(zip(("boxes", "scores", "labels"), rows, strict=True), num_detections=np.array([len(boxes)]))


def test_detections_are_compared_in_any_order():
    a = _detections([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.4], [0, 1])
    b = _detections([[1, 1, 5, 5.03125], [0, 0, 4, 4]], [0.375, 0.5], [1, 0])
    difference = outputs_difference(a, b, score_limit=0.1)
    assert (difference.box, difference.score, difference.unmatched) == pytest.approx((0.03125, 0.025, 0))


def test_detections_of_another_number_or_label_have_no_counterpart():
    a = _detections([[0, 0, 4, 4]], [0.5], [0])
    assert outputs_difference(a, _detections([[0, 0, 4, 4]], [0.5], [1])).unmatched > 0
    assert outputs_difference(_detections([[0, 0, 4, 4], [9, 9, 12, 12]], [0.5, 0.4], [0, 0]), a).unmatched == 1


def test_a_rival_that_keras_knows_may_take_a_row_s_place():
    expected, got = _detections([[0, 0, 99, 50]], [0.8], [1]), _detections([[0, 10, 99, 60]], [0.8], [1])
    raw = {"boxes": np.zeros((1, 2, 3, 4)), "scores": np.zeros((1, 2, 3))}
    raw["boxes"][0, :, 1], raw["scores"][0, :, 1] = [[0, 0, 99, 50], [0, 10, 99, 60]], [0.8, 0.79995]
    selection = Selection(0.05, nms_iou=0.5)
    found = outputs_difference(expected, got, 1e-4, selection, raw)
    assert (found.unmatched, len(found.edge)) == (0, 2)
    assert outputs_difference(expected, got, 1e-4, selection).unmatched == 2
    raw["scores"][0, 1, 1] = 0.79  # now it is clearly the lesser one
    assert outputs_difference(expected, got, 1e-4, selection, raw).unmatched == 2


def test_raw_boxes_without_a_score_are_not_compared():
    a = {"boxes": np.zeros((1, 2, 1, 4)), "scores": np.array([[[0.5], [0.0]]])}
    b = {"boxes": np.array([[[[0, 0, 0, 0.5]], [[9, 9, 9, 9]]]]), "scores": np.array([[[0.5], [0.0]]])}
    difference = outputs_difference(a, b)
    assert (difference.box, difference.unmatched, difference.rows) == (0.5, 1, 1)
