"""The dtype policy of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets Keras' global dtype policy for a `with` block, and puts the one of before back.

    Args:
        name: `float32`, `mixed_float16` or `mixed_bfloat16`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
