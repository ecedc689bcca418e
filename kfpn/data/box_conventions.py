"""Recognizes boxes that are no pixels of their images: shares, percents, boxes that are all alike or in one corner."""

import numpy as np

from kfpn.data.opening_warnings import warn_of_data

_SHARES = 1.5
"""Pixels within which all boxes of a data set lie that are really shares of the sides (0..1, with some rounding)."""
_SMALLEST = 16
"""Pixels: where most images have smaller sides, boxes of a pixel may be meant."""
_FEW = 4
"""Fewer boxes than this are no pattern."""
_MANY = 20
"""With as many boxes, a few exceptions are still a pattern."""


def require_pixels_of_boxes(name: str, boxes: np.ndarray, sizes: np.ndarray) -> None:
    """Refuses a data set whose boxes are shares of the sides, 0..1; of a single box it warns.

    Args:
        name: what messages call the data set.
        boxes: (M, 4) yxyx, clipped to the images.
        sizes: (N, 2) heights and widths of the images.

    Raises:
        ValueError: when all of at least two boxes, or nine tenths of many, lie within the first pixel and a half of much larger images.
    """
    if not len(boxes) or np.median(sizes) < _SMALLEST:
        return
    small = boxes.max(axis=1) <= _SHARES
    if small.all() or (len(boxes) >= _MANY and small.mean() > 0.9):
        said = f"{int(small.sum())} of {len(boxes)} that lie in 0..{boxes[small].max():g}: they look like shares of the image's sides"
        if len(boxes) == 1:  # a click of one pixel, or a mark that stands for no box
            warn_of_data(f"{name}: boxes must be in pixels, got {said}")
            return
        raise ValueError(
            f"{name}: boxes must be in pixels, got {said}. "
            "Multiply x and widths by the image's width, y and heights by its height"
        )


def odd_pattern(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """Says what is odd about the boxes of a data set as a whole; None: nothing.

    Args:
        boxes: (M, 4) yxyx pixels, inside their images.
        sizes: (M, 2) height and width of each box's image.
    """
    if len(boxes) < _FEW:
        return None
    if len(np.unique(boxes, axis=0)) == 1:
        y0, x0, y1, x1 = boxes[0]
        return f"all {len(boxes)} boxes are the same one, x {x0:g}..{x1:g}, y {y0:g}..{y1:g}"
    share = boxes[:, 2:] / sizes
    low = boxes[:, :2] / sizes
    if 50 < boxes.max() <= 100 and (share.max(axis=0) < 0.5).all() and sizes.min() > 200:
        return (
            f"all {len(boxes)} boxes lie in the first 100 pixels of both sides, though images have {int(sizes.min())} and more: "
            "do they hold percents of the sides, as Label Studio writes them?"
        )
    for side, (down, right) in {
        "upper left": (False, False), "upper right": (False, True), "lower left": (True, False), "lower right": (True, True),
    }.items():  # fmt: skip
        in_y = (low[:, 0] >= 0.75).all() if down else (share[:, 0] <= 0.25).all()
        in_x = (low[:, 1] >= 0.75).all() if right else (share[:, 1] <= 0.25).all()
        if in_y and in_x:
            return f"all {len(boxes)} boxes lie in the {side} corner, a sixteenth of their images: are they of images in another size?"
    return None
