"""TF-TRT: the detector as a SavedModel whose convolutions run in TensorRT engines, and the report on what would convert."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfpn.export.segments import Report
    from kfpn.export.source import Trained

PRECISIONS = ("FP32", "FP16", "INT8")
CONTAINER = "docker run --gpus all -it --rm -v $PWD:/work -w /work nvcr.io/nvidia/tensorflow:25.02-tf2-py3"
"""NVIDIA's last container with TensorFlow 2.17 and TF-TRT."""
OLDEST_TENSORRT = (8, 6)
# Below it R50-FPN gets engines for the few nodes between two NMS loops, which only cost copies.
MINIMUM_SEGMENT_SIZE = 60
# Without static sizes the convolutions of P2 end up in a segment of their own, with few nodes and many FLOPs.
MINIMUM_DYNAMIC_SEGMENT_SIZE = 50


@dataclass(frozen=True)
class TfTrtOptions:
    """The options of `kfpn export tf_trt` and export/to_tf_trt.py.

    Attributes:
        workdir: of a trained detector.
        output: the SavedModel to write; must not exist. Not needed with `report`.
        precision: FP32, FP16 or INT8.
        input_shape: BxHxWx3 of the network's input; smaller images are padded below and right.
        dynamic: engines for batches of 1 to B and for sides from half the shorter to the longer one.
        calibration_data: for INT8: coco:..., voc:..., tfds:..., shapes, or a folder of images.
        calibration_images: how many of them.
        build: build the engines now and save them; else they are built at the first request.
        workspace: MB of GPU memory that TensorRT may try out formulations in.
        minimum_segment_size: nodes an engine must hold; None: 60, with `dynamic` 50.
        verify: compare with Keras and time both, before the SavedModel appears.
        report: say what would convert, and stop: needs TensorFlow 2.17, but neither TensorRT nor a GPU.
        require_flops: with `report`, fail below this share of the FLOPs, 0..1.
        require_segments: with `report`, fail above this number of segments.
    """

    workdir: str
    output: str | None = None
    precision: str = "FP16"
    input_shape: str = "1x800x1344x3"
    dynamic: bool = False
    calibration_data: str | None = None
    calibration_images: int = 100
    build: bool = False
    workspace: int = 4096
    minimum_segment_size: int | None = None
    verify: bool = False
    report: bool = False
    require_flops: float | None = None
    require_segments: int | None = None

    @property
    def segment_size(self) -> int:
        """`minimum_segment_size`, chosen where it is None."""
        if self.minimum_segment_size is not None:
            return self.minimum_segment_size
        return MINIMUM_DYNAMIC_SEGMENT_SIZE if self.dynamic else MINIMUM_SEGMENT_SIZE

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {self.precision!r}"
            )
        for name in ("calibration_images", "workspace", "minimum_segment_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        parse_shape(self.input_shape)
        if self.report:
            return
        if self.output is None:
            raise ValueError("output must be the folder to write, got none; or ask for the report")
        if self.precision == "INT8" and self.calibration_data is None:
            raise ValueError("calibration_data must be images for INT8 (coco:..., voc:..., or a folder), got none")
        if self.precision != "INT8" and self.calibration_data is not None:
            raise ValueError(f"calibration_data must go with precision INT8, got {self.precision}")


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """Returns (B, H, W, 3) of "1x800x1344x3".

    Raises:
        ValueError: if it says something else.
    """
    parts = text.lower().split("x")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) for part in parts) or parts[3] != "3":
        raise ValueError(f"input_shape must be BxHxWx3, as 1x800x1344x3, got {text!r}")
    batch, height, width, channels = (int(part) for part in parts)
    if min(height, width) < 64:
        raise ValueError(f"input_shape must have sides of 64 pixels or more, got {text!r}")
    return batch, height, width, channels


def run(options: TfTrtOptions) -> str:
    """Does what the options say.

    Returns:
        the report, or what was written and how it compares.

    Raises:
        ValueError: for what is missing, one sentence each; for targets that exist; if a required share isn't reached.
    """
    from kfpn.export.segments import describe

    if options.report:
        found = report(options.workdir, parse_shape(options.input_shape), options.dynamic, options.segment_size)
        text = describe(found)
        if options.require_flops is not None and (found.flop_share < options.require_flops or found.uncounted):
            raise ValueError(f"require_flops must be reached, got {found.flop_share:.4f}\n{text}")
        if options.require_segments is not None and len(found.segments) > options.require_segments:
            raise ValueError(f"require_segments must not be exceeded, got {len(found.segments)}\n{text}")
        return text
    return convert(options)


def missing() -> list[str]:
    """Returns what keeps TF-TRT from running here: a sentence each, with the way to get it; empty if nothing does."""
    import tensorflow as tf

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


class Servable:
    """The function that is converted: the padded detector in the formulations that TensorRT takes.

    Args:
        trained: the detector.
    """

    def __init__(self, trained: "Trained"):
        import tensorflow as tf

        from kfpn.export.trt_layers import for_tensorrt
        from kfpn.modeling.detector import inference_model

        self._tf = tf
        self.model = inference_model(
            for_tensorrt(trained.submodels), trained.config.model, padded=True, proposals_nms="kernel",
            detections_nms="kernel",
        )  # fmt: skip
        # Behind the last: of empty rows, whose label is -1.
        self._ids = tf.constant((*trained.category_ids, 0), tf.float32)

    def signature(self, shape: tuple[int, int, int, int], dynamic: bool) -> list:
        """Returns the specs of `images` (B, H, W, 3) uint8 and `image_sizes` (B, 2) int32."""
        tf = self._tf
        batch, height, width, _ = (None, None, None, 3) if dynamic else shape
        return [
            tf.TensorSpec((batch, height, width, 3), tf.uint8, "images"),
            tf.TensorSpec((batch, 2), tf.int32, "image_sizes"),
        ]

    def __call__(self, images, image_sizes):
        """Returns what the other exports return; boxes in pixels are those of the input.

        Args:
            images: (B, H, W, 3) uint8 RGB, at the network's size, padded below and right.
            image_sizes: (B, 2) int32, heights and widths without the padding.
        """
        tf = self._tf
        found = self.model({"images": tf.cast(images, tf.float32), "image_sizes": image_sizes}, training=False)
        sides = tf.cast(tf.tile(image_sizes, (1, 2)), tf.float32)[:, None]
        labels = tf.where(found["labels"] < 0, len(self._ids) - 1, found["labels"])
        return {
            "detection_boxes": found["boxes"] / sides,
            "detection_boxes_pixels": found["boxes"],
            "detection_scores": found["scores"],
            "detection_classes": tf.gather(self._ids, labels),
            "num_detections": tf.cast(found["num_detections"], tf.float32),
        }


def report(workdir: str | os.PathLike, shape, dynamic=False, minimum_segment_size=MINIMUM_SEGMENT_SIZE) -> "Report":
    """Says what TF-TRT would convert, by TensorFlow 2.17's list of converters and a simulation of its segmenter.

    Args:
        workdir: of a trained detector.
        shape: (B, H, W, 3) of the network's input, for which FLOPs are counted.
        dynamic: bool, whether the graph is traced without static sizes.
        minimum_segment_size: int, nodes an engine must hold.

    Raises:
        ValueError: if TensorFlow isn't 2.17 or there is no trained detector.
    """
    from kfpn.export.convertible import converters, report_on

    known = converters()
    import tensorflow as tf

    from kfpn.export.source import open_trained

    servable = Servable(open_trained(workdir))

    def traced(dynamic):
        return tf.function(servable, input_signature=servable.signature(shape, dynamic)).get_concrete_function()

    static = traced(False)
    return report_on(traced(True) if dynamic else static, shape, known, minimum_segment_size, static.graph)


def convert(options: TfTrtOptions) -> str:
    """Converts a work directory with TrtGraphConverterV2 and writes the SavedModel, aside, then renamed.

    Args:
        options: with `output`.

    Returns:
        lines that say what was written, and with `verify` how it compares with Keras and how fast both are.

    Raises:
        ValueError: with a line for each thing that is missing; if the target exists or the result differs.
    """
    from kfpn.engine.workdir import write_json
    from kfpn.export.source import open_trained, written_aside
    from kfpn.export.trt_check import compare
    from kfpn.export.trt_inputs import batches, calibration_pictures, profile_inputs

    lacks = missing()
    if lacks:
        raise ValueError("tf_trt can't convert here:\n" + "\n".join(f"  {line}" for line in lacks))
    shape = parse_shape(options.input_shape)
    with written_aside(options.output or "") as aside, tempfile.TemporaryDirectory() as scratch:
        trained = open_trained(options.workdir)
        calibration = []
        if options.calibration_data is not None:
            pictures = calibration_pictures(options.calibration_data, options.calibration_images)
            calibration = list(batches(pictures, trained.config.input, shape))
        native = Path(scratch) / "native"
        write_native(trained, native, shape, options.dynamic)
        _convert(options, native, aside, shape, calibration)
        classes = {"class_names": list(trained.class_names), "category_ids": list(trained.category_ids)}
        (aside / "assets").mkdir(exist_ok=True)
        write_json(aside / "assets" / "classes.json", classes)
        lines = [f"written to {options.output}: {options.precision}, {options.input_shape}"]
        if options.verify:
            inputs = calibration or list(profile_inputs(shape, dynamic=False))
            lines += compare(native, aside, inputs[:10], options.precision)
    return "\n".join(lines)


def write_native(trained: "Trained", path: Path, shape, dynamic: bool) -> None:
    """Writes the SavedModel that is converted: signature serving_default, see `Servable`."""
    import keras

    servable = Servable(trained)
    archive = keras.export.ExportArchive()
    archive.track(servable.model)
    archive.add_endpoint("serving_default", servable, servable.signature(shape, dynamic))
    archive.write_out(str(path), verbose=False)


def _convert(options: TfTrtOptions, native: Path, target: Path, shape, calibration: list[dict[str, Any]]) -> None:
    from tensorflow.python.compiler.tensorrt import trt_convert

    from kfpn.export.trt_inputs import profile_inputs

    int8 = options.precision == "INT8"
    # Calibration runs while engines are built, and so do the profiles of dynamic shapes.
    build = options.build or options.dynamic or int8
    converter = trt_convert.TrtGraphConverterV2(
        input_saved_model_dir=str(native),
        # Without it the batch is implicit: deprecated, gone in TensorRT 10, and RoIs as a batch would not convert.
        use_dynamic_shape=True,
        dynamic_shape_profile_strategy="Range",
        max_workspace_size_bytes=options.workspace * 2**20,
        precision_mode=options.precision,
        minimum_segment_size=options.segment_size,
        maximum_cached_engines=1,
        use_calibration=int8,
        allow_build_at_runtime=not build,
    )
    converter.convert(**({"calibration_input_fn": lambda: iter(calibration)} if int8 else {}))
    if build:
        converter.build(input_fn=lambda: profile_inputs(shape, options.dynamic))
    converter.save(str(target))
