"""The Feature Pyramid Network (Lin et al. 2017, figure 3): laterals, top-down sums, output convolutions."""

import keras
from keras import ops

from kfpn.modeling.layers import PointwiseConv2D
from kfpn.modeling.resnet import Units

LEVELS = ("P2", "P3", "P4", "P5", "P6")


@keras.saving.register_keras_serializable("kfpn")
class UpsampleAdd(keras.layers.Layer):
    """Doubles the coarser map by nearest neighbours, cuts it to the lateral's size and adds it.

    Call:
        coarse: (B, ceil(H / 2), ceil(W / 2), C). lateral: (B, H, W, C).
    Returns:
        (B, H, W, C).
    """

    def call(self, coarse, lateral):
        shape = ops.shape(coarse)
        height, width, channels = shape[1], shape[2], coarse.shape[-1]
        # Broadcasting copies each cell four times; XLA fuses it with the sum.
        doubled = ops.broadcast_to(coarse[:, :, None, :, None, :], (shape[0], height, 2, width, 2, channels))
        doubled = ops.reshape(doubled, (shape[0], height * 2, width * 2, channels))
        fine = ops.shape(lateral)
        return lateral + doubled[:, : fine[1], : fine[2]]

    def compute_output_spec(self, coarse, lateral):
        return keras.KerasTensor(lateral.shape, dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("kfpn")
class Subsample(keras.layers.Layer):
    """Takes every second cell: P6 of P5 (section 4.1, footnote 2). (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""

    def call(self, x):
        return x[:, ::2, ::2]

    def compute_output_spec(self, x):
        batch, height, width, channels = x.shape
        sides = (None if n is None else -(-n // 2) for n in (height, width))
        return keras.KerasTensor((batch, *sides, channels), dtype=self.compute_dtype)


def _options(filters):
    # Caffe2's XavierFill, with which detectron2 starts the pyramid.
    return {"filters": filters, "kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")}


def lateral(units: Units, x, level):
    """The 1x1 that brings C`level` to the pyramid's channels."""
    stride = 2**level
    x = units.layers(f"lateral_{level}", PointwiseConv2D, **_options(units.config.pyramid_channels))(x)
    if units.config.norm_heads:
        x = units.group_norm(x, f"lateral_{level}_norm", stride)
    return units.clear_padding(x, stride)


def smooth(units: Units, x, level):
    """The 3x3 that makes P`level` of a merged map."""
    options = _options(units.config.pyramid_channels)
    x = units.layers(f"output_{level}", keras.layers.Conv2D, kernel_size=3, padding="same", **options)(x)
    if units.config.norm_heads:
        x = units.group_norm(x, f"output_{level}_norm", 2**level)
    return units.clear_padding(x, 2**level)


def pyramid(units: Units, stages) -> dict:
    """Returns {"P2": ..., "P6": ...}, (B, H / stride, W / stride, channels), of [C2, C3, C4, C5]."""
    laterals = [lateral(units, stage, level) for level, stage in enumerate(stages, start=2)]
    merged = [laterals[-1]]
    for finer, level in zip(laterals[-2::-1], (4, 3, 2), strict=True):
        x = units.layers(f"merge_{level}", UpsampleAdd)(merged[0], finer)
        merged.insert(0, units.clear_padding(x, 2**level))
    outputs = {f"P{level}": smooth(units, x, level) for level, x in enumerate(merged, start=2)}
    outputs["P6"] = units.layers("subsample_6", Subsample)(outputs["P5"])
    return outputs
