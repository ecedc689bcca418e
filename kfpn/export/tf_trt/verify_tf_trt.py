"""Verifies that a converted SavedModel finds what the original one finds, and times both."""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.export.verify import full_float32
from kfpn.ops import boxes as box_ops

LIMITS = {"FP32": (0.99, 1e-3), "FP16": (0.97, 0.02), "INT8": (0.85, 0.15)}
"""Precision -> the share of detections that must be found again, and how far their scores may lie apart.

The limits of INT8 are wide, because single scores do not tell what it costs in AP."""
MASK_LIMITS = {"FP32": 0.01, "FP16": 0.05, "INT8": 0.2}
"""Precision -> how far the two masks of a detection may lie apart: the mean difference of their cells, 0..1."""
SAME_PLACE = 0.9
"""IoU of two boxes that count as the same."""
LEAST_SCORE = 0.1
"""Detections with smaller scores are not compared: which of them appear depends on the last bits."""


def compare_saved_models(before: Path, after: Path, inputs: Sequence[dict[str, Any]], precision: str) -> list[str]:
    """Compares two SavedModels' `serving_default` and times them in turns.

    Args:
        before: the original.
        after: the converted one.
        inputs: batches that both are called with.
        precision: key of `LIMITS`.

    Returns:
        Lines: how near the two are, and a table of times.

    Raises:
        ValueError: if they differ by more than `LIMITS` and `MASK_LIMITS` allow.
    """
    import tensorflow as tf

    # The loaded objects must live as long as their signatures.
    loaded = [tf.saved_model.load(str(path)) for path in (before, after)]
    functions = [each.signatures["serving_default"] for each in loaded]
    again, total, apart, at_edge, mask_distance, has_masks = 0, 0, 0.0, 0, 0.0, False
    share, limit = LIMITS[precision]
    for batch in inputs:
        with full_float32():
            first, second = (_call(function, batch) for function in functions)
        matched, count, distance, spared = found_again(first, second, limit)
        again, total, apart, at_edge = again + matched, total + count, max(apart, distance), at_edge + spared
        mask_distance, has_masks = max(mask_distance, masks_apart(first, second)), "detection_masks" in first
    kept = again / total if total else 1.0
    line = f"{again} of {total} detections found again, their scores at most {apart:.2g} apart"
    if at_edge:
        line += f"; {at_edge} others stand at the edge of the selection, and need not be found"
    if has_masks:
        line += f"; the cells of a mask differ by at most {mask_distance:.2g} on average"
    if mask_distance > MASK_LIMITS[precision]:
        raise ValueError(
            f"{precision} must give masks whose cells differ by at most {MASK_LIMITS[precision]:g} on average, got {line}"
        )
    if kept < share or apart > limit:
        raise ValueError(
            f"{precision} must find {share:.0%} of the detections again, with scores at most {limit:g} apart, got {line}"
        )
    return [line, *time_table(functions, inputs)]


def _call(function, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    import tensorflow as tf

    return {name: value.numpy() for name, value in function(**{k: tf.constant(v) for k, v in batch.items()}).items()}


def found_again(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], limit: float
) -> tuple[int, int, float, int]:
    """Counts the detections of the first outputs that the second ones have too.

    A detection that the second outputs lack does not count where the first list is full and the detection's score is within
    `limit` of the last one's: which detections come last depends on the last bits.

    Returns:
        Their number, the number of all that count, the largest distance of their scores, and how many do not count.
    """
    matched, total, apart, at_edge = 0, 0, 0.0, 0
    for image in range(len(first["detection_scores"])):
        scores, others = (each["detection_scores"][image] for each in (first, second))
        end = float(scores.min()) + limit  # 0 where there are empty rows
        for row, overlaps in _overlaps_of_rows(first, second, image):
            same = overlaps >= SAME_PLACE
            if same.any():
                matched, total = matched + 1, total + 1
                apart = max(apart, float(np.abs(others[same] - scores[row]).min()))
            elif scores[row] <= end:
                at_edge += 1
            else:
                total += 1
    return matched, total, apart, at_edge


def masks_apart(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """Returns how far the masks of a detection lie apart at most: the mean difference of their cells, 0..1; 0 without masks."""
    apart = 0.0
    for image in range(len(first["detection_scores"]) if "detection_masks" in first else 0):
        masks, others = (each["detection_masks"][image] for each in (first, second))
        for row, overlaps in _overlaps_of_rows(first, second, image):
            best = int(np.argmax(overlaps))
            if overlaps[best] >= SAME_PLACE:
                # A value that is not a number counts as infinitely far; `max` would pass over it.
                distance = np.nan_to_num(np.abs(masks[row] - others[best]), nan=np.inf)
                apart = max(apart, float(distance.mean()))
    return apart


def _overlaps_of_rows(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], image: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each detection of the first outputs that is compared, and its IoU with those of the second: row, (D,).

    The IoU with an empty row and with a detection of another class is -1.
    """
    boxes, scores, classes = (
        [each[f"detection_{name}"][image] for each in (first, second)] for name in ("boxes_pixels", "scores", "classes")
    )
    overlaps = np.array(box_ops.iou(boxes[0], boxes[1]))
    for row in np.flatnonzero(scores[0] >= LEAST_SCORE).tolist():
        yield row, np.where((classes[1] == classes[0][row]) & (scores[1] > 0.0), overlaps[row], -1.0)


def time_table(functions: Sequence, inputs: Sequence[dict[str, Any]], rounds: int = 20) -> list[str]:
    """Times two functions on the same inputs in turns.

    Args:
        functions: before, after.
        inputs: batches, taken one after another.
        rounds: int, number of calls of each; two more warm up.

    Returns:
        Lines of a Markdown table: median and least time of a batch in ms.
    """
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 2):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            _call(function, inputs[turn % len(inputs)])
            if turn >= 2:
                taken.append((time.perf_counter() - start) * 1e3)
    lines = ["| | median ms | least ms |", "|---|---|---|"]
    for name, taken in zip(("TensorFlow", "TF-TRT"), times, strict=True):
        lines.append(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f} |")
    return lines
