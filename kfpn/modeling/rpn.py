"""Builds the head of the region proposal network (FPN, section 4.1)."""

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.feature_input import feature_input
from kfpn.modeling.layers import PointwiseConv2D
from kfpn.ops.pyramid_levels import anchors_a_cell


@keras.saving.register_keras_serializable("kfpn")
class FlattenCells(keras.layers.Layer):
    """Puts the anchors of all cells in one row: (B, H, W, A * size) -> (B, H * W * A, size) float32.

    Args:
        size: int, values an anchor; with 1 the last axis is left out.
    """

    def __init__(self, size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = size

    def call(self, x):
        batch = ops.shape(x)[0]
        shape = (batch, -1) if self.size == 1 else (batch, -1, self.size)
        return ops.cast(ops.reshape(x, shape), "float32")

    def compute_output_spec(self, x):
        sides = x.shape[1:]
        count = None if None in sides else sides[0] * sides[1] * sides[2] // self.size
        tail = () if self.size == 1 else (self.size,)
        return keras.KerasTensor((x.shape[0], count, *tail), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class _RPNHead:
    """Applies a 3x3 and two 1x1 to a level: (B, H, W, C) -> logits (B, N_l) and deltas (B, N_l, 4).

    Args:
        filters: int, channels of the 3x3.
        anchors: int, A, anchors a cell.
        suffix: of the layers' names, where each level has its own head.
    """

    def __init__(self, filters, anchors, suffix=""):
        def options(filters):
            # Each layer has its own initializer, because one instance would give both the same weights.
            return {"filters": filters, "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}

        self._conv = keras.layers.Conv2D(
            kernel_size=3, padding="same", activation="relu", name=f"rpn_conv{suffix}", **options(filters)
        )
        # These layers are float32 in mixed precision as well: half precision has so few digits that many logits would be
        # equal, and proposals could not be ranked.
        self._to_logits = PointwiseConv2D(name=f"rpn_logits{suffix}", dtype="float32", **options(anchors))
        self._to_deltas = PointwiseConv2D(name=f"rpn_deltas{suffix}", dtype="float32", **options(4 * anchors))
        self._flatten_logits, self._flatten_deltas = FlattenCells(1), FlattenCells(4)

    def __call__(self, level):
        x = self._conv(level)
        return self._flatten_logits(self._to_logits(x)), self._flatten_deltas(self._to_deltas(x))


def rpn_head(config: ModelConfig, channels: int) -> keras.Model:
    """Builds the submodel `rpn`: {"P2": (B, H, W, C), ...} -> {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]} by level.

    Anchors are ordered (y, x, size, ratio), as `grid_anchors` gives them. Outputs are float32. The 3x3 is as wide as the
    levels (detectron2's StandardRPNHead).

    Args:
        config: the model's.
        channels: int, of every level.
    """
    anchors = anchors_a_cell(config)
    inputs = {level: feature_input((None, None, channels), level) for level in config.levels}
    if config.shared_rpn:
        by_level = dict.fromkeys(inputs, _RPNHead(channels, anchors))
    else:
        by_level = {level: _RPNHead(channels, anchors, f"_{level.lower()}") for level in inputs}
    logits, deltas = zip(*(by_level[level](inputs[level]) for level in inputs), strict=True)
    return keras.Model(inputs, {"logits": list(logits), "deltas": list(deltas)}, name="rpn")
