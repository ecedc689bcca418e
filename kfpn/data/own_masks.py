"""Gives a person's own augmentation the masks of a picture as bitmaps, and takes back those that it returns."""

from typing import Any

import numpy as np

from kfpn.data.mask_content import NOTHING, pack_bitmap
from kfpn.data.object_masks import ObjectMasks


def bitmaps_of(masks: ObjectMasks) -> np.ndarray:
    """Returns all masks of a picture, (M, H, W) uint8, 0 or 1; zeros of an object without a mask."""
    drawn = np.zeros((len(masks), *masks.size), np.uint8)
    for i in np.flatnonzero(masks.exists).tolist():
        drawn[i] = masks.bitmap(i)
    return drawn


def masks_of_bitmaps(bitmaps: Any, boxes: np.ndarray, size: tuple[int, ...]) -> ObjectMasks:
    """Returns the masks that a function returned; one without a pixel is none.

    Args:
        bitmaps: as the function returned them; None only where it returned no boxes.
        boxes: (N, 4) yxyx that it returned.
        size: height and width of its image.

    Raises:
        ValueError: "RULE, got VALUE: what to do".
    """
    frame, count = (int(size[0]), int(size[1])), len(boxes)
    if bitmaps is None and count:
        # A function that was written without masks in mind would leave nothing to learn them from.
        raise ValueError(
            "return masks (N, H, W), got None: return those that came, moved as the image; zeros of an object without a mask"
        )
    if bitmaps is None:
        return ObjectMasks([], frame)
    try:
        drawn = np.asarray(bitmaps)
    except ValueError:
        raise ValueError("return masks (N, H, W), got arrays of several sizes: each is of the image's size") from None
    if not count and not drawn.size:
        return ObjectMasks([], frame)
    if drawn.shape != (count, *frame) or drawn.dtype.kind not in "biu":
        raise ValueError(
            f"return masks (N, H, W) of 0 and 1, here {(count, *frame)}, got {drawn.dtype} {drawn.shape}: one of the image's size for each box"
        )
    for number, (one, box) in enumerate(zip(drawn, boxes, strict=True)):
        # A pixel of room, because a turned mask is rounded.
        begin, end = np.maximum(np.floor(box[:2]) - 1, 0).astype(int), np.ceil(box[2:]).astype(int) + 1
        if one.any() and not one[begin[0] : end[0], begin[1] : end[1]].any():
            raise ValueError(
                f"return masks that lie in their boxes, got mask {number} beside its box: move masks and boxes as the image"
            )
    return ObjectMasks([pack_bitmap(one) if one.any() else NOTHING for one in drawn != 0], frame)
