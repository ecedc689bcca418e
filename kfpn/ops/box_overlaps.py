"""Areas that boxes share, in NumPy; `kfpn.ops.boxes` has the same for tensors."""

import numpy as np


def shared_areas(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the area that a box shares with each of others.

    Args:
        box: (4,) yxyx pixels.
        boxes: (n, 4) yxyx pixels.

    Returns:
        (n,) square pixels.
    """
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.prod(np.maximum(sides, 0.0), axis=1)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas (n,) of boxes (n, 4) yxyx pixels, in square pixels."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
