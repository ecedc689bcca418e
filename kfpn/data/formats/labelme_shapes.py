"""Reads the shapes of labelme's JSON files: polygons, rectangles, circles and masks, and which of them are one object."""

import base64
import binascii
import dataclasses
import math
from typing import Any

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_values import comma_hint, read_flag, read_number, shown
from kfpn.data.mask_content import NOTHING, as_points, pack_bitmap, pack_polygons
from kfpn.data.mask_faults import UNREADABLE
from kfpn.data.mask_raster import bitmap_of_polygons
from kfpn.data.opened_picture import opened_picture

NO_OBJECTS = "shapes that are a point or a line, left out"
NOT_CLASSES = "shapes labelled __ignore__ or _background_, left out"
OTHER_POINTS = "shapes with fewer or more points than their shape_type has, left out"
DIFFICULT = "objects with difficult 1, taken as crowd"

_LEFT_OUT_LABELS = ("__ignore__", "_background_")
_NO_AREA_TYPES = ("point", "points", "line", "linestrip")
_POLYGONS = ("polygon", "oriented_rectangle", "rotation")
"""labelme's own, and the turned rectangle of X-AnyLabeling."""
_COUNTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,)}
"""Points of a type: X-AnyLabeling writes all four corners of a rectangle."""
_TYPES = (*_POLYGONS[:2], *_COUNTS, *_NO_AREA_TYPES)
_MOST_SIDES = 1000
_MOST_PIXELS = 1 << 28


@dataclasses.dataclass
class LabelmeObject:
    """Holds one object of a file: a shape, or all with one label and one group_id.

    Attributes:
        label: the name of its class.
        where: what messages call its first shape: the file and the shape.
        crowd: bool.
        boxes: yxyx around each shape, in pixels.
        polygons: each (n, 2) float64 x, y in pixels.
        bitmaps: (left, top, pixels (h, w) bool) of each shape that is a mask.
        areas: of the shapes, square pixels; 0 for that of the shape's box.
    """

    label: str
    where: str
    crowd: bool = False
    boxes: list[tuple[float, float, float, float]] = dataclasses.field(default_factory=list)
    polygons: list[np.ndarray] = dataclasses.field(default_factory=list)
    bitmaps: list[tuple[int, int, np.ndarray]] = dataclasses.field(default_factory=list)
    areas: list[float] = dataclasses.field(default_factory=list)

    def box(self) -> tuple[float, ...]:
        """Returns the box yxyx around all its shapes; NaN where one of them has no finite place."""
        y0, x0, y1, x1 = np.asarray(self.boxes, np.float64).T
        return float(y0.min()), float(x0.min()), float(y1.max()), float(x1.max())

    def area(self) -> float:
        """Returns the sum of the areas of its shapes; 0 for that of its box, where it fills it or is not known."""
        y0, x0, y1, x1 = self.box()
        whole = sum(self.areas)
        return whole if all(self.areas) and whole < (y1 - y0) * (x1 - x0) else 0.0

    def packed_mask(self, size: tuple[int, int]) -> bytes:
        """Returns its mask in an image of this height and width; nothing where it has none."""
        if not self.bitmaps:
            return pack_polygons(self.polygons) if self.polygons else NOTHING
        drawn = np.zeros(size, bool)
        if self.polygons:
            drawn |= bitmap_of_polygons(self.polygons, size).astype(bool)
        for left, top, pixels in self.bitmaps:
            y0, x0 = max(top, 0), max(left, 0)
            part = pixels[y0 - top : max(size[0] - top, 0), x0 - left : max(size[1] - left, 0)]
            drawn[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] |= part
        return pack_bitmap(drawn)


def objects_of_shapes(shapes: list[Any], path: str, faults: AnnotationFaults) -> list[LabelmeObject]:
    """Returns the objects of a file, in the order of their first shapes.

    Args:
        shapes: the list `shapes` of the file.
        path: of the file, for messages.
        faults: counts what is left out.

    Raises:
        ValueError: when a shape has no label, points or type that can be read; names the file and the shape.
    """
    objects: dict[Any, LabelmeObject] = {}
    for number, shape in enumerate(shapes):
        where = f"{path}: shapes[{number}]"
        if not isinstance(shape, dict):
            raise ValueError(f"{where} must be an object with label, points and shape_type, got {shown(shape, 60)}")
        label, kind = _label(shape, where), _shape_type(shape, where)
        group, points = _group(shape, where), _points_of_shape(shape, where)
        if label in _LEFT_OUT_LABELS:
            faults.add(NOT_CLASSES, where)
        elif kind in _NO_AREA_TYPES:
            faults.add(NO_OBJECTS, f"{where}, {kind}")
        elif not _has_its_points(kind, len(points)):
            faults.add(OTHER_POINTS, f"{where}, {kind} of {len(points)}")
        else:
            key = (number,) if group is None else (label, group)
            whole = objects.setdefault(key, LabelmeObject(label, where))
            if read_flag(shape.get("difficult"), f"{where}: difficult") and not whole.crowd:
                whole.crowd = True
                faults.add(DIFFICULT, where)
            _add_shape(whole, kind, points, shape.get("mask"), (where, faults))
    return list(objects.values())


def _has_its_points(kind: str, count: int) -> bool:
    return count in _COUNTS[kind] if kind in _COUNTS else count >= 3


def _add_shape(
    whole: LabelmeObject, kind: str, points: np.ndarray, mask: Any, said: tuple[str, AnnotationFaults]
) -> None:
    low, high = points.min(0), points.max(0)
    area = 0.0
    if kind == "mask":
        low, high, area = _add_bitmap(whole, points, mask, said)
    elif not np.isfinite(points).all():  # its box is left out, and counted, with the others that are not finite
        pass
    elif kind == "circle":
        radius = math.dist(*points.tolist())
        low, high = points[0] - radius, points[0] + radius
        area = _add_outline(whole, _circle(points[0], radius), said)
    elif kind == "rectangle":
        corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
        area = _add_outline(whole, corners, said)
    else:
        area = _add_outline(whole, points, said)
    whole.boxes.append((float(low[1]), float(low[0]), float(high[1]), float(high[0])))
    whole.areas.append(area)


def _add_outline(whole: LabelmeObject, points: np.ndarray, said: tuple[str, AnnotationFaults]) -> float:
    """Adds a polygon and returns its area; 0 where it is left out."""
    try:
        x, y = as_points(points).T
    except ValueError as error:  # farther away than any image is large
        said[1].add(UNREADABLE, f"{said[0]} must {error}")
        return 0.0
    whole.polygons.append(points)
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _circle(centre: np.ndarray, radius: float) -> np.ndarray:
    """Returns a circle as points at most a pixel beside it, as labelme's own converter draws it, four of them on its box."""
    sides = math.pi / math.acos(1 - 1 / min(max(radius, 1.0), 1e6))
    sides = min(max(12, 4 * math.ceil(sides / 4)), _MOST_SIDES)
    turns = 2 * np.pi / sides * np.arange(sides)
    return centre + radius * np.stack([np.sin(turns), np.cos(turns)], 1)


def _add_bitmap(
    whole: LabelmeObject, points: np.ndarray, mask: Any, said: tuple[str, AnnotationFaults]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Adds the pixels of a mask; returns x, y of the corners around them, or around its points where it can't be read, and their area."""
    low, high = np.round(points.min(0)), np.round(points.max(0)) + 1  # labelme includes the last pixel
    try:
        if not (np.abs(points) < _MOST_PIXELS).all():  # of NaN too this is not so
            raise ValueError("lie in its image")
        pixels = _decoded_mask(mask)
        if not pixels.any():
            raise ValueError("have a pixel of the object, got none")
    except ValueError as error:
        said[1].add(UNREADABLE, f"{said[0]}: mask must {error}")
        return low, high, 0.0
    whole.bitmaps.append((int(low[0]), int(low[1]), pixels))
    columns, rows = (np.flatnonzero(pixels.any(axis)) for axis in (0, 1))
    first, last = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
    return low + first, low + last + 1, float(pixels.sum())


def _decoded_mask(mask: Any) -> np.ndarray:
    if not isinstance(mask, str):
        raise ValueError(f"be a PNG in base64, got {shown(mask, 40)}")
    try:
        content = base64.b64decode(mask, validate=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"be a PNG in base64, got {shown(mask, 40)}") from error
    try:
        with opened_picture(content) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"got {picture.width} x {picture.height} pixels")
            values = np.asarray(picture)
    except ValueError as error:
        raise ValueError(f"be a PNG in base64, got one that {error}") from error
    return (values if values.ndim == 2 else values.any(-1)) != 0


def _label(shape: dict[str, Any], where: str) -> str:
    label = shape.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{where}: label must be the name of a class, got {shown(label, 60)}")
    return label.strip()


def _shape_type(shape: dict[str, Any], where: str) -> str:
    kind = shape.get("shape_type")
    if kind is None:  # files of labelme before version 3.7
        return "polygon"
    if kind not in (*_TYPES, *_POLYGONS):
        raise ValueError(f"{where}: shape_type must be one of {', '.join(_TYPES)}, got {shown(kind, 60)}")
    return str(kind)


def _group(shape: dict[str, Any], where: str) -> int | str | None:
    group = shape.get("group_id")
    if group is None or isinstance(group, str):
        return group or None
    if isinstance(group, bool) or not isinstance(group, (int, float)) or group != group:
        raise ValueError(f"{where}: group_id must be a whole number or null, got {shown(group, 60)}")
    return group  # type: ignore[return-value]


def _points_of_shape(shape: dict[str, Any], where: str) -> np.ndarray:
    points = shape.get("points")
    rows = points if isinstance(points, list) else [None]
    pairs = [
        [read_number(value) for value in row] if isinstance(row, list) and len(row) == 2 else [None] for row in rows
    ]
    wrong = next((row for row, pair in zip(rows, pairs, strict=True) if None in pair), None)
    if not isinstance(points, list) or any(None in pair for pair in pairs):
        value = points if not isinstance(points, list) else wrong
        hint = comma_hint(*wrong) if isinstance(wrong, list) else ""
        raise ValueError(f"{where}: points must be pairs of numbers x, y, got {shown(value, 60)}{hint}")
    return np.asarray(pairs, np.float64).reshape(-1, 2)
