"""The box heads: two fully connected layers (FPN, section 4.2), or conv5 (He et al. 2016, as in FPN's table 2 a)."""

import keras

from kfpn.levels import pooled_size
from kfpn.model_config import ModelConfig
from kfpn.modeling.layers import RoIDense, SharedLayers
from kfpn.modeling.resnet import Units, residual_stage


def two_fully_connected(config: ModelConfig, x):
    """Two layers of `head_width` with ReLU: (R, size, size, C) -> (R, head_width)."""
    for i, dense in enumerate((RoIDense, keras.layers.Dense), start=1):
        # Caffe2's XavierFill, as in detectron2.
        start = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        x = dense(config.head_width, kernel_initializer=start, name=f"head_fc{i}")(x)
        if config.norm_heads:
            x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"head_fc{i}_norm")(x)
        x = keras.layers.ReLU(name=f"head_relu{i}")(x)
    return x


def conv5(units: Units, x):
    """The backbone's last stage and its average: (R, 2 size, 2 size, C) -> (R, channels of C5)."""
    return keras.layers.GlobalAveragePooling2D(name="head_average")(residual_stage(units, x, 5))


def predictor(config: ModelConfig, x) -> dict:
    """The last layers: (R, width) -> logits (R, K + 1) and deltas (R, K, 4), float32 in mixed precision as well."""
    classes = config.num_classes

    def last(units, stddev, name):
        start = keras.initializers.RandomNormal(stddev=stddev)
        return keras.layers.Dense(units, kernel_initializer=start, name=name, dtype="float32")(x)

    logits, deltas = last(classes + 1, 0.01, "head_logits"), last(classes * 4, 0.001, "head_deltas")
    return {"logits": logits, "deltas": keras.layers.Reshape((classes, 4), dtype="float32")(deltas)}


def box_head(config: ModelConfig, channels: int, layers: SharedLayers, make_units: type[Units] = Units) -> keras.Model:
    """Builds the submodel `box_head`: (R, size, size, C) -> {"logits": (R, K + 1), "deltas": (R, K, 4)}, float32.

    The background is the last logit. Deltas are (dy, dx, dh, dw) a class.

    Args:
        config: the model's.
        channels: int, C, of the levels that RoIs are pooled from.
        layers: those of the backbone, where conv5 is the head.
        make_units: how its convolutions and norms are built.
    """
    size = pooled_size(config)
    inputs = keras.Input((size, size, channels), name="roi_features")
    x = conv5(make_units(config, layers), inputs) if config.pyramid == "c4" else two_fully_connected(config, inputs)
    return keras.Model(inputs, predictor(config, x), name="box_head")
