import json
import shutil
import sys

import numpy as np
import pytest

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
def test_a_wrong_input_shape_is_named(shape, words):
    with pytest.raises(ValueError, match=words):
        parse_input_shape(shape)


def test_a_shape_is_read_from_text_and_from_numbers():
    assert parse_input_shape("2x800X1344x3") == parse_input_shape([2, 800, np.int64(1344), 3]) == (2, 800, 1344, 3)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ValueError, match="pip install tf2onnx"):
        export_onnx(tmp_path / "run", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_stays_as_it_is(runtime, tmp_path):
    target = tmp_path / "model.onnx"
    target.write_text("mine")
    with pytest.raises(ValueError, match="must not exist"):
        export_onnx(tmp_path / "run", target)
    assert target.read_text() == "mine"


def test_the_dynamic_file_carries_its_classes_and_is_like_keras_in_onnxruntime(runtime, tiny_workdir, tmp_path):
    # The export itself compares two sizes and two batch sizes with Keras.
    target = export_onnx(tiny_workdir, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    data = session.get_modelmeta().custom_metadata_map
    assert json.loads(data["class_names"]) == ["ant", "bee", "cat"]
    assert json.loads(data["category_ids"]) == [3, 7, 18]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    found = session.run(["boxes", "scores", "labels", "num_detections"], {"images": pictures((3, 70, 90, 3), 5)})
    assert found[0].shape == (3, 20, 4)
    assert found[3].min() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.fixture(scope="module")
def raw_file(runtime, tiny_workdir, tmp_path_factory):
    target = tmp_path_factory.mktemp("raw") / "raw.onnx"
    return export_onnx(tiny_workdir, target, input_shape=(1, 96, 128, 3), raw=True)


def test_the_static_raw_file_has_no_open_size_and_holds_no_nms_of_its_own(raw_file):
    import onnx

    graph = onnx.load(str(raw_file)).graph
    values = [*graph.input, *graph.output]
    sizes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
    assert sizes == {"images": [1, 96, 128, 3], "boxes": [1, 40, 3, 4], "scores": [1, 40, 3]}
    assert not {"NonMaxSuppression", "RoiAlign"} & {node.op_type for node in graph.node}


def test_adaptive_sampling_is_exported(runtime, make_workdir, tmp_path):
    workdir = make_workdir(tmp_path / "run", sampling_ratio=0, aligned=False)
    assert export_onnx(workdir, tmp_path / "model.onnx").exists()


def test_a_file_that_finds_something_else_is_not_written(raw_file, tiny_workdir, tmp_path, monkeypatch):
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


def test_scores_may_differ_by_twice_what_keras_itself_does_and_by_no_more(raw_file, tiny_workdir, monkeypatch):
    from kfpn.export.onnx import verify_onnx as onnx_check
    from kfpn.export.trained import open_trained

    trained, expected = open_trained(tiny_workdir), onnx_check.keras_result

    def spread(by):
        # As if the folded norms gave other scores, and the unfolded ones others than the file.
        def result(trained, submodels, images, raw):
            found = expected(trained, submodels, images, raw)
            off = by if submodels is trained.submodels else 0.0
            return {**found, "scores": np.where(found["scores"] > 0, found["scores"] + 3e-4 + off, 0.0)}

        monkeypatch.setattr(onnx_check, "keras_result", result)

    spread(2e-4)
    found = onnx_check.verify_onnx(trained, raw_file, (1, 96, 128, 3), True)
    assert found["ONNX Runtime"].score == pytest.approx(3e-4, abs=2e-5)
    spread(1e-4)
    with pytest.raises(ExportMismatch, match="without counterpart in ONNX Runtime"):
        onnx_check.verify_onnx(trained, raw_file, (1, 96, 128, 3), True)


def _found(boxes, scores, labels):
    # One row stays empty: of a full list the last may be another one.
    rows = np.array([[*boxes, [0] * 4]], "float32"), np.array([[*scores, 0.0]]), np.array([[*labels, -1]])
    return dict(zip(("boxes", "scores", "labels"), rows, strict=True), num_detections=np.array([len(boxes)]))


def test_detections_are_matched_as_a_set():
    a = _found([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.4], [0, 1])
    b = _found([[1, 1, 5, 5.03125], [0, 0, 4, 4]], [0.375, 0.5], [1, 0])
    found = outputs_difference(a, b, score_limit=0.1)
    assert (found.box, found.score, found.unmatched) == pytest.approx((0.03125, 0.025, 0))


def test_detections_of_another_number_or_label_have_no_counterpart():
    a = _found([[0, 0, 4, 4]], [0.5], [0])
    assert outputs_difference(a, _found([[0, 0, 4, 4]], [0.5], [1])).unmatched > 0
    assert outputs_difference(_found([[0, 0, 4, 4], [9, 9, 12, 12]], [0.5, 0.4], [0, 0]), a).unmatched == 1


def test_raw_boxes_of_empty_rows_do_not_count():
    a = {"boxes": np.zeros((1, 2, 1, 4)), "scores": np.array([[[0.5], [0.0]]])}
    b = {"boxes": np.array([[[[0, 0, 0, 0.5]], [[9, 9, 9, 9]]]]), "scores": np.array([[[0.5], [0.0]]])}
    found = outputs_difference(a, b)
    assert (found.box, found.unmatched, found.rows) == (0.5, 1, 1)
