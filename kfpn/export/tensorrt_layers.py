"""Replaces layers by formulations that TensorRT and OpenVINO take: the same weights and numbers, other operations."""

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


class Reformulated(keras.layers.Layer):
    """Gives the numbers of a layer by other operations, with that layer's weights.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def compute_output_spec(self, inputs):
        """Returns the shape and dtype that the layer's output has."""
        return self.layer.compute_output_spec(inputs)


class AsConvolution(Reformulated):
    """Computes a `PointwiseConv2D` or a `Deconvolution`, which are written as matrix products, as the convolution that it stands for.

    TensorRT keeps a chain of convolutions in one layout and fuses bias and ReLU into them. A matrix product between two
    convolutions would need a transposition before and behind it, and would not be computed in INT8.
    """

    def call(self, inputs):
        """Returns what the layer returns."""
        layer = self.layer
        convolve = ops.conv_transpose if isinstance(layer, Deconvolution) else ops.conv
        outputs = convolve(inputs, layer.kernel, strides=layer.strides, padding="valid", data_format="channels_last")
        if layer.bias is not None:
            outputs = ops.add(outputs, layer.bias)
        return layer.activation(outputs)


class GroupNormByProducts(Reformulated):
    """Computes a `MaskedGroupNormalization` of maps without padding, the means over its groups as products with a matrix.

    OpenVINO loses the unknown number of RoIs in the reshapes of a group norm where one norm follows another.
    """

    def call(self, inputs):
        """Returns the normalised maps: (R, H, W, C), computed in float32."""
        norm, x = self.layer, ops.cast(inputs, "float32")
        size = inputs.shape[-1] // norm.groups
        # A product of (R, C) with this (C, C) matrix gives each channel the mean over the channels of its group.
        mean_of_group = np.kron(np.eye(norm.groups), np.full((size, size), 1.0 / size)).astype("float32")
        centred = x - ops.matmul(ops.mean(x, axis=(1, 2)), mean_of_group)[:, None, None]
        variance = ops.matmul(ops.mean(ops.square(centred), axis=(1, 2)), mean_of_group)[:, None, None]
        normal = centred * ops.rsqrt(variance + norm.epsilon)
        normal = normal * ops.cast(norm.gamma, "float32") + ops.cast(norm.beta, "float32")
        return ops.cast(normal, self.compute_dtype)


def _tensorrt_layer(layer):
    if isinstance(layer, PointwiseConv2D | Deconvolution):
        return AsConvolution(layer)
    if isinstance(layer, Upsample):
        return (ResizeAdd if isinstance(layer, UpsampleAdd) else Resize).from_config(layer.get_config())
    return layer


def _mask_head_layer(layer):
    # The group norms of a box head (pyramid c4) load in OpenVINO as they are.
    return GroupNormByProducts(layer) if isinstance(layer, MaskedGroupNormalization) else _tensorrt_layer(layer)


def features_for_tensorrt(model: keras.Model) -> keras.Model:
    """Returns a fully convolutional model, with folded norms, over the same weights in the formulations that TensorRT takes."""
    return keras.models.clone_model(model, clone_function=_tensorrt_layer)


def for_tensorrt(submodels: Submodels) -> Submodels:
    """Returns submodels over the same weights in the formulations that TensorRT takes, and OpenVINO for the mask head.

    Args:
        submodels: with folded norms. `weights_model` is returned unchanged.
    """
    features, padded, rpn = map(features_for_tensorrt, (submodels.features, submodels.padded_features, submodels.rpn))
    heads = {
        name: keras.models.clone_model(head, clone_function=_mask_head_layer if name == "mask" else _tensorrt_layer)
        for name, head in submodels.heads.items()
    }
    return submodels._replace(features=features, padded_features=padded, rpn=rpn, heads=heads)
