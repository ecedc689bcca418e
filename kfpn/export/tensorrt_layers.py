"""Replaces layers by formulations that TensorRT takes: the same weights and numbers, other operations."""

import keras
import numpy as np
from keras import ops

from kfpn.modeling.heads.mask import Deconvolution
from kfpn.modeling.layers import MaskedGroupNormalization, PointwiseConv2D
from kfpn.modeling.pyramid import Upsample, UpsampleAdd
from kfpn.modeling.submodels import Submodels

LARGEST_TOP_K = 3840
"""Largest k of TensorRT's TopK (nvinfer1::ITopKLayer)."""


class Resize(Upsample):
    """`Upsample` by ResizeNearestNeighbor, which TF-TRT converts.

    It has no converter for BroadcastTo, which would cut the pyramid into four segments.
    A map of unknown size is resized to the size of the finer map, so that nothing has to be cut off: for H = 2 h - 1 too,
    row i comes from floor(i h / H), which is i // 2. A map of known size is doubled and cut, because ONNX's Resize takes a
    factor, and 5 / 3 of 3 rows are 4 rows. Bilinear enlargement stays two matrix products.

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
    """`UpsampleAdd` that enlarges as `Resize` does."""


class AsConvolution(keras.layers.Layer):
    """Computes a layer that is written as a matrix product as the convolution that it stands for, with that layer's weights.

    TensorRT keeps a chain of convolutions in one layout and fuses bias and ReLU into them. A matrix product between two
    convolutions would need a transposition before and behind it, and would not be computed in INT8.

    Args:
        product: the layer.
    """

    def __init__(self, product: PointwiseConv2D | Deconvolution):
        super().__init__(name=product.name, dtype=product.dtype_policy)
        self.product = product
        self.built = True

    def call(self, inputs):
        """Returns what the layer returns."""
        layer = self.product
        convolve = ops.conv_transpose if isinstance(layer, Deconvolution) else ops.conv
        outputs = convolve(inputs, layer.kernel, strides=layer.strides, padding="valid", data_format="channels_last")
        if layer.bias is not None:
            outputs = ops.add(outputs, layer.bias)
        return layer.activation(outputs)

    def compute_output_spec(self, inputs):
        """Returns the shape and dtype that the layer's output has."""
        return self.product.compute_output_spec(inputs)


class GroupNormByProducts(keras.layers.Layer):
    """Computes a group norm with its groups' means as products with a matrix, with that layer's weights.

    OpenVINO can't follow an unknown number of RoIs through the reshapes of one group norm behind another.

    Args:
        norm: the layer, of maps without padding.
    """

    def __init__(self, norm: MaskedGroupNormalization):
        super().__init__(name=norm.name, dtype=norm.dtype_policy)
        self.norm = norm
        self.built = True

    def call(self, inputs):
        """Returns (R, H, W, C) of the same."""
        norm, x = self.norm, ops.cast(inputs, "float32")
        size = inputs.shape[-1] // norm.groups
        of_group = np.kron(np.eye(norm.groups), np.full((size, size), 1.0 / size)).astype("float32")
        centred = x - ops.matmul(ops.mean(x, axis=(1, 2)), of_group)[:, None, None]
        variance = ops.matmul(ops.mean(ops.square(centred), axis=(1, 2)), of_group)[:, None, None]
        outputs = centred * ops.rsqrt(variance + norm.epsilon) * norm.gamma + norm.beta
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_spec(self, inputs):
        """Returns the shape and dtype that the layer's output has."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)


def _mask_head_layer(layer):
    return GroupNormByProducts(layer) if isinstance(layer, MaskedGroupNormalization) else _tensorrt_layer(layer)


def _tensorrt_layer(layer):
    if isinstance(layer, PointwiseConv2D | Deconvolution):
        return AsConvolution(layer)
    if isinstance(layer, Upsample):
        return (ResizeAdd if isinstance(layer, UpsampleAdd) else Resize).from_config(layer.get_config())
    return layer


def for_tensorrt(submodels: Submodels) -> Submodels:
    """Returns submodels over the same weights in the formulations that TensorRT takes.

    Args:
        submodels: with folded norms. `weights_model` is returned unchanged.
    """
    features, padded, rpn = (
        keras.models.clone_model(model, clone_function=_tensorrt_layer)
        for model in (submodels.features, submodels.padded_features, submodels.rpn)
    )
    heads = {
        name: keras.models.clone_model(head, clone_function=_mask_head_layer if name == "mask" else _tensorrt_layer)
        for name, head in submodels.heads.items()
    }
    return submodels._replace(features=features, padded_features=padded, rpn=rpn, heads=heads)
