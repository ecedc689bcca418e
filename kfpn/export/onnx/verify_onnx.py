"""Verifies that an ONNX file gives what the Keras model gives, in every runtime that is installed."""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.export.class_thresholds import verify_thresholds
from kfpn.export.edge_rows import EVERYTHING, Selection, edge_lines
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime, in_openvino
from kfpn.export.raw_detector import RawDetector, candidate_rows
from kfpn.export.segment_comparison import keras_segments, segments_difference
from kfpn.export.trained import TrainedDetector, TrainedSegmenter
from kfpn.export.verify import (
    BOX_LIMIT,
    Difference,
    ExportMismatch,
    compare_as_sets,
    drawn_picture,
    full_float32,
)
from kfpn.modeling.detector import Detector

ONNX_SCORE_LIMIT = 1e-4
"""Largest difference of a score, unless Keras with and without folded norms differs by more."""

NOISE_FACTOR = 2.0
"""By how many times the difference between Keras with and without folded norms the scores may differ, where that is more.

On ResNet-50s with random weights the largest difference of 300 scores was 1.6e-4 between Keras' two forms, 2.8e-4 in ONNX
Runtime and 3.7e-4 in OpenVINO, which sums in an order of its own: that one file was refused."""

TIE = 1e-5
"""Largest difference of an objectness logit between runtimes: within it, either of two boxes may come first."""
AMBIGUOUS = 0.5
"""Largest share of the rows that such ties may decide."""

Shape = tuple[int, int, int, int]
Outputs = dict[str, np.ndarray]


@full_float32()
def verify_onnx(
    trained: TrainedDetector | TrainedSegmenter, path: Path, shape: Shape | None, raw: bool
) -> dict[str, Difference]:
    """Compares a file with Keras in ONNX Runtime, and in OpenVINO where it is installed, and prints the differences.

    Keras computes with the norms as they were trained. Images have two sizes and batches of one and two, or twice the
    file's own shape. Rows at the edge of the selection may come or go, see `edge_rows`; they are printed. Two differences
    that Keras alone makes are allowed for:
    Where scores differ by more than `ONNX_SCORE_LIMIT`, Keras computes once more with folded norms. `NOISE_FACTOR` times
    the difference between Keras' two results is then the limit.
    Where rows still lack a counterpart, Keras computes once more with objectness logits that were moved by `TIE`. A
    top-down path without laterals gives many cells the very same logit, and of equal proposals NMS keeps the first. Twice the
    rows that Keras loses in this way may be missing, up to the share `AMBIGUOUS`.

    Args:
        trained: the detector, or what proposes segments, that the file was made from.
        path: the file.
        shape: (B, H, W, 3) of the only input the file takes; None: it takes any.
        raw: bool, whether the file has no NMS of the detections.

    Returns:
        The largest differences of each runtime.

    Raises:
        ValueError: if the file cannot be loaded.
        ExportMismatch: if it differs by more than `BOX_LIMIT` or the limit of the scores.
    """
    runtimes = {"ONNX Runtime": in_onnxruntime}
    # A static file without the final NMS, which TensorRT-RTX builds, has a Loop for the proposals that OpenVINO rejects.
    if importlib.util.find_spec("openvino") and not (raw and shape):
        runtimes["OpenVINO"] = in_openvino
    detect = {name: load(path) for name, load in runtimes.items()}
    total = dict.fromkeys(detect, Difference())
    limit, ambiguous, model = ONNX_SCORE_LIMIT, 0, trained.config.model
    selection = Selection(model.score_threshold, nms_iou=model.nms_iou)
    for seed, own in enumerate([shape, shape] if shape else _compared_shapes(trained.config)):
        images = pictures(own, seed)
        expected = keras_result(trained, trained.unfolded, images, raw)
        results = {name: run(images) for name, run in detect.items()}
        candidates = None
        if any(outputs_difference(expected, result, limit, selection).unmatched for result in results.values()):
            folded = keras_result(trained, trained.submodels, images, raw)
            limit = max(limit, NOISE_FACTOR * outputs_difference(expected, folded, 1.0, selection).score)
            has_nms = isinstance(trained, TrainedDetector) and not raw
            candidates = keras_result(trained, trained.unfolded, images, True) if has_nms else None
        differences = {
            name: outputs_difference(expected, result, limit, selection, candidates) for name, result in results.items()
        }
        total = {name: before.plus(differences[name]) for name, before in total.items()}
        if isinstance(trained, TrainedDetector) and any(one.unmatched for one in differences.values()):
            ambiguous += 2 * ambiguous_rows(trained, images, raw, expected, limit)
    _print_differences(total, limit, ambiguous)
    _require_counterparts(total, limit, ambiguous)
    return total


def verify_thresholded_file(trained: TrainedDetector, plain: Path, path: Path, shape: Shape | None) -> None:
    """Compares, in ONNX Runtime, a file that leaves out detections below thresholds with the same one that gives all.

    Args:
        trained: the detector, with its thresholds.
        plain: the file that gives all detections.
        path: the one that is verified.
        shape: as `verify_onnx` takes it.

    Raises:
        ExportMismatch: as `kfpn.export.class_thresholds.verify_thresholds`.
    """
    both = [in_onnxruntime(one) for one in (plain, path)]
    pairs = []
    for seed, own in enumerate([shape, shape] if shape else _compared_shapes(trained.config)):
        results = [run(pictures(own, seed)) for run in both]
        pairs += [tuple(_detections_of_image(result, row) for result in results) for row in range(own[0])]
    verify_thresholds(pairs, dict(enumerate(trained.thresholds or ())))


def _compared_shapes(config: Config) -> list[Shape]:
    # Odd sizes too, so that no level is a multiple of the one above.
    short, long = min(config.input.short_side, 320), min(config.input.long_side, 416)
    return [(1, short, long, 3), (2, long - 29, short - 13, 3)]


def _print_differences(total: dict[str, Difference], limit: float, ambiguous: int) -> None:
    for name, difference in total.items():
        print(
            f"verify {name}: {difference.rows} rows; largest differences: box {difference.box:.2g} px, "
            f"score {difference.score:.2g}{difference.of_masks}"
        )
        for line in edge_lines(name, difference.edge):
            print(line)
    if limit > ONNX_SCORE_LIMIT:
        print(
            f"verify: Keras with and without folded norms differs by {limit / NOISE_FACTOR:.2g}; "
            f"scores may differ by {NOISE_FACTOR:g} times that"
        )
    if ambiguous:
        print(
            f"verify: Keras alone loses {ambiguous // 2} rows when its objectness logits move by {TIE}: ties; "
            "twice as many may differ"
        )


def _require_counterparts(total: dict[str, Difference], limit: float, ambiguous: int) -> None:
    for name, difference in total.items():
        if difference.unmatched > min(ambiguous, AMBIGUOUS * difference.rows):
            raise ExportMismatch(
                f"the ONNX file must give what Keras gives, within {BOX_LIMIT} pixel and scores within {limit:.2g}, "
                f"got {difference.unmatched} of {difference.rows} rows without counterpart in {name}"
            )
        difference.require_equal_masks(name)
    if not any(difference.rows for difference in total.values()):
        raise ExportMismatch("the model must find something in the test images, got nothing to compare")


def pictures(shape: Shape, seed: int) -> np.ndarray:
    """Draws images to compare on: (B, H, W, 3) float32, 0..255."""
    rng = np.random.default_rng(seed)
    return np.stack([drawn_picture(rng, *shape[1:3]) for _ in range(shape[0])]).astype(np.float32)


def keras_result(
    trained: TrainedDetector | TrainedSegmenter, submodels: Any, images: np.ndarray, raw: bool
) -> dict[str, np.ndarray]:
    """Returns the outputs of the Keras model over some submodels; with `raw` boxes and scores of each RoI before NMS."""
    if isinstance(trained, TrainedSegmenter):
        return keras_segments(submodels, trained.config.model, images)
    detector = (RawDetector if raw else Detector)(submodels, trained.config.model, padded=False, nms="kernel")
    sizes = np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1))
    return {name: np.array(value) for name, value in detector(images, keras.ops.convert_to_tensor(sizes)).items()}


class _FixedNoise(keras.layers.Layer):
    # Adds the same noise at every call.
    def __init__(self, seed):
        super().__init__(dtype="float32")
        self.seed = seed

    def call(self, logits):
        return logits + TIE * keras.random.normal(keras.ops.shape(logits), seed=self.seed)

    def compute_output_spec(self, logits):
        return keras.KerasTensor(logits.shape, dtype="float32")


def ambiguous_rows(trained: TrainedDetector, images: np.ndarray, raw: bool, expected: Outputs, limit: float) -> int:
    """Counts the rows that lose their counterpart when objectness logits are moved by `TIE`: the most of five tries.

    Args:
        trained: see `verify_onnx`.
        images: (B, H, W, 3) float32.
        raw: see `verify_onnx`.
        expected: Keras' result.
        limit: of the scores.
    """
    lost = 0
    for seed in range(5):
        rpn = trained.unfolded.rpn
        outputs = rpn(rpn.input)
        logits = [_FixedNoise(seed)(level) for level in outputs["logits"]]
        moved = keras.Model(rpn.input, {"logits": logits, "deltas": outputs["deltas"]})
        result = keras_result(trained, trained.unfolded._replace(rpn=moved), images, raw)
        selection = Selection(trained.config.model.score_threshold, nms_iou=trained.config.model.nms_iou)
        lost = max(lost, outputs_difference(expected, result, limit, selection).unmatched)
    return lost


def outputs_difference(
    expected: Outputs,
    actual: Outputs,
    score_limit: float = ONNX_SCORE_LIMIT,
    selection: Selection = EVERYTHING,
    candidates: Outputs | None = None,
) -> Difference:
    """Returns the difference between two results: detections are matched as sets, raw rows by their RoI's rank.

    Args:
        expected: of `keras_result`, or a file's outputs.
        actual: the same.
        score_limit: see `kfpn.export.verify.compare_as_sets`.
        selection: how detections were selected, see `compare_as_sets`; their number is that of `expected`.
        candidates: Keras' rows before NMS, of `keras_result` with `raw`; None: not known.
    """
    if "num_segments" in expected:
        return segments_difference(expected, actual, score_limit)
    if "labels" not in expected:
        return _raw_difference(expected, actual, score_limit)
    total = Difference()
    for row in range(len(expected["num_detections"])):
        ours, theirs = (_detections_of_image(result, row) for result in (expected, actual))
        own = selection._replace(most=expected["scores"].shape[1])
        if candidates is not None:
            own = own._replace(candidates=candidate_rows(candidates, row, own.threshold - score_limit))
        total = total.plus(compare_as_sets(ours, theirs, own, score_limit))
    return total


def _detections_of_image(result: Outputs, row: int) -> tuple[np.ndarray, ...]:
    count = int(result["num_detections"][row])
    return tuple(result[name][row, :count] for name in ("boxes", "scores", "labels", "masks") if name in result)


def _raw_difference(expected: Outputs, actual: Outputs, score_limit: float) -> Difference:
    # Boxes are (B, R, K, 4) and scores (B, R, K). Boxes of empty rows do not count.
    rows = expected["scores"].max(-1) > 0
    count = int(rows.sum())
    if any(expected[name].shape != actual[name].shape for name in expected):
        return Difference(np.inf, np.inf, count, count)
    boxes = np.where(rows[..., None, None], np.abs(expected["boxes"] - actual["boxes"]), 0.0).max((-2, -1))
    scores = np.abs(expected["scores"] - actual["scores"]).max(-1)
    unmatched = int(((boxes > BOX_LIMIT) | (scores > score_limit)).sum())
    return Difference(float(boxes.max(initial=0.0)), float(scores.max(initial=0.0)), unmatched, count)
