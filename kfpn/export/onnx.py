"""ONNX files of a trained detector: for ONNX Runtime, OpenVINO and TensorRT, and proved equal before they appear."""

import importlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from kfpn.config import Config

if TYPE_CHECKING:
    from kfpn.export.source import Trained

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
TOP_K = 3840
"""TensorRT's TopK takes no more than this."""
BOX_DIFFERENCE, SCORE_DIFFERENCE = 0.05, 1e-4  # pixels; scores are in 0..1


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `kfpn export onnx`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The trained detector's work directory."""
    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.onnx")]
    """The file to write."""
    input_shape: str | None = None
    """Such as 1x800x1344x3: a file of this one shape, for TensorRT. None: all are dynamic."""
    raw: bool = False
    """Leave out the NMS of the detections: each RoI's boxes and scores, class by class."""


def run(options: OnnxOptions) -> Path:
    """Does what `kfpn export onnx` does, and returns the file."""
    text = options.input_shape
    if text is not None and not re.fullmatch(r"-?\d+(x-?\d+)*", text):
        raise ValueError(f"input_shape must be four numbers such as 1x800x1344x3, got {text!r}")
    shape = None if text is None else [int(number) for number in text.split("x")]
    return export_onnx(options.workdir, options.target, input_shape=shape, raw=options.raw)


def export_onnx(
    workdir: str | os.PathLike,
    target: str | os.PathLike,
    *,
    input_shape: Sequence[int] | None = None,
    raw: bool = False,
) -> Path:
    """Writes a trained detector as an ONNX file, once onnxruntime has given the same as Keras.

    The file's input is `images`, (B, H, W, 3) float32, RGB, 0..255, already resized. Its outputs are boxes (B, D, 4)
    float32 yxyx in pixels of the input, scores (B, D) float32, labels (B, D) int32, -1 in empty rows, and num_detections
    (B,) int32. With `raw` they are boxes (B, R, K, 4) and scores (B, R, K), 0 in empty rows, of the R proposals.
    Its metadata hold class_names, category_ids and the rule by which images are resized.

    Args:
        workdir: of `kfpn train` or `kfpn import-weights`.
        target: file to write; it must not exist.
        input_shape: (B, H, W, 3) of the only input the file takes; None: any batch and any size.
        raw: leave out the NMS of the detections. That of the proposals stays: the box head's input depends on it.

    Returns:
        `target`.

    Raises:
        ValueError: if a package is missing, the shape is wrong, the target exists or can't be written, the work directory
            has no weights, or onnxruntime finds something else than Keras. No file appears then.
    """
    from kfpn.export.source import open_trained, written_aside

    target = Path(target)
    shape = None if input_shape is None else checked_shape(input_shape)
    require(PACKAGES)
    with written_aside(target) as aside:
        trained = open_trained(workdir)
        if shape is not None:
            _check_counts(trained.config)
        write_onnx(trained, aside, shape, raw)
        verify_onnx(trained, aside, shape, raw)
    return target


def require(packages: Sequence[str]) -> None:
    """Raises ValueError, with the line that installs them, if packages can't be imported."""
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


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns an input shape, or raises ValueError if it isn't (batch, height, width, 3)."""
    numbers = tuple(shape)
    if len(numbers) != 4:
        raise ValueError(f"input_shape must be 4 numbers, batch, height, width, 3, got {len(numbers)}: {numbers}")
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in numbers):
        raise ValueError(f"input_shape must be whole numbers above 0, got {numbers}")
    if numbers[3] != 3:
        raise ValueError(f"input_shape must end in 3, the channels R, G, B, got {numbers}")
    batch, height, width, channels = (int(n) for n in numbers)
    return batch, height, width, channels


def _check_counts(config: Config) -> None:
    for name in ("pre_nms_test", "post_nms_test", "max_detections"):
        count = getattr(config.model, name)
        if count >= TOP_K:
            raise ValueError(f"--model.{name.replace('_', '-')} must be below {TOP_K} for TensorRT, got {count}")


def write_onnx(trained: "Trained", path: Path, shape: tuple[int, int, int, int] | None, raw: bool) -> None:
    """Converts the detector and writes the file, checked by onnx but not run.

    Args:
        trained: the detector.
        path: file to write.
        shape, raw: see `export_onnx`.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    from kfpn.export.onnx_graph import OPSET, OnnxDetector

    detector = OnnxDetector(trained.submodels, trained.config.model, raw, static=shape is not None)
    spec = tf.TensorSpec(shape or (None, None, None, 3), tf.float32, "images")
    function = tf.function(detector, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, [spec], opset=OPSET, custom_op_handlers=detector.handlers())
    _name_sizes(model, shape)
    onnx.helper.set_model_props(model, metadata(trained, raw))
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def metadata(trained: "Trained", raw: bool) -> dict[str, str]:
    """Returns what the file says of itself; values other than plain text are JSON."""
    rule = trained.config.input
    return {
        "class_names": json.dumps(list(trained.class_names)),
        "category_ids": json.dumps(list(trained.category_ids)),
        "input": "images: (B, H, W, 3) float32, RGB, 0..255",
        "input_rule": json.dumps({"short_side": rule.short_side, "long_side": rule.long_side, "filter": "bilinear"}),
        "boxes": "y1, x1, y2, x2 in pixels of the input",
        "raw": json.dumps(raw),
    }


def _name_sizes(model: Any, shape: tuple[int, int, int, int] | None) -> None:
    # tf2onnx gives every unknown size a name of its own, and forgets the batch of a static file's outputs.
    names = ("batch", "height", "width")
    for value, count in [(value, 3) for value in model.graph.input] + [(value, 1) for value in model.graph.output]:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim[:count]):
            if shape is None:
                dimension.dim_param = names[axis]
            else:
                dimension.dim_value = shape[axis]


def verify_onnx(
    trained: "Trained", path: Path, shape: tuple[int, int, int, int] | None, raw: bool
) -> tuple[float, float]:
    """Runs a file in onnxruntime and compares it with Keras: at two sizes and batches, or twice at its own.

    Returns:
        The largest difference of boxes, in pixels, and of scores.

    Raises:
        ValueError: if it can't be loaded, or they differ by more than .05 pixel or 1e-4.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise ValueError(f"the ONNX file must load in onnxruntime, got {error}") from error
    names = [output.name for output in session.get_outputs()]
    worst = (0.0, 0.0)
    for seed, own in enumerate([shape, shape] if shape else _sizes(trained.config)):
        images = pictures(own, seed)
        found = dict(zip(names, session.run(None, {"images": images}), strict=True))
        expected = keras_result(trained, images, raw)
        difference = raw_difference(expected, found) if raw else detections_difference(expected, found)
        worst = max(worst[0], difference[0]), max(worst[1], difference[1])
    if not (worst[0] <= BOX_DIFFERENCE and worst[1] <= SCORE_DIFFERENCE):
        raise ValueError(
            f"the ONNX file must give what Keras gives, within {BOX_DIFFERENCE} pixel and scores within "
            f"{SCORE_DIFFERENCE}, got {worst[0]:.3g} pixel and {worst[1]:.3g}"
        )
    return worst


def _sizes(config: Config) -> list[tuple[int, int, int, int]]:
    # Odd sizes too, so that no level is a multiple of the one above.
    short, long = min(config.input.short_side, 320), min(config.input.long_side, 416)
    return [(1, short, long, 3), (2, long - 29, short - 13, 3)]


def pictures(shape: tuple[int, int, int, int], seed: int) -> np.ndarray:
    """Returns images to compare on, (B, H, W, 3) float32, 0..255: smooth ground with rectangles on it."""
    rng = np.random.default_rng(seed)
    _, height, width, _ = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    images = np.empty(shape, np.float32)
    for image in images:
        phase = rng.uniform(0, 6, 3)
        image[:] = 128 + 60 * np.sin(y[..., None] / 23 + phase) * np.cos(x[..., None] / 31 - phase)
        for _ in range(12):
            top, left = rng.integers(0, height), rng.integers(0, width)
            bottom, right = top + rng.integers(8, max(height // 3, 9)), left + rng.integers(8, max(width // 3, 9))
            image[top:bottom, left:right] = rng.uniform(0, 255, 3)
    return np.round(images)


def keras_result(trained: "Trained", images: np.ndarray, raw: bool) -> dict[str, np.ndarray]:
    """Returns what the Keras model finds, as it was trained; with `raw` each RoI's boxes and scores before NMS."""
    import keras

    from kfpn.export.onnx_graph import scored_boxes
    from kfpn.modeling.detector import inference_model

    model = inference_model(trained.unfolded, trained.config.model, proposals_nms="kernel", detections_nms="kernel")
    if raw:
        inputs = model.get_layer("detections")._inbound_nodes[0].input_tensors
        logits, deltas, rois, roi_scores, sizes = keras.Model(model.input, inputs)(images, training=False)
        boxes, scores = scored_boxes(logits, deltas, rois, roi_scores, sizes, trained.config.model)
        return {"boxes": np.array(boxes), "scores": np.array(scores)}
    return {name: np.array(value) for name, value in model(images, training=False).items()}


def detections_difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> tuple[float, float]:
    """Returns the largest differences of boxes (pixels) and scores, detections matched as sets, infinite without a match."""
    worst = [0.0, 0.0]
    for row in range(len(expected["boxes"])):
        counts = [int(side["num_detections"][row]) for side in (expected, found)]
        if counts[0] != counts[1]:
            return np.inf, np.inf
        names = ("boxes", "scores", "labels")
        ours, theirs = ({name: side[name][row][: counts[0]] for name in names} for side in (expected, found))
        free = np.ones(counts[0], bool)
        for box, score, label in zip(ours["boxes"], ours["scores"], ours["labels"], strict=True):
            apart = np.abs(theirs["boxes"] - box).max(-1)
            cost = apart / BOX_DIFFERENCE + np.abs(theirs["scores"] - score) / SCORE_DIFFERENCE
            best = int(np.argmin(np.where(free & (theirs["labels"] == label), cost, np.inf)))
            if not free[best] or theirs["labels"][best] != label:
                return np.inf, np.inf
            free[best] = False
            worst = [max(worst[0], float(apart[best])), max(worst[1], float(abs(theirs["scores"][best] - score)))]
    return worst[0], worst[1]


def raw_difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> tuple[float, float]:
    """Returns the largest differences of boxes (pixels) and scores, RoIs matched by their rank."""
    if any(expected[name].shape != found[name].shape for name in expected):
        return np.inf, np.inf
    exists = expected["scores"].max(-1) > 0
    apart = np.abs(expected["boxes"] - found["boxes"])[exists]
    return float(apart.max(initial=0.0)), float(np.abs(expected["scores"] - found["scores"]).max(initial=0.0))
