"""Makes TensorFlow add in a fixed order, so that a run on a GPU has the same bits each time."""

import warnings
from dataclasses import replace

import tensorflow as tf

from kfpn.config.run import Config


def with_determinism(config: Config) -> Config:
    """Makes all ops of this process deterministic where the configuration asks for it.

    Call this before the network is built. TensorFlow then refuses each op that has no deterministic kernel, by its name.
    RoIAlign's gradient is a sum by segments, which has one. Compiled by XLA, the gradient of max pooling has none on GPUs
    (`GPU MaxPool gradient ops do not yet have a deterministic XLA implementation`), and XLA chooses kernels by their measured
    time. So nothing is compiled on GPUs.

    Args:
        config: the run's.

    Returns:
        The configuration that the run is built with: on GPUs `compile` is off.
    """
    if not config.deterministic:
        return config
    tf.config.experimental.enable_op_determinism()
    if not (config.jit_compile and config.compile != "off" and tf.config.list_physical_devices("GPU")):
        return config
    warnings.warn(
        "compile is off: with --deterministic XLA has no gradient of max pooling on GPUs, and chooses kernels by their time",
        stacklevel=2,
    )
    return replace(config, compile="off")
