"""Builds the heads of segments: a hidden layer on a window's cells, and on it a mask and a score (FPN, section 6)."""

from typing import NamedTuple

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.feature_input import feature_input
from kfpn.ops.segment_windows import CELLS


@keras.saving.register_keras_serializable("kfpn")
class WindowConv2D(keras.layers.Conv2D):
    """Computes a valid `Conv2D`; of windows by themselves as one matrix product, whose gradient is far faster on CPUs.

    Args:
        filters, kernel_size, and all others of `keras.layers.Conv2D`; padding is "valid", data are channels-last.

    Call:
        inputs: (B, H, W, C); or windows (R, size, size, C) of the kernel's size.

    Returns:
        (B, H - size + 1, W - size + 1, filters); of windows (R, 1, 1, filters).
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "valid", "data_format": "channels_last"})

    def call(self, inputs):
        if tuple(inputs.shape[1:3]) != self.kernel_size:
            return super().call(inputs)
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        outputs = ops.matmul(ops.reshape(inputs, (-1, kernel.shape[0])), kernel)
        outputs = outputs if self.bias is None else outputs + self.bias
        return self.activation(outputs)[:, None, None]


class WindowHead(NamedTuple):
    """The functional models of one kind of window, whose weights all levels share.

    Attributes:
        hidden: (B, H, W, C) -> (B, H - cells + 1, W - cells + 1, width).
        score: (B, H, W, width) -> (B, H, W, 1) logits, float32.
        mask: (B, H, W, width) -> (B, H, W, M M) logits, float32, row after row of the mask.
    """

    hidden: keras.Model
    score: keras.Model
    mask: keras.Model


def window_head(config: ModelConfig, channels: int, kind: str) -> WindowHead:
    """Builds the head of one kind of window.

    Args:
        config: the model's.
        channels: int, C, of every level.
        kind: "5x5" or "7x7".
    """
    width, inputs = config.segment_width, feature_input((None, None, channels), f"cells_{kind}")
    start = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")  # as the box head's layers begin
    x = WindowConv2D(width, CELLS[kind], kernel_initializer=start, name=f"segment_{kind}_conv")(inputs)
    if config.norm_heads:
        x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"segment_{kind}_norm")(x)
    x = keras.layers.ReLU(name=f"segment_{kind}_relu")(x)
    hidden = keras.Model(inputs, x, name=f"segment_hidden_{kind}")
    return WindowHead(
        hidden,
        _sibling(width, 1, 0.01, f"segment_score_{kind}"),
        _sibling(width, config.segment_side**2, 0.001, f"segment_mask_{kind}"),
    )


def _sibling(width: int, units: int, stddev: float, name: str) -> keras.Model:
    """Builds a fully connected layer on the hidden one, float32 in mixed precision as well."""
    inputs = feature_input((None, None, width), f"{name}_hidden")
    start = keras.initializers.RandomNormal(stddev=stddev)
    dense = keras.layers.Dense(units, kernel_initializer=start, name=f"{name}_logits", dtype="float32")
    return keras.Model(inputs, dense(inputs), name=name)
