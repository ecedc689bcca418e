"""Moves the masks of a picture as its image and boxes are moved: cut and resized, mirrored, turned by quarters."""

import numpy as np

from kfpn.data.object_masks import GRID_SIDE, ObjectMasks
from kfpn.data.views import Window


def seen_masks(masks: ObjectMasks | None, window: Window, size: tuple[int, int]) -> ObjectMasks | None:
    """Returns the masks of a part of an image, resized.

    Args:
        masks: of the image.
        window: the part that is seen.
        size: height and width that it is resized to.
    """
    if masks is None:
        return None
    top, left, bottom, right = window
    tall, wide = size[0] / (bottom - top), size[1] / (right - left)
    return masks.moved(np.array([[wide, 0.0, -left * wide], [0.0, tall, -top * tall]]), size)


def resize_masks(masks: ObjectMasks | None, size: tuple[int, int]) -> ObjectMasks | None:
    """Returns the masks of a whole image that is resized to `size`, height and width."""
    return masks if masks is None or masks.size == tuple(size) else seen_masks(masks, (0, 0, *masks.size), size)


def flip_masks(masks: ObjectMasks | None) -> ObjectMasks | None:
    """Mirrors masks left to right."""
    if masks is None:
        return None
    return masks.moved(np.array([[-1.0, 0.0, masks.size[1]], [0.0, 1.0, 0.0]]), masks.size)


def flip_masks_vertical(masks: ObjectMasks | None) -> ObjectMasks | None:
    """Turns masks upside down, as in a mirror."""
    if masks is None:
        return None
    return masks.moved(np.array([[1.0, 0.0, 0.0], [0.0, -1.0, masks.size[0]]]), masks.size)


def turn_masks(masks: ObjectMasks | None, turns: int) -> ObjectMasks | None:
    """Turns masks as `numpy.rot90` turns their image, counter-clockwise, by quarter turns."""
    if masks is None:
        return None
    for _ in range(turns % 4):
        height, width = masks.size
        masks = masks.moved(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, width]]), (width, height))
    return masks


def are_out_of_sight(masks: ObjectMasks, asked: np.ndarray) -> np.ndarray:
    """Says of which objects nothing is seen, (M,) bool: they have a mask, and it has no pixel in its frame.

    Args:
        masks: of the M objects.
        asked: (M,) bool, the objects whose masks are drawn to find out; of all others the answer is False.
    """
    hidden = np.zeros(len(masks), bool)
    for i in np.flatnonzero(asked & masks.exists).tolist():
        hidden[i] = not masks.bitmap(i).any()
    return hidden


def batch_masks(masks: ObjectMasks | None, boxes: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the masks of a picture as a batch has them.

    Args:
        masks: of the M objects; None: none has one.
        boxes: (M, 4) float32 yxyx pixels, in the masks' frame.
        rows: at least M.

    Returns:
        (rows, S, S) uint8, 0 or 1, each object's mask over its own box, S = 112; and (rows,) bool, whether there is one. A mask
        without a cell in its box is none.
    """
    grids = np.zeros((rows, GRID_SIDE, GRID_SIDE), np.uint8)
    has_mask = np.zeros(rows, bool)
    if masks is not None:
        grids[: len(masks)] = masks.grids(boxes)
        has_mask[: len(masks)] = masks.exists & grids[: len(masks)].any((1, 2))
    return grids, has_mask


def batch_outlines(masks: ObjectMasks | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the masks of a picture as a batch has them for the exact rules: (rows,) bytes, and (rows,) bool, whether there is one.

    Args:
        masks: of the M objects; None: none has one.
        rows: at least M.
    """
    outlines = np.full(rows, b"", object)
    has_mask = np.zeros(rows, bool)
    if masks is not None:
        outlines[: len(masks)] = masks.serialized()
        has_mask[: len(masks)] = masks.exists
    return outlines, has_mask
