"""Measures the recall of proposals: the share of the objects that the first stage finds, without classes (FPN, table 1)."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kfpn.config.run import Config
from kfpn.data.record import Record, Source
from kfpn.evaluation.coco_figures import Kind, coco_evaluation, measured_mean
from kfpn.evaluation.coco_rows import ground_truth, to_xywh
from kfpn.evaluation.detect import to_original
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image

RECALLS = ("AR@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000")
"""The paper's columns of table 1: 100 and 1000 proposals an image, and small, medium and large objects."""

COUNT = 1000
"""The largest number of proposals of an image that recall is measured on."""

AREAS: tuple[float, float] = (32.0**2, 96.0**2)
"""COCO's bounds between small and medium, and medium and large objects, in square pixels of the original image."""


def evaluate_proposals(
    model: Callable,
    source: Source,
    config: Config,
    batch_size: int | None = None,
    progress: bool = True,
    areas: tuple[float, float] = AREAS,
) -> dict[str, float | None]:
    """Returns the recall of a detector's proposals on a source.

    Args:
        model: of `proposals_model(submodels, config.model, COUNT)`, or its `detect_function`.
        source, config, batch_size, progress: see `kfpn.evaluation.source_pass.SourcePass`.
        areas: as `proposal_recall` takes them.

    Returns:
        dict: `RECALLS`, see `proposal_recall`.

    Raises:
        ValueError: if the source is empty or batch_size is below 1.
    """
    proposals = propose_source(model, SourcePass(source, config, batch_size, progress))
    return proposal_recall((source[index] for index in range(len(source))), proposals, areas)


def propose_source(model: Callable, source_pass: SourcePass) -> list[dict[str, Any]]:
    """Returns the proposals of every image of a source.

    Args:
        model: of `proposals_model`, or its `detect_function`.
        source_pass: the source and how its images are given to the model.

    Returns:
        list: one dict an image, in the order of the batches: `image_id` int, `boxes` (n, 4) float32 yxyx, pixels of
        the original image, `scores` (n,) float32 in 0..1, best first.

    Raises:
        ValueError: if the source is empty, the batch size is below 1 or an image can't be read.
    """
    proposals = []
    for image_id, row in outputs_by_image(model, source_pass, "propose"):
        boxes, scores = row["boxes"], row["scores"].astype(np.float32)
        exists = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        boxes = to_original(boxes[exists], row["image_sizes"], row["original_sizes"])
        proposals.append({"image_id": image_id, "boxes": boxes, "scores": scores[exists]})
    return proposals


def proposal_recall(
    records: Iterable[Record], proposals: Iterable[Mapping[str, Any]], areas: tuple[float, float] = AREAS
) -> dict[str, float | None]:
    """Returns the average recall of proposals, by pycocotools without classes.

    Recall is the share of objects that a proposal overlaps by at least an IoU. A proposal is matched to one object at most,
    and recall is averaged over the IoUs .50, .55, ..., .95. Crowd objects do not count.

    Args:
        records: the ground truth, each image once.
        proposals: one mapping an image, in any order (an image may be missing): `image_id` int, `boxes` (n, 4) float yxyx in
            pixels of the original image, `scores` (n,) float. The best 100 and 1000 of an image count.
        areas: bounds between small and medium, and medium and large objects, in square pixels, of `Record.areas`. An object
            of exactly a bound's area belongs to both sides (pycocotools).

    Returns:
        dict: `RECALLS`, each a float in 0..1, or None where there is no ground truth to measure it on.

    Raises:
        ValueError: if an image id is not among the records, or twice among them or among the proposals, boxes and scores
            differ in number, or the two areas do not rise.
    """
    ranges = area_ranges(areas)
    truth = ground_truth(map(without_classes, records), ["object"])
    best = _best_by_image(proposals, {image["id"] for image in truth["images"]})
    first = {image_id: results[:100] for image_id, results in best.items()}
    of_100 = recalls_of_ranges(truth, _near_objects(truth, first), ranges[:1])
    of_all = recalls_of_ranges(truth, _near_objects(truth, best), ranges)
    return dict(zip(RECALLS, of_100 + of_all, strict=True))


def without_classes(record: Record) -> Record:
    """Returns a record whose objects are all of one class."""
    return dataclasses.replace(record, labels=np.zeros_like(record.labels))


def area_ranges(areas: tuple[float, float]) -> list[list[float]]:
    """Returns the ranges of areas that recall is measured on: all, small, medium and large.

    Raises:
        ValueError: if the two areas do not rise.
    """
    small, large = areas
    if not 0.0 < small < large:
        raise ValueError(f"areas must be two rising positive numbers of square pixels, got {small!r} and {large!r}")
    return [[0.0, np.inf], [0.0, small], [small, large], [large, np.inf]]


def recall_line(recall: Mapping[str, float | None]) -> str:
    """Returns the figures in one line."""
    shown = (f"{name} {'-' if recall[name] is None else format(recall[name], '.4f')}" for name in RECALLS)
    return f"proposals: {'  '.join(shown)}"


def _best_by_image(proposals: Iterable[Mapping[str, Any]], known: set[int]) -> dict[int, list[dict[str, Any]]]:
    """Returns the `COUNT` best proposals of each image, best first, as COCO's results."""
    results: dict[int, list[dict[str, Any]]] = {}
    for proposed in proposals:
        image_id, scores = int(proposed["image_id"]), np.asarray(proposed["scores"])
        if image_id not in known:
            raise ValueError(f"proposals: image_id must be the id of a record, got {image_id}")
        if image_id in results:
            raise ValueError(f"proposals: image_id must occur once, got {image_id} twice")
        boxes = np.asarray(proposed["boxes"], np.float64).reshape(-1, 4)
        if len(boxes) != len(scores):
            raise ValueError(
                f"proposals of image {image_id}: boxes and scores must be of one length, "
                f"got {len(boxes)} and {len(scores)}"
            )
        best = np.argsort(-scores, kind="stable")[:COUNT]
        results[image_id] = [
            {"image_id": image_id, "category_id": 0, "bbox": box, "score": float(score)}
            for box, score in zip(to_xywh(boxes[best]), scores[best], strict=True)
        ]
    return results


def recalls_of_ranges(
    truth: dict[str, Any], results: list[dict[str, Any]], ranges: list[list[float]], kind: Kind = "bbox"
) -> list[float | None]:
    """Returns the average recall, without classes, on the objects of each range of areas.

    Args:
        truth: of `kfpn.evaluation.coco_rows.ground_truth`.
        results: as `coco_evaluation` takes them, `COUNT` of an image at most.
        ranges: low and high bound of areas each, square pixels.
        kind: what overlaps are measured of.
    """
    evaluation = coco_evaluation(truth, results, kind)
    params = evaluation.params
    if not params.imgIds:
        return [None] * len(ranges)
    params.useCats, params.maxDets = 0, [COUNT]
    params.areaRng, params.areaRngLbl = ranges, [str(area) for area in ranges]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    # The axes are IoU thresholds, classes, area ranges and maxDets.
    recall = evaluation.eval["recall"]
    return [measured_mean(recall[:, :, area, 0]) for area in range(len(ranges))]


def _near_objects(truth: dict[str, Any], results: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Drops proposals that overlap no object enough to be matched at any IoU.

    They change no recall, but they are nearly all proposals, and pycocotools looks at each of them in Python, ten times
    for each range of areas.
    """
    from pycocotools import mask

    objects: dict[int, list[list[float]]] = {}
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"]:
            objects.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    near = []
    for image_id, proposed in results.items():
        if proposed and image_id in objects:
            boxes = objects[image_id]
            ious = mask.iou([result["bbox"] for result in proposed], boxes, [0] * len(boxes))
            near += [result for result, iou in zip(proposed, ious.max(axis=1), strict=True) if iou > 0.45]
    return near
