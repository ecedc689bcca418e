import dataclasses
import json
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.calibration import calibration_pictures
from kfpn.export.tf_trt import write_tf_trt as tf_trt
from kfpn.export.tf_trt.converter_rules import converters, graph_nodes
from kfpn.export.tf_trt.run_tf_trt import run
from kfpn.export.tf_trt.trt_inputs import calibration_batches, profile_inputs
from kfpn.export.tf_trt.trt_options import TfTrtOptions
from kfpn.export.tf_trt.verify_tf_trt import compare_saved_models, masks_apart
from kfpn.export.tf_trt.write_tf_trt import (
    ServedTrtDetector,
    checked_report,
    conversion_report,
    missing_requirements,
    write_native,
    write_tf_trt,
)

WITH_TF_TRT = tf.__version__.startswith("2.17.")
needs_tf_trt = pytest.mark.skipif(
    not WITH_TF_TRT, reason=f"needs TensorFlow 2.17, which has TF-TRT's list of converters; this is {tf.__version__}"
)
SHAPE = (1, 96, 128, 3)


@pytest.fixture(scope="module")
def native(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("native") / "model"
    write_native(trained, path, SHAPE, dynamic=False)
    return path


@pytest.fixture(scope="module")
def report(tiny_workdir):
    return conversion_report(tiny_workdir, SHAPE)


@needs_tf_trt
def test_the_convolutions_of_a_detector_convert_in_at_most_four_segments(report):
    assert report.flop_share >= 0.98
    assert len(report.segments) <= 4
    assert report.uncounted == ()
    assert "NonMaxSuppressionV3: no converter" in report.outside


@needs_tf_trt
@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.slow), True])
def test_r50_fpn_converts_in_at_most_four_segments(make_workdir, tmp_path, dynamic):
    """Checks the detector of the paper. Its fixed size is slow; that of the tiny detector is the small sibling."""
    sizes = {
        "backbone_width": 64,
        "pyramid_channels": 256,
        "head_width": 1024,
        "pre_nms_test": 1000,
        "post_nms_test": 1000,
    }
    anchors = (32.0, 64.0, 128.0, 256.0, 512.0)
    workdir = make_workdir(tmp_path / "r50", backbone="resnet50", anchor_sizes=anchors, max_detections=100, **sizes)
    report = conversion_report(workdir, (1, 800, 1344, 3), dynamic)
    assert report.flops > 400e9
    assert report.flop_share >= 0.98
    assert len(report.segments) <= 4
    assert report.uncounted == ()


@needs_tf_trt
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_detector_with_masks_converts_in_at_most_four_segments(mask_workdir, report, dynamic):
    of_masks = conversion_report(mask_workdir, SHAPE, dynamic)
    assert of_masks.flops > report.flops
    assert of_masks.flop_share >= 0.98
    assert len(of_masks.segments) <= 4
    assert of_masks.uncounted == ()


@needs_tf_trt
def test_every_product_is_counted_for_dynamic_sizes_too(tiny_workdir, report):
    dynamic = conversion_report(tiny_workdir, SHAPE, dynamic=True)
    assert dynamic.uncounted == ()
    assert dynamic.flops == report.flops


@needs_tf_trt
def test_a_report_that_misses_its_requirements_is_an_error_that_holds_the_report(tiny_workdir, report, monkeypatch):
    monkeypatch.setattr(tf_trt, "conversion_report", lambda *args: report)
    options = {"workdir": str(tiny_workdir), "report": True, "input_shape": "1x96x128x3"}
    assert "GFLOPs convert, in" in checked_report(TfTrtOptions(**options, require_flops=0.98, require_segments=4))
    with pytest.raises(ValueError, match="require_segments must not be exceeded"):
        checked_report(TfTrtOptions(**options, require_segments=0))
    half = dataclasses.replace(report, converted_flops=report.flops // 2)
    monkeypatch.setattr(tf_trt, "conversion_report", lambda *args: half)
    with pytest.raises(ValueError, match=r"require_flops must be reached, got 0\.5000\n.*GFLOPs convert"):
        checked_report(TfTrtOptions(**options, require_flops=0.98))


@needs_tf_trt
def test_each_operation_has_its_flops_and_the_reason_why_it_does_not_convert():
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, (2, 8, 10, 3), name="images")
        x = tf.nn.conv2d(images, tf.ones((3, 3, 3, 4)), 2, "SAME", name="conv")
        tf.nn.depthwise_conv2d(images, tf.ones((3, 3, 3, 2)), (1, 1, 1, 1), "SAME", name="depthwise")
        tf.linalg.matmul(tf.reshape(x, (-1, 4)), tf.ones((4, 5)), name="product")
        tf.broadcast_to(images, (2, 8, 10, 3), name="broadcast")
        tf.cast(images, tf.int64, name="long")
        tf.math.top_k(tf.reshape(images, (-1,)), k=tf.shape(images)[1], name="best")
        tf.nn.conv2d(images, tf.compat.v1.placeholder(tf.float32, (1, 1, 3, 3)), 1, "SAME", name="loose")
        kernel, out = tf.ones((2, 2, 5, 3)), (2, 16, 20, 5)
        tf.nn.conv2d_transpose(images, kernel, out, 2, name="deconv")
        tf.nn.conv2d_transpose(images, tf.compat.v1.placeholder(tf.float32, (2, 2, 5, 3)), out, 2, name="loose_deconv")
    nodes = {node.name: node for node in graph_nodes(graph, converters())[0]}
    # conv: 2 x 4 x 5 cells of 4 channels, with 27 multiply-adds each. depthwise: 160 cells of 6 channels, with 9 each.
    # product: 40 rows of 4 x 5.
    assert nodes["conv"].flops == 2 * 40 * 4 * 27
    assert nodes["depthwise/depthwise" if "depthwise/depthwise" in nodes else "depthwise"].flops == 2 * 160 * 6 * 9
    assert nodes["product"].flops == 2 * 40 * 4 * 5
    assert nodes["conv"].reason == ""
    # deconv: each of 2 x 8 x 10 cells of 3 channels goes into 4 cells of 5 channels.
    assert (nodes["deconv"].flops, nodes["deconv"].reason) == (2 * 160 * 3 * 4 * 5, "")
    assert nodes["loose_deconv"].reason == "the kernel must be a constant"
    assert nodes["broadcast"].reason == "no converter"
    assert nodes["long"].reason == "int64"
    assert nodes["best"].reason == "input 1 must be a constant"
    assert nodes["loose"].reason == "the kernel must be a constant"


@pytest.mark.skipif(WITH_TF_TRT, reason="this TensorFlow has the list")
def test_without_tensorflow_2_17_the_report_says_which_version_has_the_list(tiny_workdir):
    with pytest.raises(ValueError, match=r"TensorFlow must be 2\.17 .*pip install tensorflow==2\.17\.1"):
        conversion_report(tiny_workdir, SHAPE)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_one_error_names_all_that_is_missing_and_leaves_nothing(tiny_workdir, tmp_path):
    first, gpu = missing_requirements()
    if WITH_TF_TRT:
        assert first.startswith("TensorRT must be 8.6 or later, but TensorFlow finds none")
    else:
        assert first.startswith(f"TensorFlow must be 2.17, got {tf.__version__}")
    assert "nvcr.io/nvidia/tensorflow" in first
    assert gpu.startswith("A GPU must be there")
    with pytest.raises(ValueError, match=r"(?s)can't convert here.*nvcr\.io.*GPU must be there"):
        run(TfTrtOptions(str(tiny_workdir), str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "precision must be FP32, FP16 or INT8, got 'fp16'"),
        (
            {"input_shape": "800x1344"},
            "input_shape must be BxHxWx3, four whole numbers as 1x800x1344x3, got '800x1344'",
        ),
        ({"input_shape": "1x800x1344x1"}, "input_shape must end in 3"),
        ({"input_shape": "0x800x1344x3"}, "input_shape must have a batch of at least 1"),
        ({"input_shape": "1x32x1344x3"}, "input_shape must have a batch of at least 1 and sides of at least 64 pixels"),
        ({"output": None}, "output must be the folder to write"),
        ({"precision": "INT8"}, "calibration_data must be images for INT8"),
        ({"calibration_data": "shapes"}, "calibration_data must go with precision INT8, got FP16"),
        ({"require_flops": 98.0}, r"require_flops must be within 0 and 1, got 98\.0"),
        ({"workspace": 0}, "workspace must be at least 1, got 0"),
        ({"minimum_segment_size": 0}, "minimum_segment_size must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TfTrtOptions(**{"workdir": "w", "output": "o", **options})


def test_the_detector_written_for_tensorrt_has_the_detections_of_the_detector(trained, photo):
    from kfpn.modeling.detector import inference_model

    # The sides are odd, so that no level is twice as large as the next one.
    images = np.stack([photo(101, 75, seed) for seed in (0, 1)])
    sizes = np.array([[101, 75], [90, 61]], np.int32)
    images[1, 90:], images[1, :, 61:] = 0, 0
    expected = inference_model(trained.submodels, trained.config.model, padded=True)(
        {"images": images.astype(np.float32), "image_sizes": sizes}, training=False
    )
    detections = ServedTrtDetector(trained)(tf.constant(images), tf.constant(sizes))
    number = np.array(expected["num_detections"])
    assert number.min() > 0
    np.testing.assert_array_equal(detections["num_detections"], number)
    np.testing.assert_allclose(detections["detection_scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(detections["detection_boxes_pixels"], expected["boxes"], atol=0.05)
    ids = np.array([*trained.category_ids, 0])
    np.testing.assert_array_equal(detections["detection_classes"], ids[np.array(expected["labels"])])
    scaled = np.array(detections["detection_boxes"]) * np.tile(sizes, 2)[:, None]
    np.testing.assert_allclose(scaled, detections["detection_boxes_pixels"], rtol=1e-5)


def test_masks_of_the_same_detections_are_compared_in_the_mean():
    first = {
        "detection_boxes_pixels": np.array([[[0, 0, 9, 9], [20, 20, 40, 40], [0, 0, 0, 0]]], np.float32),
        "detection_scores": np.array([[0.9, 0.8, 0.0]], np.float32),
        "detection_classes": np.array([[3.0, 7.0, 0.0]]),
        "detection_masks": np.zeros((1, 3, 4, 4)),
    }
    turned = {name: value[:, [1, 0, 2]] for name, value in first.items()}
    assert masks_apart(first, turned) == 0.0
    turned["detection_masks"] = turned["detection_masks"].copy()
    turned["detection_masks"][0, 0, :2] = 0.5  # half of the cells of the second detection
    turned["detection_masks"][0, 2] = 1.0  # an empty row
    assert masks_apart(first, turned) == 0.25
    assert masks_apart({name: value for name, value in first.items() if name != "detection_masks"}, turned) == 0.0
    turned["detection_masks"][0, 1, 0, 0] = np.nan
    assert masks_apart(first, turned) > 1e9


def test_images_are_resized_padded_and_shrunk_to_the_input(trained, photo):
    pictures = [photo(96, 128), photo(48, 64), photo(200, 100)]
    first, second = calibration_batches(pictures, trained.config.input, (2, 96, 128, 3))
    np.testing.assert_array_equal(first["images"][0], pictures[0])
    np.testing.assert_array_equal(first["image_sizes"], [[96, 128], [96, 128]])
    # The third image is 200 x 100. With a shorter side of 96 it would be 192 high, which does not fit. The batch is filled
    # up with the same image.
    np.testing.assert_array_equal(second["image_sizes"], [[96, 48], [96, 48]])
    np.testing.assert_array_equal(second["images"][0], second["images"][1])
    assert not second["images"][:, :, 48:].any()


def test_calibration_images_come_from_a_folder_or_a_data_set(tmp_path, photo, encoded):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(encoded(photo(40, 50, seed)))
    pictures = list(calibration_pictures(str(tmp_path), 2))
    assert [picture.shape for picture in pictures] == [(40, 50, 3), (40, 50, 3)]
    assert len(list(calibration_pictures("shapes", 3))) == 3
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="must hold images"):
        list(calibration_pictures(str(tmp_path / "none"), 2))


def test_the_profiles_for_dynamic_sizes_hold_both_orientations_and_a_small_image():
    assert [x["images"].shape for x in profile_inputs((2, 96, 160, 3), False)] == [(2, 96, 160, 3)]
    shapes = [x["images"].shape for x in profile_inputs((2, 96, 160, 3), True)]
    assert shapes == [(2, 96, 160, 3), (2, 160, 96, 3), (1, 64, 64, 3)]


def test_a_model_is_equal_to_itself_and_a_model_without_detections_is_refused(native, tmp_path, photo):
    inputs = [{"images": photo(96, 128)[None], "image_sizes": np.array([[96, 128]], np.int32)}]
    lines = compare_saved_models(native, native, inputs, "FP32")
    assert "detections found again, their scores at most 0 apart" in lines[0]
    assert not lines[0].startswith("0 of 0")
    assert [line.split("|")[1].strip() for line in lines[3:]] == ["TensorFlow", "TF-TRT"]

    @tf.function(
        input_signature=[tf.TensorSpec(SHAPE, tf.uint8, "images"), tf.TensorSpec((1, 2), tf.int32, "image_sizes")]
    )
    def blind(images, image_sizes):
        names = {"boxes_pixels": (1, 5, 4), "scores": (1, 5), "classes": (1, 5)}
        return {f"detection_{name}": tf.zeros(shape) for name, shape in names.items()}

    module = tf.Module()
    module.blind = blind
    tf.saved_model.save(module, str(tmp_path / "blind"), signatures={"serving_default": blind})
    with pytest.raises(ValueError, match=r"FP32 must find 99% of the detections again.*got 0 of"):
        compare_saved_models(native, tmp_path / "blind", inputs, "FP32")


class StandInConverter:
    """Stands in for TrtGraphConverterV2: takes the same calls, and saves the model unconverted."""

    calls: list

    def __init__(self, **options):
        type(self).calls = [("init", options)]
        self.source = options["input_saved_model_dir"]

    def convert(self, calibration_input_fn=None):
        self.calls.append(("convert", calibration_input_fn and [x["images"].shape for x in calibration_input_fn()]))

    def build(self, input_fn):
        self.calls.append(("build", [x["images"].shape for x in input_fn()]))

    def save(self, target):
        shutil.copytree(self.source, target)
        self.calls.append(("save", target))


@pytest.fixture
def stand_in(monkeypatch, trained, native):
    package = types.ModuleType("tensorflow.python.compiler.tensorrt")
    package.trt_convert = types.SimpleNamespace(TrtGraphConverterV2=StandInConverter)
    monkeypatch.setitem(sys.modules, "tensorflow.python.compiler.tensorrt", package)
    monkeypatch.setattr(tf_trt, "missing_requirements", lambda: [])
    monkeypatch.setattr("kfpn.export.trained.open_trained", lambda workdir: trained)
    # The detector is written once and then copied, because it is the same each time.
    monkeypatch.setattr(tf_trt, "write_native", lambda trained, path, shape, dynamic: shutil.copytree(native, path))
    return StandInConverter


def test_int8_is_calibrated_with_real_images_built_verified_and_renamed(stand_in, tiny_workdir, tmp_path):
    target = tmp_path / "out"
    options = TfTrtOptions(
        str(tiny_workdir),
        str(target),
        "INT8",
        "1x96x128x3",
        calibration_data="shapes",
        calibration_images=2,
        verify=True,
    )
    text = write_tf_trt(options)
    assert text.startswith(f"written to {target}: INT8, 1x96x128x3")
    assert "detections found again" in text
    assert "| TF-TRT |" in text
    (_, init), (_, calibrated), (_, built), (_, saved) = stand_in.calls
    assert init["precision_mode"] == "INT8"
    assert init["use_calibration"]
    assert init["use_dynamic_shape"]
    assert init["max_workspace_size_bytes"] == 4096 * 2**20
    assert init["minimum_segment_size"] == 80
    assert calibrated == [(1, 96, 128, 3)] * 2
    assert built == [(1, 96, 128, 3)]
    assert saved != str(target)
    assert json.loads((target / "assets" / "classes.json").read_text())["category_ids"] == [3, 7, 18]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ValueError, match="out must not exist yet"):
        write_tf_trt(options)


def test_engines_are_built_by_the_first_request_and_for_dynamic_sizes_at_export(stand_in, tiny_workdir, tmp_path):
    write_tf_trt(TfTrtOptions(str(tiny_workdir), str(tmp_path / "static"), "FP16", "1x96x128x3"))
    assert [name for name, _ in stand_in.calls] == ["init", "convert", "save"]
    assert stand_in.calls[0][1]["allow_build_at_runtime"]
    assert stand_in.calls[1][1] is None
    write_tf_trt(TfTrtOptions(str(tiny_workdir), str(tmp_path / "dynamic"), "FP16", "2x96x128x3", dynamic=True))
    assert [name for name, _ in stand_in.calls] == ["init", "convert", "build", "save"]
    assert stand_in.calls[2][1] == [(2, 96, 128, 3), (2, 128, 96, 3), (1, 64, 64, 3)]
    assert not stand_in.calls[0][1]["allow_build_at_runtime"]


def test_a_conversion_that_fails_leaves_nothing(stand_in, tiny_workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(stand_in, "save", lambda self, target: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        write_tf_trt(TfTrtOptions(str(tiny_workdir), str(tmp_path / "out"), "FP32", "1x96x128x3"))
    assert list(tmp_path.iterdir()) == []
