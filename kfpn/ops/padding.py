"""Finds the cells of a level that lie inside an image, and those of a canvas whose padding counts as image.

Images of different sizes are padded below and right to make a batch; the padded size is called the canvas. Biases and norms
make the padding non-zero after the first layer, and every 3x3 after it mixes those values into the image's border. With
`padding` "zero" it is cleared after every layer, so that a padded image gives what it gives alone. With "foreign" it stays, as
in detectron2 and torchvision: there all cells of the canvas have anchors, and RoIs are pooled from all of them.
"""

from keras import ops

from kfpn.ops.pyramid_levels import stride as stride_of

PADDED_TO = 32
"""torchvision and detectron2 pad every image to a multiple of this many pixels."""


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


def padded_up(side, multiple=PADDED_TO):
    """Returns a side in pixels (int, array or tensor of ints) rounded up to a multiple."""
    return (side + (multiple - 1)) // multiple * multiple


def sizes_with_padding(features, image_sizes, padding):
    """Returns the sizes whose cells count: those of the images, or with `padding` "foreign" that of the canvas.

    Args:
        features: {"P2": (B, H, W, C), ...} of a canvas whose sides are multiples of `PADDED_TO`.
        image_sizes: (B, 2) int, height and width in pixels.
        padding: see `ModelConfig`.

    Returns:
        (B, 2) int pixels, or (1, 2) int32 for the canvas, which all images share.
    """
    if padding == "zero":
        return image_sizes
    finest = min(features)
    cells = [ops.convert_to_tensor(side, "int32") for side in ops.shape(features[finest])[1:3]]
    return ops.stack(cells)[None] * stride_of(finest)
