"""Finds the first value of a step that is not finite: computes the step eagerly and looks at every layer."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.losses.training_losses import noise_shapes, training_losses
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.sampler_noise import sampler_noise


@dataclasses.dataclass(frozen=True)
class Finding:
    """Holds the result of a step that was computed eagerly, on one device.

    Attributes:
        losses: name -> mean over the batch.
        grad_norm: global norm of the gradients before decay and clipping.
        first: the first value that was not finite, in words; None: every value was finite.
    """

    losses: dict[str, float]
    grad_norm: float
    first: str | None

    @property
    def line(self) -> str:
        """The finding as part of a sentence."""
        if self.first is None:
            return "computed once more, eagerly and on one device, all of it is finite"
        return f"first to go was {self.first}"


def diagnose(
    submodels: Submodels | SegmentSubmodels,
    config: Config,
    batch: Mapping[str, tf.Tensor],
    scale: tf.Tensor,
    losses: Callable = training_losses,
    shapes: Callable = noise_shapes,
) -> Finding:
    """Computes the losses and gradients of a step eagerly and finds the first value that is not finite.

    The order is: outputs of layers as they are computed, losses, gradients of the outputs from the last layer to the
    first, gradients of the variables. The weights stay as they are; the statistics of batch norms move.

    Args:
        submodels: of `build_submodels`.
        config: the run's.
        batch: of `train_batches`, with static shapes.
        scale: the loss scale, scalar float32; `grad_norm` is divided by it.
        losses, shapes: see `kfpn.training.step.build_train_step`.

    Returns:
        The losses, the norm of the gradients, and the first value that is not finite.
    """
    height, width = batch["images"].shape[1:3]
    noise = sampler_noise(config.seed, batch["sample_index"], shapes(config, height, width, batch["gt_boxes"].shape[1]))
    variables = submodels.weights_model.trainable_variables
    with tf.GradientTape() as tape, _watched(submodels) as seen:
        values = {
            name: tf.reduce_mean(tf.cast(value, tf.float32))
            for name, value in losses(submodels, config, dict(batch), noise).items()
        }
        scaled = tf.add_n(list(values.values())) * scale
    gradients = tape.gradient(scaled, [*(tensor for _, tensor in seen), *(v.value for v in variables)])
    of_outputs, of_variables = gradients[: len(seen)], gradients[len(seen) :]
    norm = tf.linalg.global_norm([gradient for gradient in of_variables if gradient is not None]) / scale
    places = [(f"the output of layer {name}", tensor) for name, tensor in seen]
    places += [(f"the loss {name}, of finite outputs", value) for name, value in values.items()]
    backwards = zip(reversed(seen), reversed(of_outputs), strict=True)
    places += [(f"the gradient of the output of layer {name}", gradient) for (name, _), gradient in backwards]
    places += [(f"the gradient of {v.path}", gradient) for v, gradient in zip(variables, of_variables, strict=True)]
    first = next((_describe_values(place, tensor) for place, tensor in places if not _is_finite(tensor)), None)
    return Finding({name: float(value) for name, value in values.items()}, float(norm), first)


@contextmanager
def _watched(submodels: Submodels | SegmentSubmodels) -> Iterator[list[tuple[str, tf.Tensor]]]:
    """Yields a list that collects (layer name, output) of every call of a layer in a `with` block, in order."""
    seen: list[tuple[str, tf.Tensor]] = []

    def watch(name: str, call: Callable) -> Callable:
        def watched(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            seen.extend((name, tensor) for tensor in tf.nest.flatten(outputs) if tensor.dtype.is_floating)
            return outputs

        return watched

    layers = _layers_by_name(submodels)
    for name, layer in layers.items():
        layer.call = watch(name, layer.call)
    try:
        yield seen
    finally:
        for layer in layers.values():
            del layer.call


def _layers_by_name(submodels: Submodels | SegmentSubmodels) -> dict[str, keras.Layer]:
    """Returns `features/conv1` -> layer: every layer once, without input layers and models."""
    layers: dict[str, keras.Layer] = {}

    def collect(prefix: str, model: keras.Model) -> None:
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                collect(f"{prefix}/{layer.name}", layer)
            elif not isinstance(layer, keras.layers.InputLayer) and not any(
                layer is other for other in layers.values()
            ):
                layers[f"{prefix}/{layer.name}"] = layer

    for part, models in submodels.parts.items():
        for model in models:
            collect(part, model)
    return layers


def _is_finite(tensor: tf.Tensor | None) -> bool:
    return tensor is None or bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(tensor))))


def _describe_values(place: str, tensor: tf.Tensor) -> str:
    values = tf.convert_to_tensor(tensor).numpy().astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    finite = np.abs(values[np.isfinite(values)])
    rest = f"; the largest of the others is {finite.max():.3g}" if finite.size else ""
    return f"{place} ({bad} of {values.size} values{rest})"
