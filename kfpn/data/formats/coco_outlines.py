"""Reads the outline of an object of COCO's JSON: as a mask, or as the box around it where there is no other."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from kfpn.data.mask_content import NOTHING, are_points, as_points, pack_outline, pack_polygons
from kfpn.data.run_lengths import size_of_runs

MASK = "packed segmentation"
"""The field of an annotation in which `read_coco_json` leaves its mask, a `PackedMask`."""
FROM_OUTLINE = "annotations without bbox, whose box is the one around their polygons"


def box_around(segmentation: Any) -> list[float] | None:
    """Returns x, y, width, height around all points of polygons; None where they are not polygons, but a mask (RLE).

    Args:
        segmentation: as the file has it: a list of polygons, each a list x1, y1, x2, y2, ... or of pairs x, y; or one such list.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = [_without_pairs(polygon) for polygon in ([segmentation] if _is_one(segmentation) else segmentation)]
    if not all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons):
        return None
    xs, ys = (list(itertools.chain.from_iterable(polygon[axis::2] for polygon in polygons)) for axis in (0, 1))
    if not all(type(number) in (int, float) and -1e9 < number < 1e9 for number in (*xs, *ys)):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _is_one(segmentation: list[Any]) -> bool:
    """Tells whether a list is one polygon: of numbers, or of pairs x, y."""
    return not isinstance(segmentation[0], list) or are_points(segmentation)


def _without_pairs(polygon: Any) -> Any:
    in_pairs = isinstance(polygon, list) and are_points(polygon)
    return list(itertools.chain.from_iterable(polygon)) if in_pairs else polygon


class PackedMask(NamedTuple):
    """Holds the mask of an annotation.

    Attributes:
        content: packed; empty where it has none, or one that can't be read.
        fault: "RULE, got VALUE" where it, or one of its polygons, can't be read; else empty.
    """

    content: bytes = NOTHING
    fault: str = ""


def packed_segmentation(segmentation: Any) -> PackedMask:
    """Returns the mask of an annotation, of any size; of several polygons those that can be read.

    Args:
        segmentation: as the file has it; null and an empty list are no mask.
    """
    if segmentation is None or segmentation == []:
        return PackedMask()
    try:
        if isinstance(segmentation, Mapping):
            return PackedMask(pack_outline(segmentation, size_of_runs(segmentation)))
        if not isinstance(segmentation, list) or _is_one(segmentation):
            return PackedMask(pack_outline(segmentation, (0, 0)))
    except ValueError as error:
        return PackedMask(fault=str(error))
    polygons, fault = [], ""
    for polygon in segmentation:
        try:
            polygons.append(as_points(polygon))
        except ValueError as error:
            fault = fault or str(error)
    return PackedMask(pack_polygons(polygons) if polygons else NOTHING, fault)
