"""Quantizes ONNX files for CPUs: convolutions and products in eight bits, calibrated on real images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kfpn.config.run import Config
from kfpn.config.spread import evenly_spread
from kfpn.data.augment import prepare_image, size_rule
from kfpn.data.image import decode_record
from kfpn.data.own_split import open_validation
from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import OF_MASKS
from kfpn.evaluation.detect import detect_unpadded, evaluate_detections
from kfpn.evaluation.segmentations import segmented
from kfpn.export.calibration import calibration_pictures
from kfpn.export.onnx.activation_ranges import EIGHT_BIT_OPERATIONS, activation_ranges
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime
from kfpn.export.trained import TrainedDetector
from kfpn.export.verify import ExportMismatch

# The last layers stay float32: in eight bits, boxes, scores and masks themselves would be rounded to 256 steps.
_PREDICTORS = ("rpn_logits", "rpn_deltas", "head_logits", "head_deltas", "mask_logits")
FEWEST_IMAGES = 8


@dataclass(frozen=True)
class Int8Options:
    """The way an INT8 file is calibrated and checked.

    Attributes:
        calibration_data: a folder of images or a data set, as `kfpn train --data` takes it; None: the run's training data.
        calibration_images: their number; they are evenly spread over the data.
        check_images: number of validation images, evenly spread, on which the AP of both files is measured; 0: none.
        max_drop: largest loss of AP that is allowed, 0..1.
    """

    calibration_data: str | None = None
    calibration_images: int = 64
    check_images: int = 100
    max_drop: float = 0.01

    def __post_init__(self) -> None:
        if self.calibration_images < FEWEST_IMAGES:
            raise ValueError(f"calibration_images must be {FEWEST_IMAGES} or more, got {self.calibration_images}")
        if self.check_images < 0:
            raise ValueError(f"check_images must be 0 or more, got {self.check_images}")
        if not 0 <= self.max_drop <= 1:
            raise ValueError(f"max_drop must be within 0 and 1, got {self.max_drop}")


def calibration_inputs(config: Config, options: Int8Options) -> Iterator[np.ndarray]:
    """Yields images resized as the detector sees them: (1, H, W, 3) uint8.

    Args:
        config: of the run.
        options: say which images.

    Raises:
        ValueError: if the data cannot be opened or hold fewer than `FEWEST_IMAGES`.
    """
    data = options.calibration_data or config.data
    number = 0
    try:
        for picture in calibration_pictures(data, options.calibration_images):
            number += 1
            yield prepare_image(picture, config.input)[0][None]
    except ValueError as error:
        if options.calibration_data:
            raise
        raise ValueError(
            f"{error}: these are the run's training data; --calibration-data names other images"
        ) from error
    if number < FEWEST_IMAGES:
        raise ValueError(f"calibration_data must hold at least {FEWEST_IMAGES} images, got {number} in {data!r}")


def quantize(source: Path, target: Path, inputs: Iterable[np.ndarray]) -> None:
    """Writes a copy of an ONNX file of kfpn whose convolutions and matrix products are INT8 (QuantizeLinear, DequantizeLinear).

    Weights are symmetric, channel by channel. Activations are unsigned; their ranges are the least and greatest values that
    occur on the inputs. The first convolution, which reads the image, the predictors, the mask head's deconvolution, group norms,
    boxes, RoIAlign and NMS stay float32.

    Args:
        source: a file of `kfpn.export.onnx.write_onnx.write_onnx`.
        target: file to write.
        inputs: real images, (1, H, W, 3) uint8.

    Raises:
        ValueError: if the written file does not load in onnxruntime.
    """
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    model = onnx.load(str(source))
    ranges = activation_ranges(source, inputs)
    quantizer = QDQQuantizer(
        model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
        tensors_range=ranges, nodes_to_quantize=_eight_bit_nodes(model.graph), nodes_to_exclude=[],
        op_types_to_quantize=list(EIGHT_BIT_OPERATIONS), extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target))
    written = onnx.load(str(target))
    onnx.helper.set_model_props(
        written, {prop.key: prop.value for prop in model.metadata_props} | {"precision": "int8"}
    )
    onnx.save(written, str(target))
    onnx.checker.check_model(str(target), full_check=True)
    in_onnxruntime(target)


def _eight_bit_nodes(graph: Any) -> list[str]:
    """Returns the names of the nodes that compute in eight bits, see `quantize`: products with weights, and the ReLUs, which fuse with them."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    chosen = []
    for node in graph.node:
        if node.op_type == "Relu":
            chosen.append(node.name)
        if node.op_type not in ("Conv", "MatMul") or node.input[1] not in weights:
            continue
        reads_the_image = node.op_type == "Conv" and weights[node.input[1]][1] == 3
        of_group_norm = node.op_type == "MatMul" and "_norm" in node.name  # see `GroupNormByProducts`
        if not reads_the_image and not of_group_norm and not any(name in node.name for name in _PREDICTORS):
            chosen.append(node.name)
    return chosen


def require_accuracy(
    trained: TrainedDetector, source: Source, full: Path, quantized: Path, options: Int8Options
) -> None:
    """Measures the AP of both files on validation images, of boxes and of masks where there are any, prints it, and limits the loss.

    Args:
        trained: the detector.
        source: the validation images.
        full: the float32 file.
        quantized: the INT8 file.
        options: the number of images, and the loss that is allowed.

    Raises:
        ExportMismatch: if the AP drops by more than `max_drop`.
    """
    rows = evenly_spread(len(source), options.check_images).tolist()
    exact, rounded = (
        evaluate_onnx(path, source, rows, trained.config, trained.class_names) for path in (full, quantized)
    )
    names = ["AP"]
    if exact.get(OF_MASKS + "AP") is not None:  # None where no object of these images has a mask
        names.append(OF_MASKS + "AP")
    for name in names:
        before, after = exact[name] or 0.0, rounded[name] or 0.0
        print(f"verify INT8: {name} {after:.4f}, float32 {before:.4f}, on {len(rows)} images of {source.name}")
        if before - after > options.max_drop:
            raise ExportMismatch(
                f"INT8 must cost at most {options.max_drop} {name}, got {before:.4f} to {after:.4f} on {len(rows)} images of "
                f"{source.name}; calibrate on more or other images, or allow more with --max-drop"
            )


def validation_source(config: Config) -> Source:
    """Opens the data that a run is validated on.

    Raises:
        ValueError: if the run has none, or they cannot be opened.
    """
    hint = "to leave out the check: --check-images 0"
    try:
        source = open_validation(config)
        if source is not None:
            return source
    except (ValueError, OSError) as error:
        raise ValueError(f"the validation data of the work directory must open, got: {error}; {hint}") from error
    raise ValueError(f"{config.data} has no validation split to compare INT8 with float32 on; {hint}")


def evaluate_onnx(
    path: Path,
    source: Source,
    rows: Sequence[int],
    config: Config,
    class_names: Sequence[str],
    load: Any = in_onnxruntime,
) -> dict[str, Any]:
    """Measures the COCO figures of an ONNX file, see `kfpn.evaluation.evaluate_coco`.

    Args:
        path: a file of `kfpn export onnx`, of dynamic size.
        source: the data.
        rows: indices of the records that count.
        config: its `input` says how images are resized.
        class_names: names of the file's labels.
        load: `in_onnxruntime` or `in_openvino`.
    """
    detect, needed, rule = load(path), size_rule(config.input), config.model.pasting
    detections = [
        segmented(
            detect_unpadded(detect, decode_record(record, needed), config.input, int(record.image_id)),
            (record.height, record.width),
            rule,
        )
        for record in tqdm(
            (source[row] for row in rows), total=len(rows), desc=f"evaluate {path.name}", unit="image", leave=False
        )
    ]
    return evaluate_detections(source, class_names, detections, rows)[0]
