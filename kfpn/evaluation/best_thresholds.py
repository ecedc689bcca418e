"""Finds the score threshold of each class at which its detections are best: the highest F1 at an IoU of .5."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.data.class_table import printable
from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import coco_evaluation
from kfpn.evaluation.coco_rows import detections_to_coco, ground_truth

IOU = 0.5
"""A detection that overlaps an object of its class by at least this IoU is right."""
DEFAULT_THRESHOLD = 0.5
"""The threshold of a class that nothing can be measured on."""


@dataclasses.dataclass(frozen=True)
class ClassThreshold:
    """Holds the best threshold of a class, and what the detections with at least this score are worth.

    Attributes:
        name: of the class.
        threshold: the score, 0..1.
        precision, recall, f1: at the threshold, 0..1; None where the threshold is the default.
        objects: of the class in the data, without crowd.
    """

    name: str
    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    objects: int


def find_thresholds(
    source: Source, detections: Sequence[Mapping[str, Any]], class_names: Sequence[str]
) -> tuple[ClassThreshold, ...]:
    """Returns the best threshold of each of a model's classes, in the order of its labels.

    A detection is matched as pycocotools does it: the one with the higher score first, to the object of its class that it
    overlaps most. Detections on crowd count neither as right nor as wrong. Of several thresholds with the best F1 it is the
    highest. A class without objects or without a right detection keeps `DEFAULT_THRESHOLD`.

    Args:
        source: the ground truth.
        detections: of `evaluate_source`, with the labels of the source.
        class_names: the names of the model's labels. A class that the source does not have is one without objects.
    """
    own = list(source.class_names)
    curves = _curves(source, detections)
    none = (np.zeros(0), np.zeros(0, bool), 0)
    return tuple(_best_of_class(name, *(curves[own.index(name)] if name in own else none)) for name in class_names)


def _curves(source: Source, detections: Sequence[Mapping[str, Any]]) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Returns the scores of each class of a source, whether each is right, and the number of its objects."""
    records = (source[index] for index in range(len(source)))
    evaluation = coco_evaluation(ground_truth(records, source.class_names), detections_to_coco(detections))
    params = evaluation.params
    most = max((len(one["scores"]) for one in detections), default=0)
    params.iouThrs, params.maxDets = np.array([IOU]), [max(1, most)]
    params.areaRng, params.areaRngLbl = [[0.0, 1e10]], ["all"]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    rows: list[list[Mapping[str, Any]]] = [[] for _ in source.class_names]
    for one in evaluation.evalImgs:
        if one is not None:
            rows[one["category_id"]].append(one)
    return [_curve(of_class) for of_class in rows]


def _curve(rows: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, int]:
    scores, right, objects = [np.zeros(0)], [np.zeros(0, bool)], 0
    for one in rows:
        counts = ~np.asarray(one["dtIgnore"][0], bool)
        scores.append(np.asarray(one["dtScores"])[counts])
        right.append((np.asarray(one["dtMatches"][0]) > 0)[counts])
        objects += int((~np.asarray(one["gtIgnore"], bool)).sum())
    return np.concatenate(scores), np.concatenate(right), objects


def _best_of_class(name: str, scores: np.ndarray, right: np.ndarray, objects: int) -> ClassThreshold:
    order = np.argsort(-scores, kind="stable")
    scores, right_ones = scores[order], np.cumsum(right[order])
    if not objects or not len(scores) or not right_ones[-1]:
        return ClassThreshold(name, DEFAULT_THRESHOLD, None, None, None, objects)
    # A threshold takes all detections of its score, so only the last one of equal scores counts.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    kept = last + 1
    f1 = 2.0 * right_ones[last] / (kept + objects)
    best = int(np.argmax(f1))  # the first one, which has the highest score
    right_here = float(right_ones[last[best]])
    return ClassThreshold(
        name, float(scores[last[best]]), right_here / float(kept[best]), right_here / objects, float(f1[best]), objects
    )


def threshold_table(rows: Sequence[ClassThreshold]) -> str:
    """Returns the thresholds as lines for people: class, threshold, precision, recall, F1, objects."""

    def shown(value: float | None) -> str:
        return "      -  " if value is None else f"{value:9.4f}"

    width = max(len("class"), *(len(printable(row.name)) for row in rows))
    lines = [f"  {'class':<{width}}  threshold  precision     recall         F1    objects"]
    for row in rows:
        figures = "  ".join(shown(value) for value in (row.threshold, row.precision, row.recall, row.f1))
        lines.append(f"  {printable(row.name):<{width}}  {figures}  {row.objects:>9,}")
    if default := [row.name for row in rows if row.f1 is None]:
        shown_names = ", ".join(printable(name) for name in default[:8])
        more = f" and {len(default) - 8} more" if len(default) > 8 else ""
        lines.append(f"the default {DEFAULT_THRESHOLD:g}, without objects or right detections: {shown_names}{more}")
    return "\n".join(lines)
