"""Anchor grids of the pyramid's levels (FPN, section 4.1)."""

import math

from keras import ops

STRIDES = (4, 8, 16, 32, 64)  # P2 ... P6


def cell_anchors(size, aspect_ratios):
    """Returns the anchors of the cell at (0, 0), centred on it: a list of (y1, x1, y2, x2) floats.

    Args:
        size: float, pixels: the side of the square anchor; all have the area size^2.
        aspect_ratios: height / width of each.
    """
    halves = [(0.5 * size * math.sqrt(ratio), 0.5 * size / math.sqrt(ratio)) for ratio in aspect_ratios]
    return [(-height, -width, height, width) for height, width in halves]


def grid_anchors(height, width, stride, size, aspect_ratios):
    """Returns the anchors of one level: (height * width * A, 4) float32 yxyx pixels, ordered (y, x, ratio).

    Centres lie at cell index x stride, without half a cell, as in detectron2 and torchvision.

    Args:
        height, width: int (or scalar tensors), cells.
        stride: int, pixels.
        size, aspect_ratios: see `cell_anchors`.
    """
    cell = ops.convert_to_tensor(cell_anchors(size, aspect_ratios), "float32")
    y = ops.cast(ops.arange(height, dtype="int32") * stride, "float32")
    x = ops.cast(ops.arange(width, dtype="int32") * stride, "float32")
    rows, columns = y[:, None, None], x[None, :, None]
    flat = ops.zeros_like(rows + columns)
    centres = ops.stack([rows + flat, columns + flat, rows + flat, columns + flat], axis=-1)
    return ops.reshape(centres + cell, (-1, 4))
