"""Builds ResNet C2-C5 (He et al. 2016, table 1) with symmetric padding, so that foreign weights fit."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from kfpn.modeling.backbones import stem_layers
from kfpn.modeling.layers import Normalize
from kfpn.modeling.units import ConvUnit, Units

STAGES = ("stem", "conv2", "conv3", "conv4", "conv5")


class Block(NamedTuple):
    """One residual block of a stage.

    Attributes:
        name: of its layers, like `conv3_1`.
        filters: int, channels of its 3x3 convolutions.
        stride: int, of its output, in pixels.
        step: int, 2 where it halves the map, else 1.
        output_name: of its last layer; None lets Keras number it.
    """

    name: str
    filters: int
    stride: int
    step: int = 1
    output_name: str | None = None


def basic_block(units: Units, x, block: Block):
    """Applies two 3x3: (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), filters)."""
    name, filters, stride, step, output_name = block
    shortcut = _shortcut(units, x, block, filters)
    y = units.unit(x, ConvUnit(f"{name}_1", filters, 3, stride, step))
    y = units.unit(y, ConvUnit(f"{name}_2", filters, 3, stride, relu=False, zero_norm=True))
    return keras.layers.ReLU(name=output_name)(keras.layers.Add()([shortcut, y]))


def bottleneck(units: Units, x, block: Block):
    """Applies 1x1, 3x3 and 1x1: (B, H, W, C) -> (B, ceil(H / step), ceil(W / step), 4 filters)."""
    name, filters, stride, step, output_name = block
    first_step, second_step = (step, 1) if units.config.stride_on == "1x1" else (1, step)
    shortcut = _shortcut(units, x, block, 4 * filters, clear=False)
    y = units.unit(x, ConvUnit(f"{name}_1", filters, 1, stride // second_step, first_step))
    y = units.unit(y, ConvUnit(f"{name}_2", filters, 3, stride, second_step, clear=False))
    y = units.unit(y, ConvUnit(f"{name}_3", 4 * filters, 1, stride, relu=False, zero_norm=True, clear=False))
    return keras.layers.ReLU(name=output_name)(keras.layers.Add()([shortcut, y]))


def _shortcut(units: Units, x, block: Block, channels: int, clear: bool = True):
    if block.step == 1 and x.shape[-1] == channels:
        return x
    return units.unit(
        x, ConvUnit(f"{block.name}_shortcut", channels, 1, block.stride, block.step, relu=False, clear=clear)
    )


class ResNet(NamedTuple):
    """One row of the table of ResNets.

    Attributes:
        block: builds a residual block: `basic_block` or `bottleneck`.
        counts: blocks of the stages conv2_x to conv5_x.
    """

    block: Callable
    counts: tuple[int, int, int, int]

    @property
    def is_basic(self) -> bool:
        """Whether the blocks are two 3x3 and not bottlenecks."""
        return self.block is basic_block


RESNETS = {
    "resnet18": ResNet(basic_block, (2, 2, 2, 2)),
    "resnet26": ResNet(bottleneck, (2, 2, 2, 2)),
    "resnet34": ResNet(basic_block, (3, 4, 6, 3)),
    "resnet50": ResNet(bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNet(bottleneck, (3, 4, 23, 3)),
    "resnet152": ResNet(bottleneck, (3, 8, 36, 3)),
}


def find_resnet(counts: tuple[int, ...], is_basic: bool) -> str:
    """Returns the name of the ResNet with these blocks.

    Args:
        counts: blocks of the stages conv2_x to conv5_x.
        is_basic: bool, whether the blocks are two 3x3 and not bottlenecks.

    Raises:
        ValueError: if there is none.
    """
    for name, row in RESNETS.items():
        if row.counts == counts and row.is_basic == is_basic:
            return name
    raise ValueError(f"the backbone must be one of {', '.join(RESNETS)}, got blocks {counts or 'none'} a stage")


def stem(units: Units, x):
    """Applies a 7x7 of stride 2 and a 3x3 max-pooling of stride 2: (B, H, W, 3) -> (B, ceil(H / 4), ceil(W / 4), width)."""
    x = units.unit(x, ConvUnit("stem", units.config.backbone_width, 7, stride=2, step=2, layer=stem_layers.Conv2D))
    # No output of a ReLU is below zero, so padding with zeros changes no maximum.
    x = keras.layers.ZeroPadding2D(1)(x)
    x = units.max_pool(x)
    return units.clear_padding(x, 4)


def residual_stage(units: Units, x, number: int):
    """Applies the blocks of conv`number`_x: (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C'); conv2_x keeps H and W.

    Its last layer is called C`number`.
    """
    row = RESNETS[units.config.backbone]
    count, filters = row.counts[number - 2], units.config.backbone_width * 2 ** (number - 2)
    for i in range(count):
        step = 2 if number > 2 and i == 0 else 1
        output_name = f"C{number}" if i == count - 1 else None
        x = row.block(units, x, Block(f"conv{number}_{i + 1}", filters, 2**number, step, output_name))
    return x


def prepare(units: Units, images):
    """Subtracts the mean colour of pixels (B, H, W, 3) of 0..255, and divides by the deviation."""
    config = units.config
    return units.layers("normalize", Normalize, mean=config.pixel_mean, std=config.pixel_std)(images)


def build(units: Units, images, last: int = 5) -> dict:
    """Builds the stages up to conv`last`_x.

    Args:
        units: builds the convolutions and norms.
        images: (B, H, W, 3) KerasTensor, normalised.
        last: int, 4 or 5.

    Returns:
        {"C2": (B, ceil(H / 4), ceil(W / 4), C), ...} up to C`last`, with strides 4, 8, 16, 32.
    """
    x, stages = stem(units, images), {}
    for number in range(2, last + 1):
        x = stages[f"C{number}"] = residual_stage(units, x, number)
    return stages


def build_last_stage(units: Units, x):
    """Builds conv5_x alone: (B, H, W, C) of C4 -> (B, ceil(H / 2), ceil(W / 2), C')."""
    return residual_stage(units, x, 5)


def unused_settings(name: str) -> tuple[str, ...]:
    """Returns the fields of `ModelConfig` that have no effect: basic blocks have no 1x1 that could stride."""
    return ("stride_on",) if RESNETS[name].is_basic else ()


def settings_of_layers(layers: Mapping[str, keras.layers.Layer]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a ResNet's layers show; none where there is no ResNet.

    Args:
        layers: name -> layer of a detector; those of other parts do not count.
    """
    if "stem_norm" not in layers:
        return {}
    norm = layers["stem_norm"]
    counts = tuple(
        max((int(m[1]) for name in layers if (m := re.match(rf"conv{n}_(\d+)_1_conv$", name))), default=0)
        for n in range(2, 6)
    )
    is_basic = "conv2_1_3_conv" not in layers
    settings = {
        "norm_epsilon": norm.epsilon,
        "norm": "gn" if isinstance(norm, keras.layers.GroupNormalization) else "frozen_bn",
        "backbone": find_resnet(counts, is_basic),
    }
    if not is_basic:
        settings["stride_on"] = "1x1" if layers["conv3_1_1_conv"].strides == (2, 2) else "3x3"
    return settings
