"""Compares exports of what proposes segments with Keras: a SavedModel, and ONNX files of any and of one size."""

import json

import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.cli import command_line as cli
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime
from kfpn.inference.segments import segment_image
from tests.eager import eagerly
from tests.export.segment_run import COUNT, write_segment_run
from tests.modeling import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_segment_run(tmp_path_factory.mktemp("segments") / "run")


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "segments"
    # The version appears only if it gives what Keras gives.
    assert cli.main(["export", "saved_model", str(run), str(folder), "--verify"]) == 0
    return folder / "1"


def test_a_saved_model_has_the_segments_of_keras_in_pixels_of_the_picture(run, served, encoded):
    model = kfpn.load_segmenter(run, padded=True)
    pictures = [tiny.image(90, 70), tiny.image(64, 100, seed=1)]  # the first one is resized
    signatures = tf.saved_model.load(str(served)).signatures
    assert set(signatures) == {"serving_default", "image_tensor"}
    files = tf.constant([encoded(picture) for picture in pictures] + [b"no picture"])
    outputs = {name: value.numpy() for name, value in signatures["serving_default"](image_bytes=files).items()}
    assert {name: value.shape[1:] for name, value in outputs.items()} == {
        "segment_masks": (COUNT, 14, 14), "segment_boxes": (COUNT, 4), "segment_boxes_pixels": (COUNT, 4),
        "segment_scores": (COUNT,), "segment_levels": (COUNT,), "segment_windows": (COUNT,), "num_segments": (), "errors": (),
    }  # fmt: skip
    assert outputs["num_segments"].tolist() == [COUNT, COUNT, 0]
    assert not outputs["segment_masks"][2].any()
    assert b"index 2" in outputs["errors"][2]
    for row, picture in enumerate(pictures):
        with eagerly():
            wanted = segment_image(model, picture, model.input_config)
        np.testing.assert_allclose(outputs["segment_scores"][row], wanted.scores, atol=1e-4)
        np.testing.assert_allclose(outputs["segment_boxes_pixels"][row], wanted.boxes, atol=0.05)
        sides = np.tile(picture.shape[:2], 2)
        np.testing.assert_allclose(outputs["segment_boxes"][row] * sides, wanted.boxes, atol=0.05)
        np.testing.assert_allclose(outputs["segment_masks"][row], wanted.masks, atol=1e-2)
        np.testing.assert_array_equal(outputs["segment_levels"][row], wanted.levels)
        np.testing.assert_array_equal(outputs["segment_windows"][row], wanted.windows)
    assert outputs["segment_boxes"].min() < 0.0  # Windows reach beyond the picture, and are not cut off.
    assert json.loads((served / "assets" / "segments.json").read_text()) == {"pasting": "sampled"}


@pytest.mark.parametrize("shape", [None, (1, 64, 96, 3)], ids=["any", "static"])
def test_an_onnx_file_has_the_segments_of_keras(run, tmp_path, shape):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    # The file appears only if the runtimes give what Keras gives.
    path = kfpn.export_onnx(run, tmp_path / "segments.onnx", input_shape=shape)
    images = tiny.image(64, 96)[None].astype(np.float32)
    outputs = in_onnxruntime(path)(images)
    wanted = {name: np.array(value) for name, value in kfpn.load_segmenter(run)(images, training=False).items()}
    assert outputs.keys() == {*wanted, "num_segments"}
    assert outputs["num_segments"].tolist() == [COUNT]
    for name, value in wanted.items():
        np.testing.assert_allclose(outputs[name], value, atol=1e-2 if name == "masks" else 1e-3, err_msg=name)
    if shape is None:  # more rows than windows: those behind the last are empty
        small = in_onnxruntime(path)(tiny.image(16, 16).astype(np.float32)[None])
        exists = 2 * (16 + 4 + 1 + 1 + 1)
        assert small["num_segments"].tolist() == [min(COUNT, exists)]
