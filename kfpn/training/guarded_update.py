"""Gives an update of weights what Keras' optimizers lack: a norm over all gradients, and steps that can be refused on the device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops


def global_norm(gradients: Sequence[Any]) -> Any:
    """Returns the root of the sum of all squares of some tensors, scalar float32.

    TensorFlow has a kernel of its own for squares, which reads each tensor once.

    Args:
        gradients: of any shapes.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.linalg.global_norm(gradients)
    return ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))


@contextmanager
def assigning_only_where(applied: Any, rule: keras.optimizers.Optimizer) -> Iterator[None]:
    """Lets a Keras optimizer change variables only where `applied` is true, in a `with` block.

    Every optimizer of Keras assigns with its own `assign`, `assign_add` and `assign_sub`. A choice between two values is
    made on the device; a branch of the graph would wait for its condition on the host, once for each variable.

    Args:
        applied: scalar bool.
        rule: whose `update_step` is called in the block.
    """

    def assign(variable: Any, value: Any) -> None:
        old = ops.copy(variable.value)
        variable.assign(ops.where(applied, ops.cast(value, variable.dtype), old))

    def assign_add(variable: Any, value: Any) -> None:
        old = ops.copy(variable.value)
        assign(variable, old + ops.cast(value, variable.dtype))

    def assign_sub(variable: Any, value: Any) -> None:
        old = ops.copy(variable.value)
        assign(variable, old - ops.cast(value, variable.dtype))

    own = {"assign": assign, "assign_add": assign_add, "assign_sub": assign_sub}
    vars(rule).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(rule)[name]
