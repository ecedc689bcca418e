"""Says at which fraction of its size a large JPEG is decoded, and where the picture lies in what was decoded."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

FRACTIONS = (8, 4, 2)
"""What JPEG decoders can divide the sides by, at a fraction of the time."""
SPARE = 2
"""Times the network's input that each side must have after decoding: then the resizing still antialiases as it does from the whole."""
AT_TOP, AT_LEFT = (3, 4, 7, 8), (2, 3, 6, 7)
"""EXIF orientations after which the last row stored is the first of the image, and those after which the last column is."""

SizeRule = Callable[[tuple[int, int]], tuple[int, int]]
"""Gives the largest size (height, width) that will be made of an image of a size (height, width)."""


class DecodedImage(NamedTuple):
    """Holds an image as it was decoded: whole, or a JPEG at a fraction of its size.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        size: height and width of the whole image, in its own pixels.
        box: top, left, bottom, right: where the image lies in `pixels`. A side that the fraction does not divide ends within
            a pixel.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    box: tuple[float, float, float, float]

    def is_whole(self) -> bool:
        """Tells whether the image was decoded at its own size."""
        return self.pixels.shape[:2] == self.size


AnyImage = np.ndarray | DecodedImage
"""Pixels (H, W, 3) uint8 RGB of a whole image, or an image as `decode_picture` gives it."""


def whole_image(pixels: np.ndarray) -> DecodedImage:
    """Returns pixels (H, W, 3) that are the whole image."""
    height, width = pixels.shape[:2]
    return DecodedImage(pixels, (height, width), (0.0, 0.0, float(height), float(width)))


def as_decoded(image: AnyImage) -> DecodedImage:
    """Returns an image as it was decoded; an array is a whole image.

    Raises:
        ValueError: when it is neither such an image nor a (H, W, 3) uint8 array with pixels.
    """
    if isinstance(image, DecodedImage):
        return image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be a (H, W, 3) uint8 array, got {got}")
    if 0 in image.shape:
        raise ValueError(f"image must have pixels, got shape {image.shape}")
    return whole_image(image)


def decoding_fraction(size: tuple[int, int], needed: tuple[int, int]) -> int:
    """Returns what the sides of a JPEG are divided by when it is decoded: 8, 4, 2, or 1 where it is decoded whole.

    It is the largest that leaves each side at least twice as long as the network's input needs it. This one rule holds in
    training, evaluation and prediction, and for the graph of a served model.

    Args:
        size: height and width of the image.
        needed: height and width of the largest image that will be made of it by resizing.
    """
    for fraction in FRACTIONS:
        if all(side >= SPARE * least for side, least in zip(divided(size, fraction), needed, strict=True)):
            return fraction
    return 1


def divided(size: tuple[int, int], fraction: int) -> tuple[int, int]:
    """Returns the sides of an image that was decoded at a fraction: rounded up."""
    return -(-size[0] // fraction), -(-size[1] // fraction)


def picture_box(size: tuple[int, int], fraction: int, orientation: int) -> tuple[float, float, float, float]:
    """Returns top, left, bottom and right of the picture in what was decoded at a fraction and turned upright.

    The decoder fills the last column and row up to a whole pixel; after a turn by EXIF they may be the first.

    Args:
        size: height and width of the whole image, upright.
        fraction: of `decoding_fraction`.
        orientation: of EXIF, 1..8.
    """
    rows, columns = divided(size, fraction)
    height, width = size[0] / fraction, size[1] / fraction
    top = rows - height if orientation in AT_TOP else 0.0
    left = columns - width if orientation in AT_LEFT else 0.0
    return top, left, top + height, left + width


def draft_plain(picture: Image.Image, needed: tuple[int, int], orientation: int) -> int:
    """Makes Pillow decode a plain JPEG at a fraction of its size, and returns the fraction; 1 for all other images.

    Args:
        picture: as opened.
        needed: height and width, upright, of the largest image that will be made of it.
        orientation: of EXIF, 1..8.
    """
    if picture.format not in ("JPEG", "MPO") or picture.mode not in ("RGB", "L"):
        return 1
    width, height = picture.size
    fraction = decoding_fraction((height, width), needed if orientation < 5 else needed[::-1])
    if fraction > 1:
        # Pillow divides by the largest of 8, 4 and 2 that leaves at least the size it is given: here that is `fraction`.
        picture.draft(None, (width // fraction, height // fraction))
        if picture.size[::-1] != divided((height, width), fraction):
            raise ValueError(f"must decode to 1/{fraction} of its sides, got {picture.size}: update Pillow")
    return fraction
