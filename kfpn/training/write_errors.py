"""Names the errors of writing a file, TensorFlow's where it is in use, for programs in which it need not be there."""

import sys


def write_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Returns what is raised where a file can't be written: Python's errors, TensorFlow's where it is in use, and others."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError, *others) if tensorflow is None else (OSError, tensorflow.errors.OpError, *others)
