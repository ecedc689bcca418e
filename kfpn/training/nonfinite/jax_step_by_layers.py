"""Computes a step by JAX, with the output of every layer and its gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import ops

from kfpn.config.run import Config
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.backends.jax_batches import trained_arrays
from kfpn.training.drawn_noise import drawn_noise
from kfpn.training.guarded_update import global_norm
from kfpn.training.nonfinite.computed_step import ComputedStep, watched_layers


def compute_by_jax(
    submodels: Submodels | SegmentSubmodels,
    config: Config,
    batch: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple],
    scale: Any,
    losses: Callable,
) -> ComputedStep:
    """Computes losses and gradients of a step, see `kfpn.training.nonfinite.diagnose.diagnose`.

    JAX has gradients of inputs alone. So a zero is added to the output of each layer: its gradient is that of the output.

    Args:
        submodels, config, scale, losses: of the step.
        batch: name -> (B, ...).
        shapes: name of a sampler -> shape of its noise of one image.
    """
    inputs, noise = trained_arrays(batch), drawn_noise(config.seed, batch["sample_index"], shapes)
    model = submodels.weights_model
    names: list[str] = []
    variables, others = list(model.trainable_variables), list(model.non_trainable_variables)
    held = [variable.value for variable in others]

    def total(weights: list, zeros: list | None) -> tuple[Any, tuple[dict[str, Any], list]]:
        known = zip([*variables, *others], [*weights, *held], strict=True)
        with (
            keras.StatelessScope(list(known)),
            watched_layers(submodels, lambda i, x: x if zeros is None else x + zeros[i]) as seen,
        ):
            values = {
                name: ops.mean(ops.cast(value, "float32"))
                for name, value in losses(submodels, config, inputs, noise).items()
            }
        names[:] = [name for name, _ in seen]
        return sum(values.values()) * scale, (values, [tensor for _, tensor in seen])

    weights = [variable.value for variable in variables]
    _, (_, outputs) = jax.eval_shape(lambda given: total(given, None), weights)
    zeros = [jnp.zeros(output.shape, output.dtype) for output in outputs]
    compute = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, (values, tensors)), (of_variables, of_outputs) = compute(weights, zeros)
    return ComputedStep(
        outputs=[*zip(names, tensors, strict=True)],
        losses=values,
        of_outputs=of_outputs,
        of_variables=[(v.path, gradient) for v, gradient in zip(variables, of_variables, strict=True)],
        grad_norm=float(global_norm(of_variables) / scale),
    )
