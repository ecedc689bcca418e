"""The detector in the formulations that TF-TRT converts: the same weights, the same numbers, other operations."""

import keras
from keras import ops

from kfpn.modeling.layers import PointwiseConv2D
from kfpn.modeling.pyramid import Upsample, UpsampleAdd
from kfpn.modeling.submodels import Submodels


class Resize(Upsample):
    """`Upsample` by ResizeNearestNeighbor, which has a converter; BroadcastTo has none and cuts the pyramid in four.

    Of unknown size, it is resized to the finer map's own, so that nothing has to be cut off: for H = 2 h - 1 too, row i comes
    from floor(i h / H), which is i // 2. Of known size it is doubled and cut: ONNX's Resize takes a factor, and 5 / 3 of 3
    rows are 4. Bilinear enlargement is two matrix products and stays so.

    Args:
        those of `Upsample`.
    """

    def enlarged(self, coarse, fine, image_sizes=None):
        """Returns the enlarged map."""
        if self.upsampling != "nearest":
            return super().enlarged(coarse, fine, image_sizes)
        import tensorflow as tf

        static = tuple(coarse.shape[1:3]) + tuple(fine.shape[1:3])
        if None in static:
            return tf.raw_ops.ResizeNearestNeighbor(images=coarse, size=tf.shape(fine)[1:3])
        rows, columns, height, width = static
        doubled = tf.raw_ops.ResizeNearestNeighbor(images=coarse, size=tf.constant([2 * rows, 2 * columns]))
        return doubled if (height, width) == (2 * rows, 2 * columns) else doubled[:, :height, :width]


class ResizeAdd(Resize, UpsampleAdd):
    """`UpsampleAdd` by `Resize`."""


class PointwiseAsConv(keras.layers.Layer):
    """A `PointwiseConv2D` as the 1x1 convolution it is, with that layer's weights.

    TensorRT keeps a chain of convolutions in one layout and fuses bias and ReLU into them; a matrix product between two
    convolutions would cost a transposition before and behind it, and INT8.

    Args:
        pointwise: the layer.
    """

    def __init__(self, pointwise: PointwiseConv2D):
        super().__init__(name=pointwise.name, dtype=pointwise.dtype_policy)
        self.pointwise = pointwise
        self.built = True

    def call(self, inputs):
        """Returns (B, ceil(H / stride), ceil(W / stride), filters) of (B, H, W, C)."""
        layer = self.pointwise
        outputs = ops.conv(inputs, layer.kernel, strides=layer.strides, padding="valid", data_format="channels_last")
        if layer.bias is not None:
            outputs = ops.add(outputs, layer.bias)
        return layer.activation(outputs)

    def compute_output_spec(self, inputs):
        """Returns what the layer returns."""
        return self.pointwise.compute_output_spec(inputs)


def _replace(layer):
    if isinstance(layer, PointwiseConv2D):
        return PointwiseAsConv(layer)
    if isinstance(layer, Upsample):
        return (ResizeAdd if isinstance(layer, UpsampleAdd) else Resize).from_config(layer.get_config())
    return layer


def for_tensorrt(submodels: Submodels) -> Submodels:
    """Returns submodels over the same weights in the formulations that TensorRT takes.

    Args:
        submodels: with norms folded; `weights_model` is handed on as it is.
    """
    features, padded, rpn, *heads = (
        keras.models.clone_model(model, clone_function=_replace)
        for model in (submodels.features, submodels.padded_features, submodels.rpn, *submodels.heads.values())
    )
    return submodels._replace(
        features=features, padded_features=padded, rpn=rpn, heads=dict(zip(submodels.heads, heads, strict=True))
    )
