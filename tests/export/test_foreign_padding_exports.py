"""Compares detectors whose padding acts, in the forms that exports give them, with Keras."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.write_saved_model import ServedDetector
from kfpn.export.tf_trt.write_tf_trt import ServedTrtDetector
from kfpn.export.trained import open_trained
from tests.export.padded_batch import SIZES, canvas_of, keras_outputs, require_same_outputs


@pytest.fixture(scope="module")
def foreign(make_workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "run"
    return open_trained(make_workdir(path, padding="foreign", anchor_strides="image", aligned=False, norm="frozen_bn"))


@pytest.fixture(scope="module")
def pictures(photo):
    return [photo(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def wanted(foreign, pictures):
    images = canvas_of(pictures, 37)
    return images, keras_outputs(foreign, images)


def test_a_saved_model_pads_a_batch_to_its_largest_image(foreign, pictures, wanted, encoded):
    found = ServedDetector(foreign).detect_files(tf.constant([encoded(picture) for picture in pictures]))
    require_same_outputs(found, wanted[1])


def test_the_formulations_for_tensorrt_find_what_the_detector_finds(foreign, wanted):
    images, outputs = wanted
    require_same_outputs(ServedTrtDetector(foreign)(tf.constant(images.astype(np.uint8)), tf.constant(SIZES)), outputs)


@pytest.mark.parametrize("shape", [None, pytest.param((1, 75, 101, 3), marks=pytest.mark.slow)])
def test_an_onnx_file_pads_its_images_itself(foreign, tmp_path, shape):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    # The file appears only if the runtimes find what Keras finds, at sizes that are no multiples of 32.
    assert export_onnx(foreign.path, tmp_path / "model.onnx", input_shape=shape).exists()
