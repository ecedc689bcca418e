"""Writes SavedModels whose convolutions run in TensorRT engines, and reports what TF-TRT would convert."""

import os
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from kfpn.export.archive import detection_outputs, write_archive, write_facts
from kfpn.export.calibration import calibration_pictures
from kfpn.export.input_shape import parse_input_shape
from kfpn.export.tensorrt_layers import for_tensorrt
from kfpn.export.tf_trt.converter_rules import converters, report_on_function
from kfpn.export.tf_trt.trt_inputs import calibration_batches, profile_inputs
from kfpn.export.tf_trt.trt_options import MINIMUM_SEGMENT_SIZE, TfTrtOptions
from kfpn.export.tf_trt.trt_partition import ConversionReport, report_lines
from kfpn.export.tf_trt.verify_tf_trt import compare_saved_models
from kfpn.export.trained import TrainedDetector, open_trained, written_aside
from kfpn.modeling.detector import inference_model

CONTAINER = "docker run --gpus all -it --rm -v $PWD:/work -w /work nvcr.io/nvidia/tensorflow:25.02-tf2-py3"
"""A container of NVIDIA that, by its documentation, holds TensorFlow 2.17; it was not tried, see docs/tf_trt.md."""
OLDEST_TENSORRT = (8, 6)


def checked_report(options: TfTrtOptions) -> str:
    """Reports what TF-TRT would convert, and makes sure that it is as much as the options require.

    Returns:
        The report as lines for people.

    Raises:
        ValueError: with the report, if a required share is not reached; see also `conversion_report`.
    """
    shape = parse_input_shape(options.input_shape)
    report = conversion_report(options.workdir, shape, options.dynamic, options.minimum_segment_size)
    text = report_lines(report)
    if options.require_flops is not None and (report.flop_share < options.require_flops or report.uncounted):
        raise ValueError(f"require_flops must be reached, got {report.flop_share:.4f}\n{text}")
    if options.require_segments is not None and len(report.segments) > options.require_segments:
        raise ValueError(f"require_segments must not be exceeded, got {len(report.segments)}\n{text}")
    return text


def missing_requirements() -> list[str]:
    """Returns what keeps TF-TRT from running here: a sentence each, with the way to get it. Empty if nothing is missing."""
    if tuple(int(part) for part in tf.__version__.split(".")[:2]) > (2, 17):
        lacks = [f"TensorFlow must be 2.17, got {tf.__version__}, in which TF-TRT is no more: {CONTAINER}"]
    else:
        from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils as native

        lacks, wanted = [], ".".join(map(str, OLDEST_TENSORRT))
        # get_loaded_tensorrt_version() aborts the process where there is no TensorRT.
        if not native.is_tensorrt_enabled():
            lacks.append(f"TensorRT must be {wanted} or later, but TensorFlow finds none to load: {CONTAINER}")
        elif tuple(native.get_loaded_tensorrt_version())[:2] < OLDEST_TENSORRT:
            version = ".".join(map(str, native.get_loaded_tensorrt_version()))
            lacks.append(f"TensorRT must be {wanted} or later, got {version}: {CONTAINER}")
    if not tf.config.list_physical_devices("GPU"):
        lacks.append(
            "A GPU must be there, but TensorFlow sees none: run on a machine with an NVIDIA driver (nvidia-smi)"
        )
    return lacks


class ServedTrtDetector:
    """The function that is converted: the padded detector in the formulations that TensorRT takes.

    Args:
        trained: the detector.
    """

    def __init__(self, trained: TrainedDetector):
        self._category_ids = trained.category_ids
        self.model = inference_model(
            for_tensorrt(trained.submodels), trained.config.model, padded=True, nms="kernel"
        )  # fmt: skip

    def signature(self, shape: tuple[int, int, int, int], dynamic: bool) -> list:
        """Returns the specs of `images` (B, H, W, 3) uint8 and `image_sizes` (B, 2) int32."""
        batch, height, width, _ = (None, None, None, 3) if dynamic else shape
        return [
            tf.TensorSpec((batch, height, width, 3), tf.uint8, "images"),
            tf.TensorSpec((batch, 2), tf.int32, "image_sizes"),
        ]

    def __call__(self, images, image_sizes):
        """Detects, and returns the outputs of a SavedModel; boxes in pixels are those of the network's input.

        Args:
            images: (B, H, W, 3) uint8 RGB, at the network's size, padded below and right.
            image_sizes: (B, 2) int32, heights and widths without the padding.
        """
        detections = self.model({"images": tf.cast(images, tf.float32), "image_sizes": image_sizes}, training=False)
        sides = tf.cast(tf.tile(image_sizes, (1, 2)), tf.float32)[:, None]
        return detection_outputs(detections, detections["boxes"] / sides, detections["boxes"], self._category_ids)


def conversion_report(
    workdir: str | os.PathLike,
    shape: tuple[int, int, int, int],
    dynamic: bool = False,
    minimum_segment_size: int = MINIMUM_SEGMENT_SIZE,
) -> ConversionReport:
    """Reports what TF-TRT would convert, by TensorFlow 2.17's list of converters and a simulation of its segmenter.

    Args:
        workdir: of a trained detector.
        shape: (B, H, W, 3) of the network's input, for which FLOPs are counted.
        dynamic: bool, whether the graph is traced without static sizes.
        minimum_segment_size: int, nodes that an engine must hold.

    Raises:
        ValueError: if TensorFlow is not 2.17 or there is no trained detector.
    """
    known = converters()
    detector = ServedTrtDetector(open_trained(workdir))

    def traced(dynamic):
        return tf.function(detector, input_signature=detector.signature(shape, dynamic)).get_concrete_function()

    static = traced(False)
    return report_on_function(traced(True) if dynamic else static, shape, known, minimum_segment_size, static.graph)


def write_tf_trt(options: TfTrtOptions) -> str:
    """Converts the detector of a work directory with TrtGraphConverterV2, and writes the SavedModel.

    Args:
        options: with `output`.

    Returns:
        Lines that tell what was written, and with `verify` how it compares with Keras and how fast both are.

    Raises:
        ValueError: with a line for each thing that is missing; if the output exists or the result differs. Nothing is
            written then.
    """
    lacks = missing_requirements()
    if lacks:
        raise ValueError("tf_trt can't convert here:\n" + "\n".join(f"  {line}" for line in lacks))
    shape = parse_input_shape(options.input_shape)
    with written_aside(options.output or "") as aside, tempfile.TemporaryDirectory() as scratch:
        trained = open_trained(options.workdir)
        calibration = []
        if options.calibration_data is not None:
            pictures = calibration_pictures(options.calibration_data, options.calibration_images)
            calibration = list(calibration_batches(pictures, trained.config.input, shape))
        native = Path(scratch) / "native"
        write_native(trained, native, shape, options.dynamic)
        _convert_native(options, native, aside, shape, calibration)
        write_facts(aside, trained)
        lines = [f"written to {options.output}: {options.precision}, {options.input_shape}"]
        if options.verify:
            inputs = calibration or list(profile_inputs(shape, dynamic=False))
            lines += compare_saved_models(native, aside, inputs[:10], options.precision)
    return "\n".join(lines)


def write_native(trained: TrainedDetector, path: Path, shape, dynamic: bool) -> None:
    """Writes the SavedModel that is converted, with the signature serving_default, see `ServedTrtDetector`."""
    detector = ServedTrtDetector(trained)
    write_archive(path, {"serving_default": (detector, detector.signature(shape, dynamic))})


def _convert_native(
    options: TfTrtOptions, native: Path, target: Path, shape, calibration: list[dict[str, Any]]
) -> None:
    from tensorflow.python.compiler.tensorrt import trt_convert

    int8 = options.precision == "INT8"
    # Calibration runs while engines are built, and profiles of dynamic shapes are made then too.
    build = options.build or options.dynamic or int8
    converter = trt_convert.TrtGraphConverterV2(
        input_saved_model_dir=str(native),
        # With static shapes the batch is implicit: that is deprecated, TensorRT 10 has dropped it, and RoIs as a batch
        # would not convert.
        use_dynamic_shape=True,
        dynamic_shape_profile_strategy="Range",
        max_workspace_size_bytes=options.workspace * 2**20,
        precision_mode=options.precision,
        minimum_segment_size=options.minimum_segment_size,
        maximum_cached_engines=1,
        use_calibration=int8,
        allow_build_at_runtime=not build,
    )
    converter.convert(**({"calibration_input_fn": lambda: iter(calibration)} if int8 else {}))
    if build:
        converter.build(input_fn=lambda: profile_inputs(shape, options.dynamic))
    converter.save(str(target))
