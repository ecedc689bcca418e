"""Builds the pyramids of the paper's tables 1 to 3, each from a few small parts (Lin et al. 2017, figures 1 to 3)."""

from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from kfpn.modeling.layers import PointwiseConv2D
from kfpn.modeling.units import Units
from kfpn.ops.padding import valid_cells


def _enlarge_nearest(coarse, height, width):
    """Repeats each cell four times, and cuts the map to the size: (B, h, w, C) -> (B, height, width, C)."""
    shape, channels = ops.shape(coarse), coarse.shape[-1]
    # Broadcasting copies each cell four times; XLA fuses it with what follows.
    doubled = ops.broadcast_to(coarse[:, :, None, :, None, :], (shape[0], shape[1], 2, shape[2], 2, channels))
    return ops.reshape(doubled, (shape[0], shape[1] * 2, shape[2] * 2, channels))[:, :height, :width]


def _bilinear_matrix(fine, coarse, fine_cells, coarse_cells, dtype):
    """Returns the weights of bilinear interpolation along one axis, with half-pixel centres: (B, fine, coarse).

    Args:
        fine, coarse: int, cells of the maps with their padding.
        fine_cells, coarse_cells: (B,) int, the cells that the images fill; samples beyond them are clamped.
        dtype: of the weights.
    """
    ratio = ops.cast(coarse_cells, "float32") / ops.cast(fine_cells, "float32")
    at = (ops.arange(fine, dtype="float32") + 0.5) * ratio[:, None] - 0.5
    at = ops.minimum(ops.maximum(at, 0.0), ops.cast(coarse_cells, "float32")[:, None] - 1.0)
    distance = ops.abs(at[..., None] - ops.arange(coarse, dtype="float32"))
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)


def _enlarge_bilinear(coarse, height, width, fine_cells, coarse_cells):
    """Resizes by two matrix products: (B, h, w, C) -> (B, height, width, C); the cells are (B or 1, 2) int."""
    _, rows, columns, _ = ops.shape(coarse)
    down = _bilinear_matrix(height, rows, fine_cells[:, 0], coarse_cells[:, 0], coarse.dtype)
    across = _bilinear_matrix(width, columns, fine_cells[:, 1], coarse_cells[:, 1], coarse.dtype)
    stretched = ops.matmul(down[:, None], ops.transpose(coarse, (0, 3, 1, 2)))
    return ops.transpose(ops.matmul(stretched, ops.transpose(across[:, None], (0, 1, 3, 2))), (0, 2, 3, 1))


@keras.saving.register_keras_serializable("kfpn")
class Upsample(keras.layers.Layer):
    """Enlarges a map to the size of the next finer one.

    Args:
        upsampling: "nearest" doubles the map and cuts it (FPN, section 3); "bilinear" resizes it, half-pixel centres.
        stride: int, of the finer map, in pixels; "bilinear" derives from it how many cells an image fills.

    Call:
        coarse: (B, ceil(H / 2), ceil(W / 2), C).
        fine: (B, H, W, any).
        image_sizes: (B, 2) int pixels, or None where no image has padding.

    Returns:
        (B, H, W, C).
    """

    def __init__(self, upsampling="nearest", stride=4, **kwargs):
        super().__init__(**kwargs)
        self.upsampling = upsampling
        self.stride = stride

    def enlarged(self, coarse, fine, image_sizes=None):
        """Returns the enlarged map; subclasses compute it in other ways."""
        _, height, width, _ = ops.shape(fine)
        if self.upsampling == "nearest":
            return _enlarge_nearest(coarse, height, width)
        if image_sizes is None:
            cells = (
                ops.stack([ops.convert_to_tensor(side, "int32") for side in ops.shape(x)[1:3]])[None]
                for x in (fine, coarse)
            )
        else:
            cells = (valid_cells(image_sizes, stride) for stride in (self.stride, 2 * self.stride))
        return _enlarge_bilinear(coarse, height, width, *cells)

    def call(self, coarse, fine, image_sizes=None):
        return self.enlarged(coarse, fine, image_sizes)

    def compute_output_spec(self, coarse, fine, image_sizes=None):
        return keras.KerasTensor((*fine.shape[:3], coarse.shape[-1]), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "upsampling": self.upsampling, "stride": self.stride}


@keras.saving.register_keras_serializable("kfpn")
class UpsampleAdd(Upsample):
    """Enlarges a map and adds a lateral to it (FPN, figure 3).

    Args:
        merge: "sum", or "average": half of the sum.
        upsampling, stride: see `Upsample`.

    Call:
        coarse: (B, ceil(H / 2), ceil(W / 2), C).
        lateral: (B, H, W, C).
        image_sizes: see `Upsample`.

    Returns:
        (B, H, W, C).
    """

    def __init__(self, merge="sum", **kwargs):
        super().__init__(**kwargs)
        self.merge = merge

    def call(self, coarse, lateral, image_sizes=None):
        both = lateral + self.enlarged(coarse, lateral, image_sizes)
        return both if self.merge == "sum" else both * 0.5

    def get_config(self):
        return {**super().get_config(), "merge": self.merge}


@keras.saving.register_keras_serializable("kfpn")
class Subsample(keras.layers.Layer):
    """Takes every second cell, P6 of P5 (section 4.1, footnote 2): (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""

    def call(self, x):
        return x[:, ::2, ::2]

    def compute_output_spec(self, x):
        batch, height, width, channels = x.shape
        sides = (None if n is None else -(-n // 2) for n in (height, width))
        return keras.KerasTensor((batch, *sides, channels), dtype=self.compute_dtype)


def _conv_options(filters):
    # detectron2 starts the pyramid with Caffe2's XavierFill.
    return {"filters": filters, "kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")}


def lateral(units: Units, x, level):
    """Applies the 1x1 that brings C`level` to the pyramid's channels."""
    x = units.layers(f"lateral_{level}", PointwiseConv2D, **_conv_options(units.config.pyramid_channels))(x)
    return units.group_norm(x, f"lateral_{level}_norm", 2**level) if units.config.norm_heads else x


def smooth(units: Units, x, level):
    """Applies the 3x3 that makes P`level` of a merged map. What stands in the padding of the map is cleared before and behind it."""
    options = _conv_options(units.config.pyramid_channels)
    x = units.clear_padding(x, 2**level)
    x = units.layers(f"output_{level}", keras.layers.Conv2D, kernel_size=3, padding="same", **options)(x)
    if units.config.norm_heads:
        x = units.group_norm(x, f"output_{level}_norm", 2**level)
    return units.clear_padding(x, 2**level)


def laterals(units: Units, stages) -> list:
    """Returns the laterals of [C2, C3, C4, C5], the finest first."""
    return [lateral(units, stage, level) for level, stage in enumerate(stages, start=2)]


def _upsampling(units: Units, level) -> dict:
    return {"upsampling": units.config.upsampling, "stride": 2**level}


def _enlarge(units: Units, layer: Upsample, coarse, fine):
    # Nearest neighbours need no sizes; without them the layer is called alike in the padded and the unpadded graph.
    sized = units.config.upsampling == "bilinear" and units.image_sizes is not None
    return layer(coarse, fine, image_sizes=units.image_sizes) if sized else layer(coarse, fine)


def add_top_down(units: Units, maps) -> list:
    """Applies the top-down path: from the coarsest map on, each is enlarged and added to the next finer one."""
    merged = [maps[-1]]
    for level in range(len(maps), 1, -1):
        layer = units.layers(f"merge_{level}", UpsampleAdd, merge=units.config.merge, **_upsampling(units, level))
        merged.insert(0, _enlarge(units, layer, merged[0], maps[level - 2]))
    return merged


def smoothed(units: Units, maps) -> dict:
    """Applies the output convolutions, and makes P6: {"P2": ..., "P6": ...}."""
    config, last = units.config, len(maps) + 1
    outputs = {
        f"P{level}": units.clear_padding(x, 2**level)
        if level == last and not config.smooth_p5
        else smooth(units, x, level)
        for level, x in enumerate(maps, start=2)
    }
    if config.p6:
        outputs["P6"] = units.layers("subsample_6", Subsample)(outputs["P5"])
    return outputs


def fpn(units: Units, stages) -> dict:
    """Builds row (c): laterals, top-down path and output convolutions (figure 3)."""
    return smoothed(units, add_top_down(units, laterals(units, stages)))


def bottom_up(units: Units, stages) -> dict:
    """Builds row (d): laterals and output convolutions alone, the hierarchy that SSD uses (figure 1c)."""
    return smoothed(units, laterals(units, stages))


def top_down(units: Units, stages) -> dict:
    """Builds row (e): the top-down path of C5's lateral, with no other laterals."""
    maps = [lateral(units, stages[-1], 5)]
    for level in (4, 3, 2):
        layer = units.layers(f"upsample_{level}", Upsample, **_upsampling(units, level))
        maps.insert(0, _enlarge(units, layer, maps[0], stages[level - 2]))
    return smoothed(units, maps)


def finest(units: Units, stages) -> dict:
    """Builds row (f): the finest level of `fpn` alone (figure 2, top)."""
    return {"P2": smooth(units, add_top_down(units, laterals(units, stages))[0], 2)}


def single_stage(units: Units, stages) -> dict:
    """Builds rows (a) and (b): the last stage, its padding cleared (figure 1b)."""
    last = len(stages) + 1
    return {f"C{last}": units.clear_padding(stages[-1], 2**last)}


class PyramidKind(NamedTuple):
    """One row of the table of pyramids.

    Attributes:
        build: function (units, [C2, C3, ...]) -> {name: level}, with padding of zeros, whatever the stages hold there; the names those of `ModelConfig.levels` in their order:
            P2 to P5 and, unless `p6` is off, P6.
        last_stage: int, the number of the last backbone stage below it.
    """

    build: Callable[[Units, list], dict]
    last_stage: int = 5


PYRAMIDS = {
    "fpn": PyramidKind(fpn),
    "bottom_up": PyramidKind(bottom_up),
    "top_down": PyramidKind(top_down),
    "finest": PyramidKind(finest),
    "c4": PyramidKind(single_stage, last_stage=4),  # the next stage is the box head
    "c5": PyramidKind(single_stage),
}
"""`ModelConfig.pyramid` -> how it is built."""
