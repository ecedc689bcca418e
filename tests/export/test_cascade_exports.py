"""Compares a cascade with masks, in the forms that exports give it, with Keras."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.onnx.int8 import _eight_bit_nodes
from kfpn.export.onnx.onnx_detector import OnnxDetector
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.write_saved_model import ServedDetector
from kfpn.export.tf_trt.write_tf_trt import ServedTrtDetector
from kfpn.export.trained import open_trained
from tests.export.padded_batch import SIZES, canvas_of, keras_outputs, require_same_outputs


@pytest.fixture(scope="module")
def trained(make_workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("cascade") / "run"
    return open_trained(make_workdir(path, cascade=True, mask=True, mask_channels=8, norm_heads=True, max_detections=6))


@pytest.fixture(scope="module")
def pictures(photo):
    return [photo(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def wanted(trained, pictures):
    images = canvas_of(pictures)
    return images, keras_outputs(trained, images)


def test_a_saved_model_has_the_detections_and_masks_of_keras(trained, pictures, wanted, encoded):
    detect = tf.function(ServedDetector(trained).detect_files, autograph=False)
    require_same_outputs(detect(tf.constant([encoded(picture) for picture in pictures])), wanted[1])


def test_the_formulations_for_tensorrt_find_what_the_detector_finds(trained, wanted):
    images, outputs = wanted
    require_same_outputs(ServedTrtDetector(trained)(tf.constant(images.astype(np.uint8)), tf.constant(SIZES)), outputs)


@pytest.mark.parametrize("shape", [None, (1, 75, 101, 3)], ids=["any", "static"])
def test_an_onnx_file_has_the_detections_and_masks_of_keras(trained, tmp_path, shape):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path / "model.onnx"
    # The file appears only if the runtimes find what Keras finds.
    assert export_onnx(trained.path, path, input_shape=shape).exists()
    if shape is None:
        import onnx

        chosen = _eight_bit_nodes(onnx.load(str(path)).graph)
        assert not any("head_logits" in name or "head_deltas" in name for name in chosen)
        assert sum("head_fc2" in name for name in chosen) == 3


def test_a_raw_file_has_the_boxes_of_the_last_stage_in_every_class(trained):
    detector = OnnxDetector(trained.submodels, trained.config.model, raw=True, static=True)
    assert list(detector.dense_heads) == ["box", "box_2", "box_3"]
    images = tf.TensorSpec((1, 96, 128, 3), tf.float32, "images")
    graph = tf.function(detector.detect, autograph=False).get_concrete_function(images)
    shapes = {name: tuple(value.shape) for name, value in graph.structured_outputs.items()}
    assert shapes == {"boxes": (1, 40, 3, 4), "scores": (1, 40, 3)}
