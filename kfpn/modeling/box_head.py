"""The box head: two fully connected layers, class logits and class-specific deltas (FPN, section 4.2)."""

import keras

from kfpn.config import ModelConfig
from kfpn.modeling.layers import RoIDense


def box_head(config: ModelConfig) -> keras.Model:
    """Builds the submodel `box_head`: (R, size, size, C) -> {"logits": (R, K + 1), "deltas": (R, K, 4)}, float32.

    The background is the last logit. Deltas are (dy, dx, dh, dw) a class.
    """
    classes, size = config.num_classes, config.roi_size
    inputs = keras.Input((size, size, config.pyramid_channels), name="roi_features")
    x = inputs
    for i, dense in enumerate((RoIDense, keras.layers.Dense), start=1):
        # Caffe2's XavierFill, as in detectron2.
        start = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        x = dense(config.head_width, kernel_initializer=start, name=f"head_fc{i}")(x)
        if config.norm_heads:
            x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"head_fc{i}_norm")(x)
        x = keras.layers.ReLU(name=f"head_relu{i}")(x)
    logits = keras.layers.Dense(
        classes + 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="head_logits"
    )(x)
    deltas = keras.layers.Dense(
        classes * 4, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001), name="head_deltas"
    )(x)
    deltas = keras.layers.Reshape((classes, 4))(deltas)
    as_float = {"activation": "linear", "dtype": "float32"}
    outputs = {
        "logits": keras.layers.Activation(**as_float, name="logits_float32")(logits),
        "deltas": keras.layers.Activation(**as_float, name="deltas_float32")(deltas),
    }
    return keras.Model(inputs, outputs, name="box_head")
