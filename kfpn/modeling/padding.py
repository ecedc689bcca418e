"""Padding that leaves no trace: cells outside an image's true size are kept at zero on every level.

A batch pads images of different sizes below and right. Biases and norms make the padding non-zero
after the first layer, and every 3x3 behind it mixes that into the image's border; detectron2 and
torchvision live with it. Here a padded image gives what it gives alone.
"""

import keras
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


@keras.saving.register_keras_serializable("kfpn")
class PaddingMask(keras.layers.Layer):
    """Makes the mask of a level's valid cells.

    Args:
        stride: int, the level's stride in pixels.
    Call:
        like: (B, H, W, C), any tensor of the level. image_sizes: (B, 2) int, pixels.
    Returns:
        (B, H, W, 1) in the compute dtype: 1 inside the image, 0 in the padding.
    """

    def __init__(self, stride, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, like, image_sizes):
        shape = ops.shape(like)
        mask = valid_mask(image_sizes, self.stride, shape[1], shape[2])
        return ops.cast(mask, self.compute_dtype)[..., None]

    def compute_output_spec(self, like, image_sizes):
        return keras.KerasTensor((*like.shape[:3], 1), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("kfpn")
class Normalize(keras.layers.Layer):
    """Subtracts the pixel mean and divides by the standard deviation.

    Args:
        mean, std: three floats each, of R, G, B in 0..255.
    Call:
        images: (B, H, W, 3) uint8 or float, 0..255.
    Returns:
        (B, H, W, 3) in the compute dtype.
    """

    def __init__(self, mean, std, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def call(self, images):
        images = ops.cast(images, "float32")
        normal = (images - ops.convert_to_tensor(self.mean, "float32")) / ops.convert_to_tensor(self.std, "float32")
        return ops.cast(normal, self.compute_dtype)

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}
