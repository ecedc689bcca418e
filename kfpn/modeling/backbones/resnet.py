"""Builds ResNet C2-C5 (He et al. 2016, table 1) with symmetric padding, so that foreign weights fit."""

import re
from collections.abc import Mapping
from typing import Any

import keras

from kfpn.modeling.units import Units

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet26": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks of the stages conv2_x to conv5_x."""
BASIC = ("resnet18", "resnet34")
"""Those whose blocks are two 3x3; the others have bottlenecks."""
STAGES = ("stem", "conv2", "conv3", "conv4", "conv5")


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
    return ("stride_on",) if name in BASIC else ()


def settings_of(layers: Mapping[str, keras.layers.Layer]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a ResNet's layers show.

    Args:
        layers: name -> layer of a detector; those of other parts do not count.
    """
    if "stem_norm" not in layers:
        return {}
    norm = layers["stem_norm"]
    stages = [
        max((int(m[1]) for name in layers if (m := re.match(rf"conv{n}_(\d+)_1_conv$", name))), default=0)
        for n in range(2, 6)
    ]
    basic = "conv2_1_3_conv" not in layers
    names = [name for name, blocks in BLOCKS.items() if list(blocks) == stages and (name in BASIC) == basic]
    settings = {
        "norm_epsilon": norm.epsilon,
        "norm": "gn" if isinstance(norm, keras.layers.GroupNormalization) else "frozen_bn",
        "backbone": names[0],
    }
    if not basic:
        settings["stride_on"] = "1x1" if layers["conv3_1_1_conv"].strides == (2, 2) else "3x3"
    return settings
