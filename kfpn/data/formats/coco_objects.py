"""Reads the annotations of COCO's JSON: by columns where they are plain, else one by one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.annotations import RawObjects
from kfpn.data.field_values import comma_hint, read_flag, read_number, shown
from kfpn.data.formats.coco_columns import Columns, have_distinct_ids, joined, plain_columns
from kfpn.data.formats.coco_json import Rows
from kfpn.data.formats.coco_outlines import FROM_OUTLINE
from kfpn.data.formats.coco_tables import Categories, IdTable

UNKNOWN_IMAGE = "annotations of an image id that is not listed, left out"
DUPLICATE_ID = "annotations whose id came before, kept"
SET_ASIDE = "annotations with {} 1, taken as crowd"
NO_AREA_FIELD = "annotations whose area is no number, measured by their boxes"

_PLAIN, _LARGE = frozenset((int, float)), 1e300
_SET_ASIDE_BY = ("ignore", "difficult")
_PART = 4096  # annotations that are looked at together: one that is not plain makes this many slow


class CocoObjects:
    """Reads the annotations of one file.

    Args:
        images: finds the images by their ids.
        categories: finds the labels.
        files: of the images, for messages.
        faults: counts what was left out or changed; its `source` is what messages call the data set.

    Attributes:
        numbers: (M,) int64, which annotation of the file each object is that was read.
    """

    def __init__(self, images: IdTable, categories: Categories, files: Sequence[str], faults: AnnotationFaults) -> None:
        self._images, self._categories, self._files, self._faults = images, categories, files, faults
        self._numbers = images.index_of_number, categories.label_of_number
        self._seen: set[str] = set()
        self.numbers = np.zeros(0, np.int64)

    def read(self, annotations: Rows) -> RawObjects:
        """Returns all objects, in the order of the file.

        Raises:
            ValueError: naming the first annotation that has something wrong.
        """
        quick = have_distinct_ids(annotations)
        parts = []
        for begin in range(0, len(annotations), _PART):
            rows = annotations[begin : begin + _PART]
            plain = plain_columns(rows, *self._numbers, _SET_ASIDE_BY) if quick else None
            if plain is None:
                parts.append(self._one_by_one(rows, begin))
            else:
                parts.append(plain._replace(numbers=plain.numbers + begin))
        whole, files = joined(parts), self._files
        self.numbers = whole.numbers
        of_image = whole.image_index
        return RawObjects(
            of_image, whole.corners, whole.labels, whole.crowd, whole.areas, where=lambda m: files[of_image[m]]
        )

    def _one_by_one(self, annotations: Rows, begin: int) -> Columns:
        rows: list[tuple[int, int, bool, float, int]] = []
        corners: list[tuple[float, ...]] = []
        for number, annotation in enumerate(annotations, begin):
            what = f"annotation {shown(annotation['id'], 50) if 'id' in annotation else f'[{number}]'}"
            index = self._image_of(annotation, what)
            if index is None:
                continue
            what = f"{what} of {self._files[index]}"
            self._count_id(annotation, what)
            said = f"{self._faults.source}: {what}"
            label = self._categories.label(annotation.get("category_id"), said)
            x, y, width, height = _numbers(self._box(annotation, what), said)
            corners.append((y, x, y + height, x + width))
            crowd = _is_crowd(annotation, what, self._faults)
            rows.append((index, label, crowd, _area(annotation, what, self._faults), number))
        index_column, labels, flags, areas, numbers = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return Columns(
            np.asarray(index_column, np.int64),
            np.asarray(labels, np.int64),
            np.asarray(corners, np.float64).reshape(-1, 4),
            np.asarray(flags, bool),
            np.asarray(areas, np.float64),
            np.asarray(numbers, np.int64),
        )

    def _image_of(self, annotation: dict[str, Any], what: str) -> int | None:
        try:
            index = self._images.find(annotation["image_id"])
        except TypeError:
            raise ValueError(
                f"{self._faults.source}: {what}: image_id must be the id of an image, got {shown(annotation['image_id'])}"
            ) from None
        if index is None:
            self._faults.add(UNKNOWN_IMAGE, f"{what}, image id {shown(annotation['image_id'])}")
        return index

    def _box(self, annotation: dict[str, Any], what: str) -> Any:
        bbox = annotation.get("bbox")
        if bbox or "segmentation" not in annotation:  # which is left only where there is no bbox
            return bbox
        around = annotation["segmentation"]
        if around is None:
            raise ValueError(
                f"{self._faults.source}: {what}: bbox must be four numbers (x, y, width, height), got {shown(bbox)} beside a segmentation "
                "that is not polygons of at least three points each: write the box around it"
            )
        self._faults.add(FROM_OUTLINE, what)
        return around

    def _count_id(self, annotation: dict[str, Any], what: str) -> None:
        value = annotation.get("id")
        if value is None:
            return
        key = str(value) if isinstance(value, (int, float, str)) else shown(value, 1000)
        if key in self._seen:
            self._faults.add(DUPLICATE_ID, what)
        self._seen.add(key)


def _is_crowd(annotation: dict[str, Any], what: str, faults: AnnotationFaults) -> bool:
    crowd = read_flag(annotation.get("iscrowd"), f"{faults.source}: {what}: iscrowd")
    for field in _SET_ASIDE_BY:
        if field in annotation and read_flag(annotation[field], f"{faults.source}: {what}: {field}"):
            if not crowd:
                faults.add(SET_ASIDE.format(field), what)
            crowd = True
    return crowd


def _numbers(bbox: Any, where: str) -> list[float]:
    plain = type(bbox) is list and len(bbox) == 4 and _PLAIN.issuperset(map(type, bbox))
    if plain and min(bbox) > -_LARGE and max(bbox) < _LARGE:  # nearly all boxes: quickly
        return bbox
    numbers = [read_number(value) for value in bbox] if isinstance(bbox, list) else []
    known = [number for number in numbers if number is not None]
    if len(numbers) != 4 or len(known) != 4:
        hint = comma_hint(*bbox) if isinstance(bbox, list) else ""
        raise ValueError(f"{where}: bbox must be four numbers (x, y, width, height), got {shown(bbox)}{hint}")
    return known


def _area(annotation: dict[str, Any], what: str, faults: AnnotationFaults) -> float:
    value = annotation.get("area")
    area = None if value is None else read_number(value)
    if value is not None and area is None:
        faults.add(NO_AREA_FIELD, what)
    return area if area is not None and abs(area) < 1e30 else 0.0
