"""Finds weights that are not finite, before they are written."""

from collections.abc import Iterable

import keras


def path_of_nonfinite(variables: Iterable[keras.Variable]) -> str | None:
    """Returns the path of the first variable that holds NaN or inf; None: there is none."""
    return next((one.path for one in variables if not bool(keras.ops.all(keras.ops.isfinite(one)))), None)
