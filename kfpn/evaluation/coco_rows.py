"""Turns records and detections into the rows of COCO's files.

Boxes are yxyx in kfpn and xywh in COCO's files; they are converted here, once.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.data.mask_content import pack_outline
from kfpn.data.record import Record
from kfpn.data.run_lengths import run_lengths, size_of_runs


def detections_to_coco(
    detections: Iterable[Mapping[str, Any]], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Returns detections as a COCO results list: {image_id, category_id, bbox (xywh, pixels), score}, with masks `segmentation`.

    Args:
        detections: as `evaluate_coco` takes them.
        category_ids: the data set's own ids of labels 0 .. K-1. None: the labels themselves.

    Raises:
        ValueError: if a label has no category id, or the boxes, scores and labels of a detection differ in number.
    """
    return [result for detection in detections for result in _rows_of_image(detection, category_ids)]


def _rows_of_image(detection: Mapping[str, Any], category_ids: Sequence[int] | None) -> list[dict[str, Any]]:
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
    rows = [
        {
            "image_id": image_id,
            "category_id": int(label if category_ids is None else category_ids[label]),
            "bbox": box,
            "score": float(score),
        }
        for box, score, label in zip(to_xywh(boxes), scores, labels, strict=True)
    ]
    if "segmentations" in detection:
        if len(detection["segmentations"]) != len(rows):
            raise ValueError(
                f"detections of image {image_id}: segmentations must be one for each box ({len(rows)}), got {len(detection['segmentations'])}"
            )
        for row, segmentation in zip(rows, detection["segmentations"], strict=True):
            row["segmentation"] = segmentation
    return rows


def to_xywh(boxes: np.ndarray) -> list[list[float]]:
    """Returns boxes (n, 4) yxyx as COCO's xywh, rounded to a thousandth of a pixel.

    The rounding restores the decimals of the annotation file, which float32 changes a little. So an IoU of exactly .50 or
    .75 stays exact, and the figures are those of the file.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, 1::-1], boxes[:, :1:-1] - boxes[:, 1::-1]], axis=1).round(3).tolist()


def ground_truth(records: Iterable[Record], class_names: Sequence[str], with_masks: bool = False) -> dict[str, Any]:
    """Returns records as the dict of an annotations file; category ids are the labels.

    Args:
        records: each image once.
        class_names: the names of the labels.
        with_masks: objects that have a mask get their `segmentation`, run lengths; one mask at a time is decoded.

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
        masks = record.masks if with_masks else None
        exists = np.zeros(len(record.labels), bool) if masks is None else masks.exists
        for row, (box, label, crowd, area) in enumerate(
            zip(to_xywh(record.boxes), record.labels, record.crowd, record.areas, strict=True)
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
                    **({"segmentation": masks.rle(row)} if masks is not None and exists[row] else {}),
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


def masked(truth: dict[str, Any]) -> dict[str, Any]:
    """Returns ground truth in which each object has a mask: one without becomes a crowd that fills its box.

    Args:
        truth: of `ground_truth`, or of an annotations file.
    """
    from pycocotools import mask as coco_mask

    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    annotations = []
    for annotation in truth["annotations"]:
        if not annotation.get("segmentation"):
            (filled,) = coco_mask.frPyObjects(
                np.array([annotation["bbox"]], np.float64), *sizes[annotation["image_id"]]
            )
            annotation = {**annotation, "segmentation": filled, "iscrowd": 1}
        annotations.append(annotation)
    return {**truth, "annotations": annotations}


def boxed(results: Iterable[Mapping[str, Any]], truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a results file with masks, each with a box: that of its mask where it has none.

    Args:
        results: with `segmentation`, compressed run lengths, each.
        truth: with the images of the results.

    Raises:
        ValueError: for a row without a mask among rows with masks, or a mask of another size than its image.
    """
    from pycocotools import mask as coco_mask

    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    rows = []
    for number, result in enumerate(results):
        segmentation, size = result.get("segmentation"), sizes[result["image_id"]]
        if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str | bytes):
            raise ValueError(
                f"results[{number}]: segmentation must be COCO's compressed run lengths, as in all rows with masks, got "
                f"{str(segmentation)[:60]}"
            )
        try:
            got = list(size_of_runs(segmentation))
            if got == size:  # pycocotools reads any text as run lengths, and may never come back
                run_lengths(segmentation)
        except ValueError as error:
            raise ValueError(f"results[{number}]: segmentation must {error}") from None
        if got != size:
            raise ValueError(
                f"results[{number}]: segmentation must have the size of image {result['image_id']}, {size}, got {got}"
            )
        rows.append({"bbox": coco_mask.toBbox(segmentation).tolist(), **result})
    return rows


def require_numbers(rows: Iterable[Mapping[str, Any]], what: str) -> None:
    """Makes sure that no number of a file is written as true or false, which would count as 1 or 0 (`iscrowd` may be).

    Args:
        rows: of one list of the file.
        what: the list's name, for messages.

    Raises:
        ValueError: naming the first row and field that has such a value.
    """
    for number, row in enumerate(rows):
        for name in ("id", "image_id", "category_id", "bbox", "area", "score"):
            value = row.get(name)
            if isinstance(value, bool) or (isinstance(value, list) and bool in map(type, value)):
                raise ValueError(
                    f"{what}[{number}]: {name} must hold numbers, got {value}: true and false are none, write 1 or 0 if they are meant"
                )


def require_outlines(truth: dict[str, Any]) -> None:
    """Makes sure that pycocotools can draw the masks of an annotations file: it fails on some faults, and never comes back from others.

    Raises:
        ValueError: naming the first annotation with a mask that can't be drawn.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        if not annotation.get("segmentation"):
            continue
        try:
            pack_outline(annotation["segmentation"], sizes[annotation["image_id"]])
        except ValueError as error:
            raise ValueError(f"annotation {annotation['id']}: segmentation must {error}") from None


@contextlib.contextmanager
def named_file(path: str | os.PathLike) -> Iterator[None]:
    """Puts the name of a file before the message of a ValueError about its rows."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
