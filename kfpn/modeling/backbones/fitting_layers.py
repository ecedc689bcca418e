"""Defines the layers that fit images to a Keras model, and its maps to the images."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kfpn")
class CropToImage(keras.layers.Layer):
    """Cuts a map to the cells that the images fill, which were padded before: (B, H', W', C) -> (B, H', W', C).

    Args:
        stride: int, of the map, in pixels.

    Call:
        x: (B, >= ceil(H / stride), >= ceil(W / stride), C).
        images: (B, H, W, any).

    Returns:
        (B, ceil(H / stride), ceil(W / stride), C).
    """

    def __init__(self, stride, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, x, images):
        # Not -(-side // stride): ONNX divides integers towards zero, and -35 // 16 would be -2 there.
        cells = [(side + (self.stride - 1)) // self.stride for side in ops.shape(images)[1:3]]
        # Where shapes are static and nothing is too much, no operation is left over.
        fits = all(isinstance(side, int) for side in cells) and tuple(x.shape[1:3]) == tuple(cells)
        return x if fits else x[:, : cells[0], : cells[1]]

    def compute_output_spec(self, x, images):
        sides = (None if side is None else -(-side // self.stride) for side in images.shape[1:3])
        return keras.KerasTensor((x.shape[0], *sides, x.shape[-1]), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("kfpn")
class ReverseChannels(keras.layers.Layer):
    """Turns R, G, B into B, G, R: (B, H, W, 3) -> (B, H, W, 3)."""

    def call(self, images):
        return ops.take(images, [2, 1, 0], axis=-1)

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)
