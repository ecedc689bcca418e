"""Lays the grids of anchors over the pyramid's levels (FPN, section 4.1)."""

import math

from keras import ops

from kfpn.ops.padding import padded_up


def cell_anchors(sizes, aspect_ratios, rounded=False):
    """Returns the anchors of the cell at (0, 0), centred on it: a list of (y1, x1, y2, x2) floats, size by size.

    Args:
        sizes: floats, sides of the square anchors in pixels; all anchors of a size have the area size^2.
        aspect_ratios: floats, height / width.
        rounded: bool, whether half the sides are rounded to whole pixels, halves to even (torchvision's AnchorGenerator).
    """
    halves = [
        (0.5 * size * math.sqrt(ratio), 0.5 * size / math.sqrt(ratio)) for size in sizes for ratio in aspect_ratios
    ]
    if rounded:
        halves = [(float(round(height)), float(round(width))) for height, width in halves]
    return [(-height, -width, height, width) for height, width in halves]


def image_strides(image_sizes, stride):
    """Returns the distances of torchvision's anchors: (B, 2) int32 pixels, from row to row and from column to column.

    A distance is the image's side, padded to a multiple of 32, divided by its cells on the level, rounded down: the
    level's stride up to P5, and 32 to 64 pixels on P6. torchvision takes the batch's canvas for the image. Given the images'
    own sizes, a distance depends on the image alone, and a batch's padding moves no anchor.

    Args:
        image_sizes: (B, 2) int, height and width in pixels.
        stride: int, the level's stride in pixels.
    """
    padded = padded_up(ops.cast(image_sizes, "int32"))
    return padded // ((padded + (stride - 1)) // stride)


def grid_anchors(height, width, strides, sizes, aspect_ratios, rounded=False):
    """Returns the anchors of one level: (B, height * width * A, 4) float32 yxyx pixels, ordered (y, x, size, ratio).

    Centres lie at cell index x stride, without half a cell, as in detectron2 and torchvision.

    Args:
        height, width: int or scalar tensors, cells of the level.
        strides: (B, 2) int, pixels from row to row and from column to column; (1, 2) where all images have the same.
        sizes, aspect_ratios, rounded: see `cell_anchors`.
    """
    cell = ops.convert_to_tensor(cell_anchors(sizes, aspect_ratios, rounded), "float32")
    strides = ops.convert_to_tensor(strides, "int32")
    y = ops.cast(ops.arange(height, dtype="int32") * strides[:, :1], "float32")
    x = ops.cast(ops.arange(width, dtype="int32") * strides[:, 1:], "float32")
    rows, columns = y[:, :, None, None], x[:, None, :, None]
    flat = ops.zeros_like(rows + columns)
    centres = ops.stack([rows + flat, columns + flat, rows + flat, columns + flat], axis=-1)
    return ops.reshape(centres + cell, (ops.shape(strides)[0], -1, 4))
