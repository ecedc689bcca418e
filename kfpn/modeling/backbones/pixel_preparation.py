"""Finds out how a Keras model prepares its pixels, so that they are not prepared twice."""

from collections.abc import Iterator
from typing import Any

import keras

PREPARING = (keras.layers.Rescaling, keras.layers.Normalization)
"""Layers that prepare pixels. A model whose first layer is one of them gets pixels of 0..255."""
ARITHMETIC = ("TrueDivide", "Divide", "Multiply", "Subtract", "Add")
"""The operations of Keras with which pixels are prepared in the middle of a graph."""


def prepares_pixels(model: keras.Model) -> bool:
    """Tells whether a model prepares its pixels itself: its first layer behind the input is one of `PREPARING`."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return prepares_pixels(layer)
        if not isinstance(layer, keras.layers.InputLayer):
            return isinstance(layer, PREPARING)
    return False


def unseen_preparation(model: keras.Model) -> str | None:
    """Returns what seems to prepare pixels in a model without being its first layer, such as `x / 255`; None: nothing does."""
    if prepares_pixels(model):
        return None
    for step in _steps_before_weights(model):
        if isinstance(step, (*PREPARING, keras.layers.Lambda)) or type(step).__name__ in ARITHMETIC:
            return f"{type(step).__name__} ({step.name})"
    return None


def _steps_before_weights(model: keras.Model) -> Iterator[Any]:
    """Yields the layers and operations of a model, those of nested ones included, up to the first layer that trains."""
    for step in getattr(model, "operations", model.layers):
        if isinstance(step, keras.Model) and not step.weights:
            yield from _steps_before_weights(step)
            continue
        if getattr(step, "weights", None) and not isinstance(step, PREPARING):
            return
        yield step
