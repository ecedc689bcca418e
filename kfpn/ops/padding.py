"""Finds the cells of a level that lie inside an image, so that padding can be kept at zero and leave no trace.

Images of different sizes are padded below and right to make a batch. Biases and norms make the padding non-zero after the
first layer, and every 3x3 after it mixes those values into the image's border. detectron2 and torchvision accept that. Here
a padded image gives what it gives alone.
"""

from keras import ops


def valid_cells(image_sizes, stride):
    """Returns how many rows and columns of a level an image fills: (B, 2) int32.

    With symmetric padding every layer of stride 2 gives ceil(n / 2) cells, so a level has ceil(n / stride).

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
