"""Sets the dtype policy of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets Keras' global dtype policy in a `with` block, and restores the previous one.

    Args:
        name: `float32`, `mixed_float16` or `mixed_bfloat16`.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
