"""ResNet C2-C5 (He et al. 2016, table 1) with symmetric padding, so that foreign weights fit."""

import keras

from kfpn.model_config import ModelConfig
from kfpn.modeling.layers import MaskedBatchNormalization, MaskedGroupNormalization, PointwiseConv2D, SharedLayers
from kfpn.modeling.padding import PaddingMask

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet26": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC = ("resnet18", "resnet34")
BN_MOMENTUM = 0.9  # PyTorch's BatchNorm2d: 0.1, counted the other way round


def frozen_stage(config: ModelConfig):
    """Returns the function that says of a backbone layer's name whether it doesn't train."""
    stages = ["stem", "conv2", "conv3", "conv4", "conv5"][: config.freeze_stages]

    def frozen(name: str) -> bool:
        if config.norm == "frozen_bn" and name.endswith("_norm"):
            return True
        return name.split("_")[0] in stages

    return frozen


class Units:
    """Builds conv - norm - ReLU units over a set of shared layers; with image sizes, padding stays zero.

    Args:
        config: the model's.
        layers: the set the graph is built over.
        image_sizes: (B, 2) int KerasTensor, or None for batches without padding.
    """

    biases = False  # of convolutions that a norm follows

    def __init__(self, config: ModelConfig, layers: SharedLayers, image_sizes=None):
        self.config = config
        self.layers = layers
        self.image_sizes = image_sizes
        self._masks: dict[int, object] = {}

    def mask(self, like, stride):
        """Returns the mask of a level's valid cells, made once a stride; None without image sizes."""
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

    def conv(self, x, name, filters, kernel, step=1):
        """A convolution, symmetrically padded: (B, H, W, C) -> (B, ceil(H / step), .., filters)."""
        he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        options = {"filters": filters, "strides": step, "use_bias": self.biases, "kernel_initializer": he}
        if kernel == 1:
            return self.layers(name, PointwiseConv2D, **options)(x)
        if step == 1:
            return self.layers(name, keras.layers.Conv2D, kernel_size=kernel, padding="same", **options)(x)
        x = keras.layers.ZeroPadding2D(kernel // 2)(x)
        return self.layers(name, keras.layers.Conv2D, kernel_size=kernel, padding="valid", **options)(x)

    def norm(self, x, name, stride, zero=False):
        """The configured normalisation; `zero` starts a residual branch at zero (Goyal et al. 2017, 5.1)."""
        kind = self.config.norm
        start = "zeros" if zero and kind != "frozen_bn" else "ones"
        if kind == "gn":
            return self.group_norm(x, name, stride, start)
        layer = self.layers(
            name, MaskedBatchNormalization, momentum=BN_MOMENTUM, epsilon=self.config.norm_epsilon,
            gamma_initializer=start, synchronized=kind == "sync_bn",
        )  # fmt: skip
        mask = None if kind == "frozen_bn" else self.mask(x, stride)
        return layer(x) if mask is None else layer(x, valid=mask)

    def group_norm(self, x, name, stride, start="ones"):
        """GroupNorm over 32 groups (Wu & He 2018), fewer where there are fewer than 64 channels."""
        groups = min(32, x.shape[-1] // 2)
        layer = self.layers(
            name, MaskedGroupNormalization, groups=groups, epsilon=self.config.norm_epsilon, gamma_initializer=start
        )
        mask = self.mask(x, stride)
        return layer(x) if mask is None else layer(x, valid=mask)

    def unit(self, x, name, filters, kernel, stride, step=1, relu=True, zero=False):
        """conv - norm - (ReLU) with its padding cleared; `stride` is the output's, in pixels."""
        x = self.conv(x, f"{name}_conv", filters, kernel, step)
        x = self.norm(x, f"{name}_norm", stride, zero)
        if relu:
            x = keras.layers.ReLU()(x)
        return self.clear_padding(x, stride)


def stem(units: Units, x):
    """7x7 stride 2, then 3x3 max-pooling stride 2: (B, H, W, 3) -> (B, ceil(H / 4), ceil(W / 4), width)."""
    x = units.unit(x, "stem", units.config.backbone_width, 7, stride=2, step=2)
    # Zeros are below or equal to every ReLU output, so zero padding pools like none.
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="valid")(x)
    return units.clear_padding(x, 4)


def basic_block(units: Units, x, name, filters, stride, step, last=None):
    """Two 3x3 (ResNet-18, 34): (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), filters)."""
    shortcut = x
    if step != 1 or x.shape[-1] != filters:
        shortcut = units.unit(x, f"{name}_shortcut", filters, 1, stride, step, relu=False)
    y = units.unit(x, f"{name}_1", filters, 3, stride, step)
    y = units.unit(y, f"{name}_2", filters, 3, stride, relu=False, zero=True)
    return keras.layers.ReLU(name=last)(keras.layers.Add()([shortcut, y]))


def bottleneck(units: Units, x, name, filters, stride, step, last=None):
    """1x1 - 3x3 - 1x1 (ResNet-26, 50 and up): (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), 4 filters)."""
    on_1x1 = units.config.stride_on == "1x1"
    shortcut = x
    if step != 1 or x.shape[-1] != 4 * filters:
        shortcut = units.unit(x, f"{name}_shortcut", 4 * filters, 1, stride, step, relu=False)
    before = stride if on_1x1 else stride // step
    y = units.unit(x, f"{name}_1", filters, 1, before, step if on_1x1 else 1)
    y = units.unit(y, f"{name}_2", filters, 3, stride, 1 if on_1x1 else step)
    y = units.unit(y, f"{name}_3", 4 * filters, 1, stride, relu=False, zero=True)
    return keras.layers.ReLU(name=last)(keras.layers.Add()([shortcut, y]))


def residual_stage(units: Units, x, number):
    """The blocks conv`number`_x: (B, H, W, C) -> (B, ceil(H / 2), .., C'), with H as it is in conv2_x; its end is called C`number`."""
    backbone = units.config.backbone
    block = basic_block if backbone in BASIC else bottleneck
    count = BLOCKS[backbone][number - 2]
    for i in range(count):
        step = 2 if number > 2 and i == 0 else 1
        last = f"C{number}" if i == count - 1 else None
        x = block(
            units, x, f"conv{number}_{i + 1}", units.config.backbone_width * 2 ** (number - 2), 2**number, step, last
        )
    return x


def resnet(units: Units, images, stages=(2, 3, 4, 5)) -> list:
    """Returns [C2, C3, C4, C5], or the first of them, of normalised images (B, H, W, 3): strides 4, 8, 16, 32."""
    x, found = stem(units, images), []
    for number in stages:
        x = residual_stage(units, x, number)
        found.append(x)
    return found
