"""Reads a file of detections in COCO's results form, and gives them as `detect_source` does."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.record import Record, Source
from kfpn.evaluation.coco_rows import boxed, named_file
from kfpn.runs.atomic_files import read_json

OUTSIDE = 1.0
"""Pixels by which a box may reach out of its image. One that reaches farther belongs to another image."""


def read_results(path: Path, source: Source) -> list[dict[str, Any]]:
    """Returns the detections of a file, with the labels of a source: one dict for each of its images, as `detect_source` gives them.

    Args:
        path: a list of {image_id, category_id, bbox (xywh, pixels), score}, with masks also `segmentation`, as `kfpn evaluate
            --detections` writes it.
        source: the data that the detections are of.

    Raises:
        ValueError: naming the file and the row, if it is no such list, or belongs to other data.
        OSError: if it can't be read.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(
            f"{path} must be a list of detections, as `kfpn evaluate --detections` writes it, got {_type_of(rows)}"
        )
    sizes: dict[int, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for record in records_of(source):
        sizes[int(record.image_id)], names[int(record.image_id)] = (record.height, record.width), _file_of(record)
    labels = {int(number): label for label, number in enumerate(source.category_ids)}
    of_images: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in sizes}
    for number, row in enumerate(rows):
        _check_row(f"{path}: row {number}", row)
        if row["image_id"] not in sizes:
            raise ValueError(
                f"{path}: row {number}: image_id must be that of an image of {source.name}, got {row['image_id']}: give --data the "
                "data that was detected on"
            )
        if row["category_id"] not in labels:
            known = ", ".join(str(number) for number in source.category_ids[:20])
            raise ValueError(
                f"{path}: row {number}: category_id must be one of {source.name} ({known}{' …' if len(labels) > 20 else ''}), got "
                f"{row['category_id']}: give --data the data that was detected on"
            )
        _check_inside(f"{path}: row {number}", row, sizes[row["image_id"]], source.name)
        _check_name(f"{path}: row {number}", row, names[row["image_id"]], source.name)
        of_images[row["image_id"]].append(row)
    if with_masks := any("segmentation" in row for row in rows):
        images = [{"id": image_id, "height": size[0], "width": size[1]} for image_id, size in sizes.items()]
        with named_file(path):
            boxed(rows, {"images": images})  # it checks the masks
    return [_of_one_image(image_id, own, labels, with_masks) for image_id, own in of_images.items()]


def records_of(source: Source) -> Iterator[Record]:
    """Yields the records of a source, in its order."""
    return (source[index] for index in range(len(source)))


def _check_row(place: str, row: Any) -> None:
    if not isinstance(row, Mapping):
        raise ValueError(f"{place} must be a detection {{image_id, category_id, bbox, score}}, got {_type_of(row)}")
    for name in ("image_id", "category_id"):
        if not isinstance(row.get(name), int) or isinstance(row.get(name), bool):
            raise ValueError(f"{place}: {name} must be an integer, got {row.get(name)!r}")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite_number(value) for value in box):
        raise ValueError(f"{place}: bbox must be [x, y, width, height], got {str(box)[:60]}")
    if min(box[2:]) < 0:
        raise ValueError(f"{place}: bbox must have a width and a height of at least 0, got {box}")
    if not _is_finite_number(row.get("score")) or not 0 <= row["score"] <= 1:
        raise ValueError(f"{place}: score must lie in 0..1, got {str(row.get('score'))[:60]}")


def _check_inside(place: str, row: Mapping[str, Any], size: Sequence[int], name: str) -> None:
    x, y, width, height = row["bbox"]
    if min(x, y) < -OUTSIDE or y + height > size[0] + OUTSIDE or x + width > size[1] + OUTSIDE:
        raise ValueError(
            f"{place}: bbox must lie in its image, {size[1]} x {size[0]} pixels in {name}, got {row['bbox']}: give --data the data that "
            "was detected on"
        )


def _check_name(place: str, row: Mapping[str, Any], name: str, data: str) -> None:
    """Refuses a row that names another image: `kfpn predict` counts images from 1, which are the ids of other images in many data."""
    given = row.get("file_name")
    if isinstance(given, str) and name and _stem_of_file(given) != _stem_of_file(name):
        raise ValueError(
            f"{place}: file_name must be that of image {row['image_id']} of {data}, {name}, got {given}: `kfpn predict` counts "
            "images by itself, `kfpn evaluate --detections` writes the ids of the data"
        )


def _file_of(record: Record) -> str:
    return os.fspath(record.image) if isinstance(record.image, str | os.PathLike) else ""


def _stem_of_file(name: str) -> str:
    """Returns the name of a file without its folder and its ending: these others may write in another way."""
    return os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0].casefold()


def _is_finite_number(value: Any) -> bool:
    # `math.isfinite` fails on an integer that is too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _type_of(value: Any) -> str:
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _of_one_image(
    image_id: int, rows: list[dict[str, Any]], labels: Mapping[int, int], with_masks: bool
) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: -row["score"])
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    detections: dict[str, Any] = {
        "image_id": image_id,
        "boxes": np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1),
        "scores": np.array([row["score"] for row in rows], np.float64),
        "labels": np.array([labels[row["category_id"]] for row in rows], np.int32),
    }
    if with_masks:
        segmentations = np.empty(len(rows), object)
        for place, row in enumerate(rows):
            segmentations[place] = row["segmentation"]
        detections["segmentations"] = segmentations
    return detections
