"""Builds conv - norm - ReLU units over shared layers; padding is zero where a layer looks at neighbours."""

import dataclasses

import keras

from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import stem_layers
from kfpn.modeling.layers import (
    MaskedBatchNormalization,
    MaskedGroupNormalization,
    PaddingMask,
    PointwiseConv2D,
    SharedLayers,
)

BN_MOMENTUM = 0.9  # PyTorch's BatchNorm2d has 0.1, the weight of the new batch; Keras counts the weight of the old mean


@dataclasses.dataclass(frozen=True)
class ConvUnit:
    """A convolution with its norm, and a ReLU or none.

    Attributes:
        name: its layers are called `name`_conv and `name`_norm.
        filters: int, channels of the output.
        kernel: int, side of the square kernel.
        stride: int, of the output, in pixels of the image.
        step: int, stride of the convolution.
        relu: bool, whether a ReLU follows.
        zero_norm: bool, whether the norm's scale starts at zero: the last one of a residual branch (Goyal et al. 2017, 5.1).
        layer: makes a convolution of step 2.
        clear: bool, whether padding is set to zero behind it. It must be where a layer that looks at neighbours follows; behind 1x1
            convolutions and sums what stands in the padding stays there.
    """

    name: str
    filters: int
    kernel: int
    stride: int
    step: int = 1
    relu: bool = True
    zero_norm: bool = False
    layer: type[keras.layers.Conv2D] = keras.layers.Conv2D
    clear: bool = True


class Units:
    """Builds conv - norm - ReLU units over a set of shared layers; with image sizes, padding is set to zero behind each unit with `clear`.

    Args:
        config: the model's.
        layers: the set the graph is built over.
        image_sizes: (B, 2) int KerasTensor, or None for batches without padding.
    """

    biases = False
    """Whether convolutions before a norm have a bias."""

    def __init__(self, config: ModelConfig, layers: SharedLayers, image_sizes=None):
        self.config = config
        self.layers = layers
        self.image_sizes = image_sizes
        self._masks: dict[int, object] = {}

    def mask(self, like, stride):
        """Returns the mask of a level's valid cells, made once for each stride; None without image sizes."""
        if self.image_sizes is None:
            return None
        if stride not in self._masks:
            make = self.layers(f"mask_{stride}", PaddingMask, stride=stride)
            self._masks[stride] = make(like, self.image_sizes)
        return self._masks[stride]

    def clear_padding(self, x, stride):
        """Returns x with its padding set to zero; x itself without image sizes."""
        mask = self.mask(x, stride)
        return x if mask is None else keras.layers.Multiply()([x, mask])

    def conv(self, x, name, filters, kernel, step=1, layer=keras.layers.Conv2D):
        """Applies a convolution, symmetrically padded: (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), filters)."""
        he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        options = {"filters": filters, "strides": step, "use_bias": self.biases, "kernel_initializer": he}
        if kernel == 1:
            return self.layers(name, PointwiseConv2D, **options)(x)
        if step == 1:
            return self.layers(name, keras.layers.Conv2D, kernel_size=kernel, padding="same", **options)(x)
        x = keras.layers.ZeroPadding2D(kernel // 2)(x)
        return self.layers(name, layer, kernel_size=kernel, padding="valid", **options)(x)

    def norm(self, x, name, stride, zero=False):
        """Applies the configured normalisation; with `zero` its scale starts at zero, but for frozen_bn."""
        kind = self.config.norm
        start = "zeros" if zero and kind != "frozen_bn" else "ones"
        if kind == "gn":
            return self.group_norm(x, name, stride, start)
        layer = self.layers(
            name, MaskedBatchNormalization, momentum=BN_MOMENTUM, epsilon=self.config.norm_epsilon,
            gamma_initializer=start, synchronized=kind == "sync_bn" and keras.backend.backend() == "tensorflow",
        )  # fmt: skip
        mask = None if kind == "frozen_bn" else self.mask(x, stride)
        return layer(x) if mask is None else layer(x, valid=mask)

    def group_norm(self, x, name, stride, start="ones"):
        """Applies GroupNorm over 32 groups (Wu & He 2018), or fewer where there are fewer than 64 channels."""
        groups = min(32, x.shape[-1] // 2)
        layer = self.layers(
            name, MaskedGroupNormalization, groups=groups, epsilon=self.config.norm_epsilon, gamma_initializer=start
        )
        mask = self.mask(x, stride)
        return layer(x) if mask is None else layer(x, valid=mask)

    def conv_and_norm(self, x, unit: ConvUnit):
        """Applies the convolution and the norm of a unit."""
        x = self.conv(x, f"{unit.name}_conv", unit.filters, unit.kernel, unit.step, unit.layer)
        return self.norm(x, f"{unit.name}_norm", unit.stride, unit.zero_norm)

    def max_pool(self, x):
        """Takes the largest of 3x3 cells with stride 2: (B, H, W, C) -> (B, (H - 3) // 2 + 1, (W - 3) // 2 + 1, C)."""
        return stem_layers.MaxPooling2D()(x)

    def unit(self, x, unit: ConvUnit):
        """Applies a unit, and with `unit.clear` sets its padding to zero: (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), filters)."""
        x = self.conv_and_norm(x, unit)
        if unit.relu:
            x = keras.layers.ReLU()(x)
        return self.clear_padding(x, unit.stride) if unit.clear else x
