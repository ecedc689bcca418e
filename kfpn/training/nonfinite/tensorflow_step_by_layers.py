"""Computes a step eagerly by TensorFlow, with the output of every layer and its gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.nonfinite.computed_step import ComputedStep, watched_layers
from kfpn.training.sampler_noise import sampler_noise


def compute_by_tensorflow(
    submodels: Submodels | SegmentSubmodels,
    config: Config,
    batch: Mapping[str, Any],
    shapes: Mapping[str, tuple],
    scale: tf.Tensor,
    losses: Callable,
) -> ComputedStep:
    """Computes losses and gradients of a step, see `kfpn.training.nonfinite.diagnose.diagnose`.

    Args:
        submodels, config, scale, losses: of the step.
        batch: name -> (B, ...), arrays or tensors.
        shapes: name of a sampler -> shape of its noise of one image.
    """
    batch = {name: tf.convert_to_tensor(value) for name, value in batch.items()}
    noise = sampler_noise(config.seed, batch["sample_index"], shapes)
    variables = submodels.weights_model.trainable_variables
    with tf.GradientTape() as tape, watched_layers(submodels) as seen:
        values = {
            name: tf.reduce_mean(tf.cast(value, tf.float32))
            for name, value in losses(submodels, config, dict(batch), noise).items()
        }
        scaled = tf.add_n(list(values.values())) * scale
    gradients = tape.gradient(scaled, [*(tensor for _, tensor in seen), *(v.value for v in variables)])
    of_outputs, of_variables = gradients[: len(seen)], gradients[len(seen) :]
    norm = tf.linalg.global_norm([gradient for gradient in of_variables if gradient is not None]) / scale
    return ComputedStep(
        outputs=seen,
        losses=values,
        of_outputs=[_dense(gradient) for gradient in of_outputs],
        of_variables=[
            (variable.path, _dense(gradient)) for variable, gradient in zip(variables, of_variables, strict=True)
        ],
        grad_norm=float(norm),
    )


def _dense(gradient: Any) -> Any:
    """Returns a gradient without the rows that only some of an embedding have; None stays None."""
    return None if gradient is None else tf.convert_to_tensor(gradient)
