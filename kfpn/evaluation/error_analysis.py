"""Analyses the errors of a detector: their kinds, what mending each would give, confusions, curves and calibration."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.evaluation.ap_by_property import PropertyFigures, ap_by_properties
from kfpn.evaluation.coco_figures import COCO_LIMITS, Kind, measured_mean
from kfpn.evaluation.coco_rows import detections_to_coco, masked
from kfpn.evaluation.fast_matching import matched_evaluation, precision_of

TIDE_KINDS = {
    "Cls": "class", "Loc": "place", "Both": "both", "Dupe": "duplicate", "Bkg": "background", "Miss": "missed",
}  # fmt: skip
"""hotcoco's names of the kinds of errors of TIDE (Bolya et al. 2020) -> ours."""
CURVE_IOUS = (0.5, 0.75)
"""The IoUs that precision-recall curves are drawn at."""
IOU_THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
"""COCO's thresholds, .5 to .95."""
SCORE_BINS = 10
"""Bins of the scores, for calibration."""


@dataclasses.dataclass(frozen=True)
class ErrorShare:
    """Holds a kind of error: how many there are, and by how much AP50 would rise if they were mended."""

    kind: str
    count: int
    gain: float


@dataclasses.dataclass(frozen=True)
class ScoreBin:
    """Holds the detections whose scores lie in a bin: their mean score, and the share of them that is right at an IoU of .5."""

    low: float
    high: float
    score: float
    right: float
    count: int


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """Holds what is known of a class: its objects, images, detections of any score, and its AP; None without objects."""

    name: str
    objects: int
    images: int
    detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclasses.dataclass(frozen=True)
class ErrorAnalysis:
    """Holds the errors of a detector on a data set, of boxes or of masks.

    Attributes:
        kind: "bbox" or "segm".
        limit: the most detections of an image and a class that count.
        ap: mean AP at this limit; None without objects.
        ap50: what the gains of `errors` are added to, 0..1.
        errors: of each kind of TIDE.
        confusion: (K+1, K+1) int, objects by detections, the last of each is the background; detections from `min_score` on.
        curves: IoU -> (101, K) precision at recalls 0, .01 .. 1, -1 for a class without objects.
        calibration: bins of scores, from low to high.
        calibration_error: the expected one: the mean distance of score and share, over detections.
        classes: of the data.
        properties: AP by size, by aspect ratio and by crowding.
    """

    kind: Kind
    limit: int
    ap: float | None
    ap50: float
    errors: tuple[ErrorShare, ...]
    confusion: np.ndarray
    curves: dict[float, np.ndarray]
    calibration: tuple[ScoreBin, ...]
    calibration_error: float
    classes: tuple[ClassFigures, ...]
    properties: dict[str, tuple[PropertyFigures, ...]]


def analyse_errors(
    truth: dict[str, Any],
    detections: Sequence[Mapping[str, Any]],
    kind: Kind = "bbox",
    limit: int = COCO_LIMITS[-1],
    min_score: float = 0.5,
) -> ErrorAnalysis:
    """Returns what a detector gets wrong on a data set.

    Args:
        truth: of `ground_truth`, for masks with masks.
        detections: as `evaluate_coco` takes them, with the labels of the truth, for masks with `segmentations`.
        kind: "bbox", of boxes, or "segm", of masks.
        limit: the most detections of an image that the detector gives.
        min_score: detections below it are left out of the confusion matrix; all else counts detections of any score.

    Raises:
        ValueError: if there is no object to find.
    """
    results = detections_to_coco(detections, range(len(truth["categories"])))
    truth = masked(truth) if kind == "segm" else truth
    if all(annotation["iscrowd"] for annotation in truth["annotations"]):
        raise ValueError(
            f"data must have objects to find, got none in {len(truth['images'])} images: there is nothing to report on"
        )
    limit = max(limit, COCO_LIMITS[-1])
    evaluation = matched_evaluation(truth, results, kind, limit)
    precision = precision_of(evaluation)
    tide, calibrated = evaluation.tide_errors(), evaluation.calibration(SCORE_BINS)
    # The limit of an image, not of a class, so that no detection is left out here either.
    matrix = evaluation.confusion_matrix(max_det=max(1, len(results)), min_score=min_score)["matrix"]
    return ErrorAnalysis(
        kind=kind,
        limit=limit,
        ap=measured_mean(precision),
        ap50=float(tide["ap_base"]),
        errors=tuple(
            ErrorShare(ours, int(tide["counts"][theirs]), float(tide["delta_ap"][theirs]))
            for theirs, ours in TIDE_KINDS.items()
        ),
        confusion=np.asarray(matrix).astype(np.int64),
        curves={iou: precision[IOU_THRESHOLDS.index(iou)] for iou in CURVE_IOUS},
        calibration=tuple(
            ScoreBin(*(one[name] for name in ("bin_lower", "bin_upper", "avg_confidence", "avg_accuracy", "count")))
            for one in calibrated["bins"]
        ),
        calibration_error=float(calibrated["ece"]),
        classes=_of_classes(truth, results, precision),
        properties=ap_by_properties(truth, results, kind, limit),
    )


def _of_classes(
    truth: dict[str, Any], results: Sequence[Mapping[str, Any]], precision: np.ndarray
) -> tuple[ClassFigures, ...]:
    count = len(truth["categories"])
    objects = [one for one in truth["annotations"] if not one["iscrowd"]]
    numbers = np.bincount([one["category_id"] for one in objects], minlength=count)
    pairs = {(one["category_id"], one["image_id"]) for one in objects}
    images = np.bincount([label for label, _ in pairs], minlength=count)
    detected = np.bincount(np.array([one["category_id"] for one in results], np.int64), minlength=count)
    return tuple(
        ClassFigures(
            row["name"], int(numbers[k]), int(images[k]), int(detected[k]), measured_mean(precision[..., k]),
            *(measured_mean(precision[IOU_THRESHOLDS.index(iou), :, k]) for iou in CURVE_IOUS),
        )
        for k, row in enumerate(truth["categories"])
    )  # fmt: skip
