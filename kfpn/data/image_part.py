"""Defines a part of an image, whose pixels are read when they are asked for."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImagePart:
    """Holds a rectangle of an image.

    Attributes:
        whole: () -> (H, W, 3) uint8 RGB, the whole image.
        window: top, left, bottom and right, pixels of the whole image.
    """

    whole: Callable[[], np.ndarray]
    window: tuple[int, int, int, int]

    def pixels(self) -> np.ndarray:
        """Returns the part, (h, w, 3) uint8 RGB."""
        top, left, bottom, right = self.window
        return self.whole()[top:bottom, left:right]
