"""Computes COCO's average precision and recall with pycocotools, from records and detections.

Boxes are yxyx in kfpn and xywh in COCO's files; they are converted here, once.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.record import Record

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve figures, in the order in which pycocotools gives them."""

COCO_LIMITS = (1, 10, 100)
"""The detections that count in COCO's figures, of an image and a class."""


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
    """Returns COCO's twelve figures and the AP of each class.

    Detections on crowd objects count neither as right nor as wrong. Objects are sorted into small (below 32 x 32 pixels),
    medium and large (from 96 x 96 pixels) by `Record.areas`. The best 1, 10 and 100 detections of an image and a class
    count, which are pycocotools' `maxDets`. Above 100 the detector's own limit is measured beside them.

    Args:
        records: the ground truth, each image once.
        detections: one mapping an image, in any order (an image may be missing): `image_id` int, `boxes` (n, 4) float
            yxyx in pixels of the original image, `scores` (n,) float, `labels` (n,) int in 0..K-1.
        class_names: the K names of the labels.
        limit: the most detections of an image that the detector gives.

    Returns:
        dict: the twelve `FIGURES`, those of `figures_at(limit)` and `per_class`, {name: AP} of 100 detections. Each is a
        float in 0..1, or None where there is no ground truth to measure it on.

    Raises:
        ValueError: if an image id is not among the records, or twice among them or among the detections, a label is
            outside 0..K-1, or the boxes, scores and labels of a detection differ in number.
    """
    truth = ground_truth(records, class_names)
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
        results.extend(_results(detection, category_ids=range(len(class_names))))
    return _figures_of(truth, results, limit)


def evaluate_coco_json(
    annotations_path: str | Path, results_path: str | Path, limit: int = COCO_LIMITS[-1]
) -> dict[str, Any]:
    """Returns what `evaluate_coco` returns, for a file of COCO annotations and a file of COCO results.

    Args:
        annotations_path: an `instances_*.json`.
        results_path: a list of {image_id, category_id, bbox (xywh), score}.
        limit: as `evaluate_coco` takes it.

    Raises:
        ValueError: if a detection names an image or a category that the annotations don't have.
        OSError: if a file can't be read.
    """
    truth = json.loads(Path(annotations_path).read_text(encoding="utf-8"))
    results = json.loads(Path(results_path).read_text(encoding="utf-8"))
    for key, rows in (("image_id", truth["images"]), ("category_id", truth["categories"])):
        unknown = {result[key] for result in results} - {row["id"] for row in rows}
        if unknown:
            raise ValueError(f"{results_path}: {key} must occur in {annotations_path}, got {min(unknown)}")
    return _figures_of(truth, results, limit)


def detections_to_coco(
    detections: Iterable[Mapping[str, Any]], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Returns detections as a COCO results list: {image_id, category_id, bbox (xywh, pixels), score}.

    Args:
        detections: as `evaluate_coco` takes them.
        category_ids: the data set's own ids of labels 0 .. K-1. None: the labels themselves.

    Raises:
        ValueError: if a label has no category id, or the boxes, scores and labels of a detection differ in number.
    """
    return [result for detection in detections for result in _results(detection, category_ids)]


def _results(detection: Mapping[str, Any], category_ids: Sequence[int] | None) -> list[dict[str, Any]]:
    image_id = int(detection["image_id"])
    boxes = np.asarray(detection["boxes"], np.float64).reshape(-1, 4)
    scores, labels = np.asarray(detection["scores"]), np.asarray(detection["labels"])
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError(
            f"detections of image {image_id}: boxes, scores and labels must be of one length, "
            f"got {len(boxes)}, {len(scores)} and {len(labels)}"
        )
    if category_ids is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(category_ids):
        raise ValueError(
            f"detections of image {image_id}: labels must lie in 0..{len(category_ids) - 1}, "
            f"got {labels.min()}..{labels.max()}"
        )
    return [
        {
            "image_id": image_id,
            "category_id": int(label if category_ids is None else category_ids[label]),
            "bbox": box,
            "score": float(score),
        }
        for box, score, label in zip(to_xywh(boxes), scores, labels, strict=True)
    ]


def to_xywh(boxes: np.ndarray) -> list[list[float]]:
    """Returns boxes (n, 4) yxyx as COCO's xywh, rounded to a thousandth of a pixel.

    The rounding restores the decimals of the annotation file, which float32 changes a little. So an IoU of exactly .50 or
    .75 stays exact, and the figures are those of the file.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, 1::-1], boxes[:, :1:-1] - boxes[:, 1::-1]], axis=1).round(3).tolist()


def ground_truth(records: Iterable[Record], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns records as the dict of an annotations file; category ids are the labels.

    Args:
        records: each image once.
        class_names: the names of the labels.

    Raises:
        ValueError: for a label that has no name, or an image id that occurs twice.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        if len(record.labels) and not 0 <= record.labels.min() <= record.labels.max() < len(class_names):
            raise ValueError(
                f"{record.name or record.image_id}: labels must lie in 0..{len(class_names) - 1}, "
                f"got {record.labels.min()}..{record.labels.max()}"
            )
        images.append({"id": int(record.image_id), "height": record.height, "width": record.width})
        for box, label, crowd, area in zip(
            to_xywh(record.boxes), record.labels, record.crowd, record.areas, strict=True
        ):
            annotations.append(
                {
                    # Ids begin at 1, because pycocotools takes a match with id 0 for no match.
                    "id": len(annotations) + 1,
                    "image_id": int(record.image_id),
                    "category_id": int(label),
                    "bbox": box,
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    twice = [image_id for image_id, count in Counter(image["id"] for image in images).items() if count > 1]
    if twice:
        raise ValueError(f"records: image_id must be unique, got {twice[0]} twice")
    categories = [{"id": label, "name": name} for label, name in enumerate(_distinct(class_names))]
    return {"images": images, "annotations": annotations, "categories": categories}


def _distinct(names: Sequence[str]) -> list[str]:
    """Adds the label to a name that several labels share, so that `per_class` has a figure for each of them."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]


def coco_evaluation(truth: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """Returns pycocotools' COCOeval of boxes, before its `evaluate()`; that one prints, so redirect stdout.

    Args:
        truth: of `ground_truth`, or of an annotations file.
        results: {image_id, category_id, bbox (xywh), score} each, all of images and categories of the truth.
    """
    # Imported here, because `kfpn --help` and the first steps of training do not need it.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth_index, result_index = COCO(), COCO()
        truth_index.dataset = truth
        truth_index.createIndex()
        # pycocotools' loadRes fails on an empty list, so the three fields that it adds are added here.
        annotations = [
            {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
            for number, result in enumerate(results, start=1)
        ]
        result_index.dataset = {**truth, "annotations": annotations}
        result_index.createIndex()
        return COCOeval(truth_index, result_index, "bbox")


def _figures_of(truth: dict[str, Any], results: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    own_names = figures_at(limit)
    evaluation = coco_evaluation(truth, results)
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
