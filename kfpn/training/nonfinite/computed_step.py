"""Holds a step that was computed layer by layer, and watches the layers of a detector while it is computed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels


@dataclass(frozen=True)
class ComputedStep:
    """Holds what a step has computed; what a loss does not depend on has the gradient None.

    Attributes:
        outputs: (layer name, value) of each floating output, in the order in which they were computed.
        losses: name -> mean over the batch, scalar.
        of_outputs: gradient of each of `outputs`.
        of_variables: (path, gradient) of each trainable variable.
        grad_norm: global norm of the latter, without the loss scale.
    """

    outputs: Sequence[tuple[str, Any]]
    losses: dict[str, Any]
    of_outputs: Sequence[Any]
    of_variables: Sequence[tuple[str, Any]]
    grad_norm: float

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yields (place in words, value) in the order in which a value that is not finite spreads."""
        for name, value in self.outputs:
            yield f"the output of layer {name}", value
        for name, value in self.losses.items():
            yield f"the loss {name}, of finite outputs", value
        for (name, _), gradient in zip(reversed(self.outputs), reversed(self.of_outputs), strict=True):
            yield f"the gradient of the output of layer {name}", gradient
        for path, gradient in self.of_variables:
            yield f"the gradient of {path}", gradient


@contextmanager
def watched_layers(
    submodels: Submodels | SegmentSubmodels, change: Callable[[int, Any], Any] | None = None
) -> Iterator[list[tuple[str, Any]]]:
    """Yields a list that collects (layer name, output) of every call of a layer in a `with` block, in order.

    Args:
        submodels: of `kfpn.modeling.networks.build_network`.
        change: (number of the output, output) -> what takes its place; None: outputs stay as they are.
    """
    seen: list[tuple[str, Any]] = []

    def look_at(name: str, tensor: Any) -> Any:
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
            return tensor
        tensor = tensor if change is None else change(len(seen), tensor)
        seen.append((name, tensor))
        return tensor

    def watch(name: str, call: Callable) -> Callable:
        def watched(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            flat = [look_at(name, tensor) for tensor in keras.tree.flatten(outputs)]
            return keras.tree.pack_sequence_as(outputs, flat)

        return watched

    layers = layers_by_name(submodels)
    for name, layer in layers.items():
        layer.call = watch(name, layer.call)
    try:
        yield seen
    finally:
        for layer in layers.values():
            del layer.call


def layers_by_name(submodels: Submodels | SegmentSubmodels) -> dict[str, keras.Layer]:
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
