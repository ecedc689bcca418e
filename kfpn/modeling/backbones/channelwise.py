"""Computes convolutions of one channel a group in the form that every processor and ONNX know: as depthwise ones."""

from collections.abc import Callable

import keras
from keras import ops


@keras.saving.register_keras_serializable("kfpn")
class ChannelwiseConv2D(keras.layers.Conv2D):
    """Computes what a `Conv2D` with as many groups as channels and filters computes, with the same weights.

    On TensorFlow's CPU, `Conv2D` gives groups to XLA. That is many times slower than a depthwise convolution, and what XLA compiles can't
    become ONNX.

    Args:
        those of `keras.layers.Conv2D`; `groups` and `filters` are the channels of the input.

    Call:
        inputs: (B, H, W, C).

    Returns:
        (B, H', W', C).
    """

    def convolution_op(self, inputs, kernel):
        """Returns the convolution of `inputs` with `kernel` (kh, kw, 1, C)."""
        return ops.depthwise_conv(
            inputs,
            ops.transpose(kernel, (0, 1, 3, 2)),
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


def is_channelwise(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer is a plain `Conv2D` whose groups have one channel, and that gives one map for each."""
    if type(layer) is not keras.layers.Conv2D or layer.groups == 1 or layer.groups != layer.filters:
        return False
    return layer.kernel.shape[-2] == 1  # channels of a group


def has_channelwise(model: keras.Model) -> bool:
    """Tells whether a functional model has layers for which `is_channelwise` holds, nested models included."""
    return any(has_channelwise(one) if isinstance(one, keras.Model) else is_channelwise(one) for one in model.layers)


def as_channelwise(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a copy of a layer with fresh weights, which is a `ChannelwiseConv2D` where that computes the same."""
    kind = ChannelwiseConv2D if is_channelwise(layer) else type(layer)
    return kind.from_config(layer.get_config())


def copied(model: keras.Model, copy_layer: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    """Returns a copy of a functional model with its weights, each of whose layers is what `copy_layer` makes of it."""
    copy = keras.models.clone_model(model, clone_function=copy_layer, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
