"""Checks the mask of one object against its image, and counts what is left out."""

import numpy as np

from kfpn.data.annotation_checks import BESIDE_BOX, OTHER_EXTENT, OUTSIDE_IMAGE, AnnotationFaults
from kfpn.data.mask_content import NOTHING, size_as_drawn, unpack_outline
from kfpn.data.mask_raster import bitmap_of_polygons
from kfpn.ops.box_overlaps import areas, shared_areas

UNREADABLE = "masks, or polygons of them, that can't be read, left out; the boxes stay"
OTHER_SIZE = "masks of another size than their image, left out; the boxes stay"
_SAME_EXTENT = 0.5
"""IoU of the box around a mask and the object's box, from which both are taken for one extent."""
_SURE_OF_PIXELS = 16.0
"""Square pixels of an object's polygons: smaller ones are drawn, to see whether they have a pixel."""


def usable_mask(
    content: bytes, size: tuple[int, int], where: str, faults: AnnotationFaults, box: np.ndarray | None = None
) -> bytes:
    """Returns a mask, or nothing where it does not fit its image or its box.

    Args:
        content: packed; empty: there is none.
        size: height and width of the pixels that it was drawn in.
        where: what warnings call it.
        faults: counts the masks that are left out.
        box: (4,) yxyx in the same pixels; None: the mask is not compared with a box.
    """
    if not content:
        return NOTHING
    if box is not None and not _has_pixels(
        box, size
    ):  # Another warning counts such a box; its object is left out, mask and all.
        return NOTHING
    drawn_at = size_as_drawn(content)
    if drawn_at is not None and drawn_at != tuple(size):
        faults.add(OTHER_SIZE, f"{where}: {drawn_at[1]} x {drawn_at[0]} in an image of {size[1]} x {size[0]}")
        return NOTHING
    around = _sides_around(content, size)
    if around is None or not _touch(around, np.array([0, 0, *size])):
        faults.add(OUTSIDE_IMAGE, where)
        return NOTHING
    if box is not None and not _touch(around, box):
        faults.add(BESIDE_BOX, where)
        return NOTHING
    if box is not None and not _same_extent(around, box):
        faults.add(OTHER_EXTENT, where)
    return content


def _has_pixels(box: np.ndarray, size: tuple[int, int]) -> bool:
    return bool(np.isfinite(box).all() and (box[2:] > box[:2]).all()) and _touch(box, np.array([0, 0, *size]))


def _sides_around(content: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """Returns the box yxyx around a mask, in pixels; None where it has no pixel in an image of this height and width."""
    outline = unpack_outline(content)
    if isinstance(outline, list):
        points = np.concatenate(outline)
        low, high = points.min(0)[::-1], points.max(0)[::-1]
        if sum(map(_area_of_polygon, outline)) < _SURE_OF_PIXELS and not bitmap_of_polygons(outline, size).any():
            return None
        return np.concatenate([low, high])
    if outline is None or not outline.pixels.any():
        return None
    rows, columns = (np.flatnonzero(outline.pixels.any(axis)) for axis in (1, 0))
    return np.array([rows[0], columns[0] + outline.first, rows[-1] + 1, columns[-1] + 1 + outline.first], np.float64)


def _area_of_polygon(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _same_extent(first: np.ndarray, second: np.ndarray) -> bool:
    shared = shared_areas(first, second[None])[0]
    return bool(shared >= _SAME_EXTENT * (areas(np.stack([first, second])).sum() - shared))


def _touch(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first[:2] < second[2:]).all() and (first[2:] > second[:2]).all())
