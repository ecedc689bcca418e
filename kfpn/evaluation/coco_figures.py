"""Computes COCO's average precision and recall of boxes and of masks with pycocotools, from records and detections."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kfpn.data.record import Record
from kfpn.evaluation.coco_rows import (
    boxed,
    detections_to_coco,
    ground_truth,
    masked,
    named_file,
    require_numbers,
    require_outlines,
)

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve figures, in the order in which pycocotools gives them."""

OF_MASKS = "mask_"
"""Stands before the names of the figures of masks."""

COCO_LIMITS = (1, 10, 100)
"""The detections that count in COCO's figures, of an image and a class."""

Kind = Literal["bbox", "segm"]
"""What overlaps are measured of: boxes or masks, by pycocotools' names."""


def figures_at(limit: int) -> tuple[str, ...]:
    """Returns the names of the figures at a detector's own limit of detections; none where it is not above COCO's 100.

    Args:
        limit: the most detections of an image that the detector gives, `model.max_detections`.
    """
    return tuple(f"{name}@{limit}" for name in ("AP", "AP50", "AP75", "AR")) if limit > COCO_LIMITS[-1] else ()


def evaluate_coco(
    records: Iterable[Record],
    detections: Iterable[Mapping[str, Any]],
    class_names: Sequence[str],
    limit: int = COCO_LIMITS[-1],
) -> dict[str, Any]:
    """Returns COCO's twelve figures and the AP of each class; with masks as well those of masks.

    Detections on crowd objects count neither as right nor as wrong. Objects are sorted into small (below 32 x 32 pixels),
    medium and large (from 96 x 96 pixels) by `Record.areas`. The best 1, 10 and 100 detections of an image and a class
    count, which are pycocotools' `maxDets`. Above 100 the detector's own limit is measured beside them. The size of a detection is
    the area of its box for boxes, and that of its mask for masks. An object without a mask is, for masks, a crowd in its box:
    detections there count neither as right nor as wrong.

    Args:
        records: the ground truth, each image once; for masks with `masks`.
        detections: one mapping an image, in any order (an image may be missing): `image_id` int, `boxes` (n, 4) float
            yxyx in pixels of the original image, `scores` (n,) float, `labels` (n,) int in 0..K-1; where one has
            `segmentations` (n,), see `segmented`, masks are measured as well.
        class_names: the K names of the labels.
        limit: the most detections of an image that the detector gives.

    Returns:
        dict: the twelve `FIGURES`, those of `figures_at(limit)` and `per_class`, {name: AP} of 100 detections. Each is a
        float in 0..1, or None where there is no ground truth to measure it on. With masks the same of masks behind them, each
        name with `mask_` before it.

    Raises:
        ValueError: if an image id is not among the records, or twice among them or among the detections, a label is
            outside 0..K-1, the boxes, scores and labels of a detection differ in number, or masks are missing or of another size.
    """
    detections = list(detections)
    with_masks = any("segmentations" in detection for detection in detections)
    lacking = [
        int(detection["image_id"])
        for detection in detections
        if with_masks and "segmentations" not in detection and len(detection["boxes"])
    ]
    if lacking:
        raise ValueError(f"detections must have segmentations in all images or in none, got none in image {lacking[0]}")
    truth = ground_truth(records, class_names, with_masks)
    known = {image["id"] for image in truth["images"]}
    results: list[dict[str, Any]] = []
    seen: set[int] = set()
    for detection in detections:
        image_id = int(detection["image_id"])
        if image_id not in known:
            raise ValueError(f"detections: image_id must be the id of a record, got {image_id}")
        if image_id in seen:
            raise ValueError(f"detections: image_id must occur once, got {image_id} twice")
        seen.add(image_id)
        results.extend(detections_to_coco([detection], category_ids=range(len(class_names))))
    return _all_figures(truth, boxed(results, truth) if with_masks else results, limit, with_masks)


def evaluate_coco_json(
    annotations_path: str | Path, results_path: str | Path, limit: int = COCO_LIMITS[-1]
) -> dict[str, Any]:
    """Returns what `evaluate_coco` returns, for a file of COCO annotations and a file of COCO results.

    Args:
        annotations_path: an `instances_*.json`.
        results_path: a list of {image_id, category_id, bbox (xywh), score}, with masks {..., segmentation}: then the box is that
            of the mask where a row has none.
        limit: as `evaluate_coco` takes it.

    Raises:
        ValueError: naming the file, if a detection names an image or a category that the annotations don't have, a number is written
            as true or false, or a mask of one of the files can't be drawn, is missing or has another size than its image.
        OSError: if a file can't be read.
    """
    truth = json.loads(Path(annotations_path).read_text(encoding="utf-8"))
    results = json.loads(Path(results_path).read_text(encoding="utf-8"))
    with named_file(annotations_path):
        for key in ("images", "categories", "annotations"):
            require_numbers(truth[key], key)
    with named_file(results_path):
        require_numbers(results, "results")
    for key, rows in (("image_id", truth["images"]), ("category_id", truth["categories"])):
        unknown = {result[key] for result in results} - {row["id"] for row in rows}
        if unknown:
            raise ValueError(f"{results_path}: {key} must occur in {annotations_path}, got {min(unknown)}")
    with_masks = any("segmentation" in result for result in results)
    if with_masks:
        with named_file(annotations_path):
            require_outlines(truth)
        with named_file(results_path):
            results = boxed(results, truth)
    return _all_figures(truth, results, limit, with_masks)


def coco_evaluation(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind = "bbox") -> Any:
    """Returns pycocotools' COCOeval of boxes or masks, before its `evaluate()`; that one prints, so redirect stdout.

    Args:
        truth: of `ground_truth`, or of an annotations file.
        results: {image_id, category_id, bbox (xywh), score} each, for masks with `segmentation`; all of images and categories of
            the truth.
        kind: "bbox", of boxes, or "segm", of masks.
    """
    # Imported here, because `kfpn --help` and the first steps of training do not need it.
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth_index, result_index = COCO(), COCO()
        truth_index.dataset = truth
        truth_index.createIndex()
        # pycocotools' loadRes fails on an empty list, and takes the box's area for a mask's. So its three fields are added here.
        annotations = []
        for number, result in enumerate(results, start=1):
            width, height = result["bbox"][2:]
            area = width * height if kind == "bbox" else float(coco_mask.area(truth_index.annToRLE(result)))
            annotations.append({**result, "id": number, "area": area, "iscrowd": 0})
        result_index.dataset = {**truth, "annotations": annotations}
        result_index.createIndex()
        return COCOeval(truth_index, result_index, kind)


def _all_figures(truth: dict[str, Any], results: list[dict[str, Any]], limit: int, with_masks: bool) -> dict[str, Any]:
    figures = _figures_of(truth, results, limit, "bbox")
    if not with_masks:
        return figures
    of_masks = _figures_of(masked(truth), results, limit, "segm")
    return figures | {OF_MASKS + name: value for name, value in of_masks.items()}


def _figures_of(truth: dict[str, Any], results: list[dict[str, Any]], limit: int, kind: Kind) -> dict[str, Any]:
    own_names = figures_at(limit)
    evaluation = coco_evaluation(truth, results, kind)
    if not evaluation.params.imgIds or not evaluation.params.catIds:
        nothing = dict.fromkeys((*FIGURES, *own_names))
        return {**nothing, "per_class": {row["name"]: None for row in truth["categories"]}}
    # pycocotools' summary takes the first three limits by their places, so a fourth one behind them changes no figure of COCO.
    # Matching goes from high to low scores: what comes behind the hundredth detection does not act on those before it.
    evaluation.params.maxDets = [*COCO_LIMITS, *([limit] if own_names else [])]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # The axes are IoU thresholds, recalls, classes, area ranges and maxDets. Area range 0 is all areas.
    precision, recall = (evaluation.eval[name][..., 0, :] for name in ("precision", "recall"))
    names = {row["id"]: row["name"] for row in truth["categories"]}
    of_100 = precision[..., len(COCO_LIMITS) - 1]
    own: tuple[np.ndarray, ...] = ()
    if own_names:
        of_limit, thresholds = precision[..., -1], list(np.round(evaluation.params.iouThrs, 2))
        own = (of_limit, of_limit[thresholds.index(0.5)], of_limit[thresholds.index(0.75)], recall[..., -1])
    return {
        **{name: _or_none(value) for name, value in zip(FIGURES, evaluation.stats, strict=True)},
        **{name: measured_mean(values) for name, values in zip(own_names, own, strict=True)},
        "per_class": {
            names[category_id]: measured_mean(of_100[:, :, k]) for k, category_id in enumerate(evaluation.params.catIds)
        },
    }


def _or_none(value: float) -> float | None:
    """Returns None for the -1 that pycocotools gives where there is no ground truth."""
    return float(value) if value >= 0 else None


def measured_mean(values: np.ndarray) -> float | None:
    """Returns the mean of pycocotools' figures without those of -1, which had no ground truth; None if none is left."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None
