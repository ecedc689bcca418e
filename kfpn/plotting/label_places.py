"""Finds places for the labels of boxes, where they hide neither one another nor other objects."""

import numpy as np

from kfpn.ops.box_overlaps import areas, shared_areas

HIDES = 0.25
"""A label hides an object if it covers more than this share of the object's box."""


class LabelPlaces:
    """Gives each box of a picture a place for its label, once, first come first served.

    Args:
        boxes: (n, 4) yxyx pixels of all objects that are drawn.
        shape: the picture's height and width; more numbers are not read.
    """

    def __init__(self, boxes: np.ndarray, shape: tuple[int, ...]):
        self._height, self._width = shape[:2]
        self._boxes = np.clip(boxes, 0, [self._height, self._width, self._height, self._width])
        self._areas = areas(self._boxes)
        self._taken = np.zeros((0, 4))

    def take(self, row: int, height: float, width: float) -> tuple[float, float] | None:
        """Takes the first place that is free: above the box, inside its top, below it.

        Args:
            row: number of the box.
            height: pixels of the label.
            width: pixels of the label.

        Returns:
            y and x of the label's upper left corner, inside the picture, or None where no place is free.
        """
        top, left, bottom = self._boxes[row, 0], self._boxes[row, 1], self._boxes[row, 2]
        above = top - height if top >= height else top
        # The last resort may cover its own object: in a small picture there is no other place.
        for y, own in ((above, None), (top, None), (bottom, None), (above, row)):
            y, x = max(0.0, min(y, self._height - height)), max(0.0, min(left, self._width - width))
            place = np.array([y, x, y + height, x + width])
            if not shared_areas(place, self._taken).any() and not self._hides(place, own):
                self._taken = np.concatenate([self._taken, place[None]])
                return y, x
        return None

    def _hides(self, place: np.ndarray, own: int | None) -> bool:
        hidden = shared_areas(place, self._boxes) > HIDES * self._areas
        if own is not None:
            hidden[own] = False
        return bool(hidden.any())
