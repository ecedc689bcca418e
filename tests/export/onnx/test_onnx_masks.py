import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.onnx.int8 import _eight_bit_nodes
from kfpn.export.onnx.onnx_detector import OnnxDetector
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime
from kfpn.export.onnx.verify_onnx import outputs_difference, pictures, verify_onnx
from kfpn.export.onnx.write_onnx import write_onnx
from kfpn.export.verify import ExportMismatch

for package in ("onnx", "tf2onnx", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def dynamic(trained_masks, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "masks.onnx"
    write_onnx(trained_masks, path, None, raw=False)
    return path


def output_sizes(path):
    import onnx

    outputs = onnx.load(str(path)).graph.output
    return {one.name: [axis.dim_value or axis.dim_param for axis in one.type.tensor_type.shape.dim] for one in outputs}


def test_a_dynamic_file_gives_keras_masks(trained_masks, dynamic, capsys):
    assert output_sizes(dynamic)["masks"] == ["batch", 6, 28, 28]
    differences = verify_onnx(trained_masks, dynamic, None, raw=False)
    assert all(one.mask_pairs > 0 and one.mask < 1e-3 for one in differences.values())
    assert ", cell of a mask " in capsys.readouterr().out
    outputs = in_onnxruntime(dynamic)(pictures((3, 70, 90, 3), 5))
    empty = np.arange(6) >= outputs["num_detections"][:, None]
    assert not outputs["masks"][empty].any()


def test_a_static_file_gives_keras_masks(trained_masks, tmp_path):
    path, shape = tmp_path / "static.onnx", (1, 96, 128, 3)
    write_onnx(trained_masks, path, shape, raw=False)
    assert output_sizes(path)["masks"] == [1, 6, 28, 28]
    assert verify_onnx(trained_masks, path, shape, raw=False)["ONNX Runtime"].mask_pairs > 0


def test_a_raw_file_has_no_detections_and_so_no_masks(trained_masks):
    # The graph that is converted has the outputs of the file.
    detector = OnnxDetector(trained_masks.submodels, trained_masks.config.model, raw=True, static=True)
    images = tf.TensorSpec((1, 96, 128, 3), tf.float32, "images")
    graph = tf.function(detector.detect, autograph=False).get_concrete_function(images)
    assert set(graph.structured_outputs) == {"boxes", "scores"}


def test_a_file_with_other_masks_is_refused(trained_masks, dynamic, monkeypatch):
    from kfpn.export.onnx import verify_onnx as check

    expected = check.keras_result

    def shifted(*args):
        result = expected(*args)
        return {**result, **({"masks": result["masks"] * 0.9} if "masks" in result else {})}

    monkeypatch.setattr(check, "keras_result", shifted)
    monkeypatch.setattr(check, "_compared_shapes", lambda config: [(1, 96, 128, 3)])
    with pytest.raises(ExportMismatch, match=r"must give masks within 0\.01 of the Keras model"):
        verify_onnx(trained_masks, dynamic, None, raw=False)


def test_the_convolutions_of_the_mask_head_are_in_eight_bits_but_for_its_last(dynamic):
    import onnx

    chosen = _eight_bit_nodes(onnx.load(str(dynamic)).graph)
    for i in range(1, 5):
        assert any(f"mask_conv{i}" in name for name in chosen)
    assert not any("mask_logits" in name or "mask_deconv" in name for name in chosen)


def test_masks_of_matched_detections_are_compared():
    boxes = np.array([[[0, 0, 9, 9], [20, 20, 40, 40]]], np.float32)
    one = {"boxes": boxes, "scores": np.array([[0.9, 0.8]]), "labels": np.array([[1, 2]]), "num_detections": [2]}
    masks = np.random.default_rng(0).uniform(size=(1, 2, 28, 28))
    same = outputs_difference({**one, "masks": masks}, {**one, "masks": masks + 0.125})
    assert (same.mask, same.mask_pairs) == (pytest.approx(0.125), 2)
    turned = {name: value[:, ::-1] for name, value in {**one, "masks": masks}.items() if name != "num_detections"}
    assert outputs_difference({**one, "masks": masks}, {**turned, "num_detections": [2]}).mask == 0.0
