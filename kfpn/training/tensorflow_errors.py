"""Names the errors of TensorFlow where it is in use, for programs in which it need not be there."""

import sys


def tensorflow_errors() -> tuple[type[Exception], ...]:
    """Returns what TensorFlow raises where an op fails, for example on a full disk; nothing where TensorFlow is not in use."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)
