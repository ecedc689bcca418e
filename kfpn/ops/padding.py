"""Padding that leaves no trace: cells outside an image's true size are kept at zero on every level.

A batch pads images of different sizes below and right. Biases and norms make the padding non-zero
after the first layer, and every 3x3 behind it mixes that into the image's border; detectron2 and
torchvision live with it. Here a padded image gives what it gives alone.
"""

from keras import ops


def valid_cells(image_sizes, stride):
    """Returns how many rows and columns of a level an image fills: (B, 2) int32.

    Symmetric padding makes every stride-2 layer give ceil(n / 2) cells, so a level has ceil(n / stride).

    Args:
        image_sizes: (B, 2) int, height and width in pixels.
        stride: int, the level's stride in pixels.
    """
    return (ops.cast(image_sizes, "int32") + (stride - 1)) // stride


def valid_mask(image_sizes, stride, height, width):
    """Returns which cells of a (height, width) level lie inside the images: (B, height, width) bool."""
    cells = valid_cells(image_sizes, stride)
    rows = ops.arange(height, dtype="int32")[None, :, None] < cells[:, 0, None, None]
    columns = ops.arange(width, dtype="int32")[None, None, :] < cells[:, 1, None, None]
    return ops.logical_and(rows, columns)
