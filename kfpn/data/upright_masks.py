"""Turns the masks of a file's stored pixels into those of the image after EXIF rotation."""

import numpy as np

from kfpn.data.object_masks import ObjectMasks

_MIRRORED_DOWN, _MIRRORED_ACROSS, _SWAPPED = (3, 4, 7, 8), (2, 3, 6, 7), 5


def upright_mask(content: bytes, size: tuple[int, int], orientation: int) -> bytes:
    """Returns one mask as `ObjectMasks.from_serialized` takes it, as `upright_boxes` turns boxes.

    Args:
        content: packed, in the stored pixels; empty: there is none.
        size: height and width of the image after the rotation.
        orientation: EXIF's, 1..8; 1 leaves the mask alone.
    """
    if orientation == 1 or not content:
        return content
    height, width = size
    swapped = orientation >= _SWAPPED
    to_x, to_y = ((0.0, 1.0), (1.0, 0.0)) if swapped else ((1.0, 0.0), (0.0, 1.0))
    matrix = np.array([[*to_x, 0.0], [*to_y, 0.0]])
    if orientation in _MIRRORED_ACROSS:
        matrix[0] = [-to_x[0], -to_x[1], width]
    if orientation in _MIRRORED_DOWN:
        matrix[1] = [-to_y[0], -to_y[1], height]
    stored = (width, height) if swapped else (height, width)
    return bytes(ObjectMasks([content], stored).moved(matrix, size).serialized()[0])
