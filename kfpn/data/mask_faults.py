"""Checks the mask of one object against its image, and counts what is left out."""

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.mask_content import NOTHING, size_as_drawn, unpack_outline

UNREADABLE = "masks, or polygons of them, that can't be read, left out; the boxes stay"
OTHER_SIZE = "masks of another size than their image, left out; the boxes stay"
OUTSIDE_IMAGE = "masks without a pixel in their image, left out; the boxes stay"


def usable_mask(content: bytes, size: tuple[int, int], where: str, faults: AnnotationFaults) -> bytes:
    """Returns a mask, or nothing where it does not fit its image.

    Args:
        content: packed; empty: there is none.
        size: height and width of the pixels that it was drawn in.
        where: what warnings call it.
        faults: counts the masks that are left out.
    """
    if not content:
        return NOTHING
    drawn_at = size_as_drawn(content)
    if drawn_at is not None and drawn_at != tuple(size):
        faults.add(OTHER_SIZE, f"{where}: {drawn_at[1]} x {drawn_at[0]} in an image of {size[1]} x {size[0]}")
        return NOTHING
    outline = unpack_outline(content)
    if isinstance(outline, list):
        points = np.concatenate(outline)
        seen = (points.max(0) > 0).all() and (points.min(0) < size[::-1]).all()
    else:
        seen = outline is not None and outline.pixels.any()
    if not seen:
        faults.add(OUTSIDE_IMAGE, where)
        return NOTHING
    return content
