"""Chooses some of many things, evenly spread over all of them."""

import numpy as np


def evenly_spread(count: int, most: int) -> np.ndarray:
    """Returns at most `most` of the indices 0 .. count - 1, evenly spread: (N,) int64, rising; the first and the last are among them."""
    return np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64)
