"""Whether an ONNX file gives what the Keras model gives, in every runtime that is installed."""

import importlib.util
from pathlib import Path

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime, in_openvino
from kfpn.export.trained import TrainedDetector
from kfpn.export.verify import BOX_LIMIT, Difference, Different, compare, picture
from kfpn.modeling.detector import Detector
from kfpn.modeling.heads.box import scored_boxes
from kfpn.modeling.submodels import Submodels

SCORE_LIMIT = 1e-4
"""Largest difference of a score, unless Keras itself differs by more from form to form."""

TIE = 1e-5
"""By how much an objectness logit may differ from one runtime to another, and so which of two equals comes first."""
AMBIGUOUS = 0.5
"""At most this share of the rows may hang on such ties."""

Shape = tuple[int, int, int, int]
Outputs = dict[str, np.ndarray]


def verify_onnx(trained: TrainedDetector, path: Path, shape: Shape | None, raw: bool) -> dict[str, Difference]:
    """Runs a file in ONNX Runtime, and in OpenVINO where it is installed, compares it with Keras and prints what differs.

    Keras computes as the detector was trained, norms apart. Images have two sizes and batches of one and two, or twice
    the file's own shape. Where scores differ by more than `SCORE_LIMIT`, Keras computes once more with folded norms: what
    float32 makes of these weights in Keras alone, twice, is the limit then. Where rows lack a counterpart, Keras computes
    with objectness logits that moved by `TIE`: a top-down path without laterals gives many cells the very same logit, and
    of equal proposals NMS keeps the first. Twice the rows that Keras so loses by itself may be missing, up to `AMBIGUOUS`.

    Args:
        trained: that the file was made from.
        path: the file.
        shape, raw: see `kfpn.export.onnx.write_onnx.export_onnx`.

    Returns:
        The largest differences of each runtime.

    Raises:
        ValueError: if it can't be loaded.
        Different: if it differs by more than `BOX_LIMIT` or the limit of the scores.
    """
    runtimes = {"ONNX Runtime": in_onnxruntime}
    # A static file without the final NMS, which TensorRT-RTX builds, has a Loop for the proposals that OpenVINO rejects.
    if importlib.util.find_spec("openvino") and not (raw and shape):
        runtimes["OpenVINO"] = in_openvino
    detect = {name: load(path) for name, load in runtimes.items()}
    found = dict.fromkeys(detect, Difference())
    limit, threshold, ambiguous = SCORE_LIMIT, trained.config.model.score_threshold, 0
    for seed, own in enumerate([shape, shape] if shape else _sizes(trained.config)):
        images = pictures(own, seed)
        expected = keras_result(trained, trained.unfolded, images, raw)
        results = {name: run(images) for name, run in detect.items()}
        if any(difference(expected, result, limit, threshold).unmatched for result in results.values()):
            folded = keras_result(trained, trained.submodels, images, raw)
            limit = max(limit, 2 * difference(expected, folded, 1.0, threshold).score)
        differences = {name: difference(expected, result, limit, threshold) for name, result in results.items()}
        found = {name: one.plus(differences[name]) for name, one in found.items()}
        if any(one.unmatched for one in differences.values()):
            ambiguous += 2 * ambiguous_rows(trained, images, raw, expected, limit)
    for name, one in found.items():
        print(f"verify {name}: {one.rows} rows; largest differences: box {one.box:.2g} px, score {one.score:.2g}")
    if limit > SCORE_LIMIT:
        print(
            f"verify: Keras with and without folded norms differs by {limit / 2:.2g}; scores may differ by twice that"
        )
    if ambiguous:
        print(
            f"verify: Keras alone loses {ambiguous // 2} rows when its objectness logits move by {TIE}: ties; twice as many may differ"
        )
    for name, one in found.items():
        if one.unmatched > min(ambiguous, AMBIGUOUS * one.rows):
            raise Different(
                f"the ONNX file must give what Keras gives, within {BOX_LIMIT} pixel and scores within {limit:.2g}, "
                f"got {one.unmatched} of {one.rows} rows without counterpart in {name}"
            )
    if not any(one.rows for one in found.values()):
        raise Different("the detector must find something in the test images, got nothing to compare")
    return found


def _sizes(config: Config) -> list[Shape]:
    # Odd sizes too, so that no level is a multiple of the one above.
    short, long = min(config.input.short_side, 320), min(config.input.long_side, 416)
    return [(1, short, long, 3), (2, long - 29, short - 13, 3)]


def pictures(shape: Shape, seed: int) -> np.ndarray:
    """Returns drawn images to compare on: (B, H, W, 3) float32, 0..255."""
    rng = np.random.default_rng(seed)
    return np.stack([picture(rng, *shape[1:3]) for _ in range(shape[0])]).astype(np.float32)


class RawDetector(Detector):
    """The detector without its last NMS: each RoI's boxes (B, R, K, 4) and scores (B, R, K)."""

    def select(self, outputs, rois, image_sizes):
        """Returns boxes and scores of all RoIs."""
        boxes, scores = scored_boxes(
            outputs["box"]["logits"], outputs["box"]["deltas"], rois.boxes, rois.scores, image_sizes,
            self.config.min_detection_size,
        )  # fmt: skip
        return {"boxes": boxes, "scores": scores}


def keras_result(
    trained: TrainedDetector, submodels: Submodels, images: np.ndarray, raw: bool
) -> dict[str, np.ndarray]:
    """Returns what the Keras model finds over its submodels; with `raw` each RoI's boxes and scores before NMS."""
    detector = (RawDetector if raw else Detector)(submodels, trained.config.model, padded=False, nms="kernel")
    sizes = np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1))
    return {name: np.array(value) for name, value in detector(images, keras.ops.convert_to_tensor(sizes)).items()}


class _Moved(keras.layers.Layer):
    # Adds the same noise at every call.
    def __init__(self, seed):
        super().__init__(dtype="float32")
        self.seed = seed

    def call(self, logits):
        return logits + TIE * keras.random.normal(keras.ops.shape(logits), seed=self.seed)

    def compute_output_spec(self, logits):
        return keras.KerasTensor(logits.shape, dtype="float32")


def ambiguous_rows(trained: TrainedDetector, images: np.ndarray, raw: bool, expected: Outputs, limit: float) -> int:
    """Returns how many rows lose their counterpart when objectness logits move by `TIE`: the most of five tries.

    Args:
        trained, images, raw: see `verify_onnx`.
        expected: Keras' result.
        limit: of the scores.
    """
    lost = 0
    for seed in range(5):
        rpn = trained.unfolded.rpn
        outputs = rpn(rpn.input)
        logits = [_Moved(seed)(level) for level in outputs["logits"]]
        moved = keras.Model(rpn.input, {"logits": logits, "deltas": outputs["deltas"]})
        result = keras_result(trained, trained.unfolded._replace(rpn=moved), images, raw)
        lost = max(lost, difference(expected, result, limit, trained.config.model.score_threshold).unmatched)
    return lost


def difference(
    expected: Outputs, found: Outputs, score_limit: float = SCORE_LIMIT, threshold: float = 0.0
) -> Difference:
    """Returns what two results differ by: detections matched as sets, raw rows by their RoI's rank.

    Args:
        expected, found: of `keras_result`, or a file's outputs.
        score_limit: see `kfpn.export.verify.compare`.
        threshold: score below which detections were dropped: one that near may be there or not.
    """
    if "labels" not in expected:
        return _raw_difference(expected, found, score_limit)
    total = Difference()
    for row, number in enumerate(expected["num_detections"]):
        ours, theirs = (_rows(result, row) for result in (expected, found))
        # Of a full list the last may be another one.
        cut = float(ours[1].min()) if number == expected["scores"].shape[1] else threshold
        total = total.plus(compare(ours, theirs, cut, score_limit=score_limit))
    return total


def _rows(result: Outputs, row: int) -> tuple[np.ndarray, ...]:
    count = int(result["num_detections"][row])
    return tuple(result[name][row, :count] for name in ("boxes", "scores", "labels"))


def _raw_difference(expected: Outputs, found: Outputs, score_limit: float) -> Difference:
    # Boxes (B, R, K, 4) and scores (B, R, K); boxes of empty rows don't count.
    rows = expected["scores"].max(-1) > 0
    count = int(rows.sum())
    if any(expected[name].shape != found[name].shape for name in expected):
        return Difference(np.inf, np.inf, count, count)
    boxes = np.where(rows[..., None, None], np.abs(expected["boxes"] - found["boxes"]), 0.0).max((-2, -1))
    scores = np.abs(expected["scores"] - found["scores"]).max(-1)
    unmatched = int(((boxes > BOX_LIMIT) | (scores > score_limit)).sum())
    return Difference(float(boxes.max(initial=0.0)), float(scores.max(initial=0.0)), unmatched, count)
