import json
import shutil
import sys

import numpy as np
import pytest

from kfpn.export.onnx import checked_shape, detections_difference, export_onnx, pictures, raw_difference


@pytest.fixture(scope="module")
def runtime():
    for package in ("onnx", "tf2onnx"):
        pytest.importorskip(package)
    return pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((800, 1344, 3), "4 numbers"),
        ((1, 800, 1344, 4), "end in 3"),
        ((1, 0, 1344, 3), "above 0"),
        ((1, -1, 1344, 3), "above 0"),
        ((1, 8.5, 1344, 3), "whole numbers"),
    ],
)
def test_a_wrong_input_shape_is_named(shape, words):
    with pytest.raises(ValueError, match=words):
        checked_shape(shape)


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
    from kfpn.export import onnx as exporter

    expected = exporter.keras_result

    def shifted(trained, images, raw):
        result = expected(trained, images, raw)
        return {**result, "boxes": result["boxes"] + 0.1}

    monkeypatch.setattr(exporter, "keras_result", shifted)
    monkeypatch.setattr(exporter, "write_onnx", lambda trained, path, shape, raw: shutil.copy(raw_file, path))
    with pytest.raises(ValueError, match=r"within 0\.05 pixel"):
        export_onnx(tiny_workdir, tmp_path / "model.onnx", input_shape=(1, 96, 128, 3), raw=True)
    assert list(tmp_path.iterdir()) == []


def _found(boxes, scores, labels):
    count = np.array([len(boxes)])
    return {"boxes": np.array([boxes], "float32"), "scores": np.array([scores]), "labels": np.array([labels]), "num_detections": count}  # fmt: skip


def test_detections_are_matched_as_a_set():
    a = _found([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.4], [0, 1])
    b = _found([[1, 1, 5, 5.25], [0, 0, 4, 4]], [0.375, 0.5], [1, 0])
    assert detections_difference(a, b) == pytest.approx((0.25, 0.025))


def test_detections_of_another_number_or_label_are_no_match():
    a = _found([[0, 0, 4, 4]], [0.5], [0])
    assert detections_difference(a, _found([[0, 0, 4, 4]], [0.5], [1])) == (np.inf, np.inf)
    assert detections_difference(a, _found([], [], [])) == (np.inf, np.inf)


def test_raw_boxes_of_empty_rows_do_not_count():
    a = {"boxes": np.zeros((1, 2, 1, 4)), "scores": np.array([[[0.5], [0.0]]])}
    b = {"boxes": np.array([[[[0, 0, 0, 0.5]], [[9, 9, 9, 9]]]]), "scores": np.array([[[0.5], [0.0]]])}
    assert raw_difference(a, b) == (0.5, 0.0)
