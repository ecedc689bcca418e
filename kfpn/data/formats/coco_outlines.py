"""Finds the box of an object of which COCO's JSON has only an outline."""

import itertools
from typing import Any

FROM_OUTLINE = "annotations without bbox, whose box is the one around their polygons"


def box_around(segmentation: Any) -> list[float] | None:
    """Returns x, y, width, height around all points of polygons; None where they are not polygons, but a mask (RLE).

    Args:
        segmentation: as the file has it: a list of polygons, each a list x1, y1, x2, y2, ...; or one such list.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons):
        return None
    xs, ys = (list(itertools.chain.from_iterable(polygon[axis::2] for polygon in polygons)) for axis in (0, 1))
    if not all(type(number) in (int, float) and -1e9 < number < 1e9 for number in (*xs, *ys)):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
