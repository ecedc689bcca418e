"""Writes ONNX files of a trained detector, and compares them with Keras before they appear."""

import dataclasses
import importlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.config.segment_settings import require_none_given
from kfpn.export.input_shape import parse_input_shape
from kfpn.export.onnx.garbage import garbage_collected_often
from kfpn.export.onnx.int8 import Int8Options, calibration_inputs, quantize, require_accuracy, validation_source
from kfpn.export.onnx.onnx_detector import OnnxDetector
from kfpn.export.onnx.onnx_operations import OPSET
from kfpn.export.onnx.onnx_segmenter import OnnxSegmenter
from kfpn.export.onnx.verify_onnx import verify_onnx, verify_thresholded_file
from kfpn.export.tensorrt_layers import LARGEST_TOP_K
from kfpn.export.trained import TrainedDetector, TrainedSegmenter, open_either, written_aside
from kfpn.modeling.backbones.backbone_model import layers_within
from kfpn.modeling.backbones.channelwise import ChannelwiseConv2D
from kfpn.ops.pyramid_levels import pre_nms
from kfpn.runs.load import task_of

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def export_onnx(
    workdir: str | os.PathLike,
    target: str | os.PathLike,
    *,
    input_shape: str | Sequence[int] | None = None,
    raw: bool = False,
    int8: Int8Options | None = None,
    best_thresholds: bool = False,
) -> Path:
    """Writes a trained detector, or what proposes segments, as an ONNX file, which appears once the runtimes give what Keras gives.

    The file's input is `images`, (B, H, W, 3) float32, RGB, 0..255, already resized. Its outputs are boxes (B, D, 4)
    float32 yxyx in pixels of the input, scores (B, D) float32, labels (B, D) int32, -1 in empty rows, and num_detections
    (B,) int32, and with a mask head masks (B, D, 28, 28) float32 in 0..1. With `raw` they are boxes (B, R, K, 4) and scores
    (B, R, K), 0 in empty rows, of the R proposals. Its metadata hold class_names, category_ids and the rule by which images are resized.

    Of a run with `--task segments` they are those of `build_segmenter`, with num_segments (B,) int32; `raw`, `int8` and `best_thresholds`
    are for detectors.

    Args:
        workdir: of `kfpn train`, `kfpn.callbacks.WorkDirectory`, `kfpn.save_detector` or `kfpn import-weights`.
        target: file to write; it must not exist.
        input_shape: (B, H, W, 3) of the only input the file takes; None: any batch and any size.
        raw: leave out the NMS of the detections. The NMS of the proposals stays: the box head's input depends on it.
        int8: how convolutions and products are made to compute in eight bits, for CPUs; None: all is float32. The float32
            file is compared with Keras, and the INT8 file with the float32 file, by their AP.
        best_thresholds: leave out detections below the threshold of their class, see `kfpn.evaluate`.

    Returns:
        `target`.

    Raises:
        ValueError: if a package is missing, the shape is wrong, the target exists or can't be written, the work directory
            has no weights or lacks the thresholds that are asked for, a backbone of one's own has convolutions in groups of several
            channels, or INT8 lacks data. No file appears then.
        ExportMismatch: a ValueError, if onnxruntime, or OpenVINO where it is installed, finds something else than Keras, or
            INT8 costs too much accuracy. No file appears then.
    """
    target = Path(target)
    shape = None if input_shape is None else parse_input_shape(input_shape)
    if int8 and (shape or raw):
        raise ValueError(
            "int8 must go without input_shape and raw: it is for CPUs, and TensorRT makes an INT8 of its own"
        )
    if raw and best_thresholds:
        raise ValueError("best_thresholds must go without raw: a raw file has no detections to leave out")
    if task_of(workdir) == "segments":
        require_none_given(workdir, {"int8": int8 is not None, "raw": raw, "best_thresholds": best_thresholds})
    require_packages(PACKAGES)
    with written_aside(target) as aside:
        trained = open_either(workdir, best_thresholds)
        _require_no_groups(trained.submodels.features)
        if shape is not None:
            _require_small_counts(trained.config)
        if isinstance(trained, TrainedSegmenter):
            write_onnx(trained, aside, shape, raw)
            verify_onnx(trained, aside, shape, raw)
            return target
        if raw and trained.config.model.mask:
            print(
                "raw: masks are left out, because the mask head looks at detections and a raw file has none", flush=True
            )
        if int8:
            # Opened now, so that a mistake in the options is found before minutes of work.
            inputs = list(calibration_inputs(trained.config, int8))
            validation = validation_source(trained.config) if int8.check_images else None
        full = aside.with_name("float32.onnx") if int8 else aside
        _write_verified(trained, full, shape, raw)
        if int8:
            quantize(full, aside, inputs)
            if validation is not None:
                require_accuracy(trained, validation, full, aside, int8)
    return target


def _write_verified(trained: TrainedDetector, path: Path, shape: tuple[int, int, int, int] | None, raw: bool) -> None:
    """Writes the float32 file and compares it: with Keras or, where it has thresholds, with a file without them."""
    if trained.thresholds is None:
        write_onnx(trained, path, shape, raw)
        verify_onnx(trained, path, shape, raw)
        return
    # The thresholds hide most rows of a drawn picture. So a file without them is compared with Keras.
    plain, all_rows = path.with_name("plain.onnx"), dataclasses.replace(trained, thresholds=None)
    write_onnx(all_rows, plain, shape, raw)
    verify_onnx(all_rows, plain, shape, raw)
    write_onnx(trained, path, shape, raw)
    verify_thresholded_file(trained, plain, path, shape)


def require_packages(packages: Sequence[str]) -> None:
    """Makes sure that packages can be imported.

    Raises:
        ValueError: with the line that installs the missing ones.
    """
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise ValueError(
            f"an ONNX export needs {', '.join(packages)}, got no {', '.join(missing)}: pip install {' '.join(missing)}"
        )


def _require_no_groups(features: keras.Model) -> None:
    """Refuses convolutions that Keras gives to XLA on TensorFlow: tf2onnx can't look into what XLA compiles."""
    for layer in layers_within(features):
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1 and not isinstance(layer, ChannelwiseConv2D):
            raise ValueError(
                f"backbone must have no convolution in groups for ONNX, got layer {layer.name} with groups={layer.groups}: only those "
                "with one channel a group can be converted. kfpn export saved_model takes all"
            )


def _require_small_counts(config: Config) -> None:
    of_detectors = ("pre_nms_test", "post_nms_test", "max_detections")
    names = of_detectors if config.model.task == "detections" else ("max_segments",)
    counts = {name: getattr(config.model, name) for name in names}
    for name, count in counts.items():
        rows = pre_nms(count, config.model) if name == "pre_nms_test" else count
        if rows >= LARGEST_TOP_K:
            times = f", {rows // count} times {count}" if rows != count else ""
            raise ValueError(
                f"--model.{name.replace('_', '-')} must give below {LARGEST_TOP_K} for TensorRT, got {rows}{times}"
            )


@garbage_collected_often()
def write_onnx(
    trained: TrainedDetector | TrainedSegmenter, path: Path, shape: tuple[int, int, int, int] | None, raw: bool
) -> None:
    """Converts the network and writes the file. The file is checked by onnx but not run.

    Args:
        trained: the detector, or what proposes segments.
        path: file to write.
        shape: (B, H, W, 3) of the only input the file takes; None: any batch and any size.
        raw: leave out the NMS of the detections.
    """
    import onnx
    import tf2onnx

    network = _onnx_network(trained, raw, shape is not None)
    spec = tf.TensorSpec(shape or (None, None, None, 3), tf.float32, "images")
    function = tf.function(network.detect, autograph=False)
    # tf2onnx would warn of every PyFunc that stands for an operation of ONNX. The file is checked below, and run afterwards.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(
        function, [spec], opset=OPSET, custom_op_handlers=network.operations.handlers()
    )
    _name_sizes(model, shape)
    onnx.helper.set_model_props(model, file_metadata(trained, raw))
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def _onnx_network(trained: TrainedDetector | TrainedSegmenter, raw: bool, static: bool) -> OnnxDetector | OnnxSegmenter:
    if isinstance(trained, TrainedSegmenter):
        return OnnxSegmenter(trained.submodels, trained.config.model)
    return OnnxDetector(trained.submodels, trained.config.model, raw, static, trained.thresholds)


def file_metadata(trained: TrainedDetector | TrainedSegmenter, raw: bool) -> dict[str, str]:
    """Returns the metadata of the file: name -> plain text, or JSON."""
    rule = trained.config.input
    of_input = {
        "input": "images: (B, H, W, 3) float32, RGB, 0..255",
        "input_rule": json.dumps({"short_side": rule.short_side, "long_side": rule.long_side, "filter": "bilinear"}),
        "boxes": "y1, x1, y2, x2 in pixels of the input",
    }
    if isinstance(trained, TrainedSegmenter):
        return {**of_input, "task": "segments", "pasting": trained.config.model.pasting}
    return {
        "class_names": json.dumps(list(trained.class_names)),
        "category_ids": json.dumps(list(trained.category_ids)),
        **of_input,
        "raw": json.dumps(raw),
        **({"pasting": trained.config.model.pasting} if trained.config.model.mask and not raw else {}),
        **({} if trained.thresholds is None else {"thresholds": json.dumps(list(trained.thresholds))}),
    }


def _name_sizes(model: Any, shape: tuple[int, int, int, int] | None) -> None:
    # tf2onnx gives every unknown size a name of its own, and loses the batch size of a static file's outputs.
    names = ("batch", "height", "width")
    for value, count in [(value, 3) for value in model.graph.input] + [(value, 1) for value in model.graph.output]:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim[:count]):
            if shape is None:
                dimension.dim_param = names[axis]
            else:
                dimension.dim_value = shape[axis]
