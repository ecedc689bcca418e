"""Builds the mask head: convolutions on larger RoIs, a mask for each class (Mask R-CNN, He et al. 2017, figure 4 right)."""

from collections.abc import Callable

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.feature_input import feature_input
from kfpn.modeling.layers import PointwiseConv2D, SharedLayers
from kfpn.modeling.units import Units

LOOKS_AT = "detections"
POOLED = 14
"""Cells of the pooled RoIs, a side."""
MASK_SIDE = 2 * POOLED
"""M: cells of a mask, a side."""
CONVOLUTIONS = 4


@keras.saving.register_keras_serializable("kfpn")
class Deconvolution(keras.layers.Conv2DTranspose):
    """Computes a 2x2 `Conv2DTranspose` of stride 2 as one matrix product: each cell becomes 2 x 2 cells.

    A transposed convolution takes XLA on CPUs longer than all four convolutions before it.

    Args:
        filters: int, channels of the output.
        kwargs: bias, activation and initializers as `keras.layers.Conv2DTranspose` has them. The kernel's size, strides, padding and
            order of axes are fixed.

    Call:
        inputs: (R, H, W, C), of known H, W and C.

    Returns:
        (R, 2 H, 2 W, filters).
    """

    def __init__(self, filters, **kwargs):
        fixed = {"kernel_size": 2, "strides": 2, "padding": "valid", "data_format": "channels_last"}
        super().__init__(filters, **{**kwargs, **fixed})

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        kernel = ops.reshape(ops.transpose(self.kernel, (3, 0, 1, 2)), (channels, 4 * self.filters))
        cells = ops.matmul(ops.reshape(inputs, (-1, channels)), kernel)
        cells = ops.reshape(cells, (-1, height, width, 2, 2, self.filters))
        cells = ops.reshape(ops.transpose(cells, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, self.filters))
        return self.activation(cells if self.bias is None else cells + self.bias)


def channels_of_masks(config: ModelConfig) -> int:
    """Returns how many channels the head's convolutions have."""
    return config.mask_channels or config.pyramid_channels


def _he_normal() -> keras.initializers.Initializer:
    """Returns a new initializer for a convolution: He's normal by the fan-out, as in torchvision and detectron2."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def mask_features(config: ModelConfig, units: Units, x):
    """Applies the convolutions with ReLU: (R, 14, 14, C) -> (R, 14, 14, `channels_of_masks`)."""
    for i in range(1, CONVOLUTIONS + 1):
        name, channels = f"mask_conv{i}", channels_of_masks(config)
        # A new initializer for each layer: one that is shared would give all of them the same weights.
        x = keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer=_he_normal(), name=name)(x)
        if config.norm_heads:
            x = units.group_norm(x, f"{name}_norm", POOLED)
        x = keras.layers.ReLU(name=f"mask_relu{i}")(x)
    return x


def build(config: ModelConfig, channels: int, layers: SharedLayers, make_units: type[Units] = Units) -> keras.Model:
    """Builds the submodel `mask_head`: (R, 14, 14, C) -> (R, M, M, K) logits, float32, M = 28.

    K is 1 where `mask_classes` is "agnostic".

    Args:
        config: the model's.
        channels: int, C, of the levels that RoIs are pooled from.
        layers: the set that the backbone is built over.
        make_units: builds the norms.
    """
    inputs = feature_input((POOLED, POOLED, channels), "mask_roi_features")
    x = mask_features(config, make_units(config, layers), inputs)
    x = Deconvolution(channels_of_masks(config), kernel_initializer=_he_normal(), name="mask_deconv")(x)
    x = keras.layers.ReLU(name="mask_relu5")(x)
    classes = config.num_classes if config.mask_classes == "each" else 1
    start = keras.initializers.RandomNormal(stddev=0.001)
    logits = PointwiseConv2D(classes, kernel_initializer=start, name="mask_logits", dtype="float32")(x)
    return keras.Model(inputs, logits, name="mask_head")


def own_logits(logits, labels):
    """Takes each row's mask of its own class: (R, M, M, K) and (R,) int labels -> (R, M, M).

    A label outside of 0..K-1 gives zeros. With one mask for all classes (K = 1) each row has that one.

    Args:
        logits: (R, M, M, K) float.
        labels: (R,) int.
    """
    classes = logits.shape[-1]
    if classes == 1:
        return logits[..., 0]
    # Compared, because one_hot refuses the label -1 of empty rows on some backends.
    own = ops.cast(ops.equal(labels[:, None], ops.arange(classes, dtype=labels.dtype)[None]), logits.dtype)
    return ops.sum(logits * own[:, None, None, :], axis=-1)


@keras.saving.register_keras_serializable("kfpn")
class DetectionMasks(keras.layers.Layer):
    """Gives each detection the mask of its class.

    Call:
        logits: (B D, M, M, K) float32.
        labels: (B, D) int32, -1 in empty rows.

    Returns:
        (B, D, M, M) float32 in 0..1, zeros in empty rows.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, logits, labels):
        side, rows = logits.shape[1], labels.shape[1]
        masks = ops.sigmoid(own_logits(logits, ops.reshape(labels, (-1,))))
        masks = ops.reshape(masks, (-1, rows, side, side))
        return masks * ops.cast(labels >= 0, masks.dtype)[..., None, None]

    def compute_output_spec(self, logits, labels):
        return keras.KerasTensor((*labels.shape, *logits.shape[1:3]), dtype="float32")


def select(config: ModelConfig, nms: str = "rounds") -> Callable:
    """Returns the function (outputs, detections, image_sizes) -> {"masks": (B, D, M, M)}, see `kfpn.modeling.heads`.

    Args:
        config: not used by this head.
        nms: not used by this head.
    """
    layer = DetectionMasks(name="masks", dtype="float32")

    def masks_of(outputs, detections: dict, image_sizes) -> dict:
        return {"masks": layer(outputs, detections["labels"])}

    return masks_of
