"""Takes some of the detections of an image, with all that belongs to them."""

from typing import Any

import numpy as np

ROWS = ("boxes", "scores", "labels", "masks", "segmentations")
"""Keys of the detections of an image that have one entry a detection."""


def take_rows(detections: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Returns the detections of an image with some of them only.

    Args:
        detections: those of the keys `ROWS` that there are, arrays, and anything else, which stays as it is.
        rows: (n,) bool, or indices.
    """
    return {**detections, **{name: detections[name][rows] for name in ROWS if name in detections}}
