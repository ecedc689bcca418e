"""Draws the masks of objects on images: filled in the colour of their class, with an outline."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

Patch = tuple[tuple[slice, slice], np.ndarray]
"""The rows and columns of the image in which a mask lies, and its pixels there, (h, w) bool: a `Part` of a pasted mask is one."""
Masks = Callable[[int], Patch | None]
"""Gives the mask of a row, None where it has none. Only one mask at a time need be in memory."""

FILLED = 0.45
"""Share of the class's colour inside of a mask."""
OUTLINED = 0.9
"""The same on its outline."""


def draw_masks(
    image: np.ndarray, masks: np.ndarray | Masks, labels: np.ndarray, order: Any, color: Callable[[int], Any]
) -> np.ndarray:
    """Returns an image with masks on it.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        masks: (n, H, W) bool, or a function of the row.
        labels: (n,) int class ids.
        order: rows from the bottom to the top.
        color: class id -> red, green and blue, 0..255.
    """
    picture = np.array(image)
    of_row = masks if callable(masks) else lambda row: patch_of(masks[row])
    width = max(1, round(max(image.shape[:2]) / 400))
    for row in order:
        patch = of_row(int(row))
        if patch is not None and patch[1].any():
            _blend(picture, patch, np.array(color(int(labels[row])), np.float32), width)
    return picture


def patch_of(bitmap: np.ndarray) -> Patch:
    """Returns the part of a bitmap (H, W) bool that is not empty."""
    bitmap = np.asarray(bitmap, bool)
    window = []
    for axis in (1, 0):
        filled = np.flatnonzero(bitmap.any(axis))
        window.append(slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 0))
    rows, columns = window
    return (rows, columns), bitmap[rows, columns]


def chosen_masks(masks: Masks | None, rows: np.ndarray) -> Masks | None:
    """Returns the masks of some rows only, given by their indices."""
    return masks and (lambda row: masks(int(rows[row])))


def enlarged_masks(masks: Masks, size: Sequence[int], picture_size: Sequence[int]) -> Masks:
    """Returns masks for a picture of another size than their image, with smooth borders.

    Args:
        masks: of the image.
        size: height and width of the image.
        picture_size: height and width of the picture.
    """
    zooms = [of_picture / of_image for of_picture, of_image in zip(picture_size, size, strict=True)]

    def of_row(row: int) -> Patch | None:
        patch = masks(row)
        if patch is None or not patch[1].any():
            return None
        window, pixels = patch
        # A border of a pixel, so that the mask does not end at the window's edge.
        gray = Image.fromarray(np.pad(pixels, 1).astype(np.uint8) * 255)
        places, source = [], []
        for side, zoom, most in zip(window, zooms, picture_size, strict=True):
            first, last = side.start - 1, side.stop + 1
            place = slice(max(0, math.floor(first * zoom)), min(most, math.ceil(last * zoom)))
            source.append((max(0.0, place.start / zoom - first), min(last - first, place.stop / zoom - first)))
            places.append(place)
        (top, bottom), (left, right) = source
        shape = (places[1].stop - places[1].start, places[0].stop - places[0].start)
        enlarged = gray.resize(shape, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        return (places[0], places[1]), np.asarray(enlarged) >= 128

    return of_row


def _blend(picture: np.ndarray, patch: Patch, color: np.ndarray, width: int) -> None:
    """Lays a colour over the pixels of a mask, more of it on its outline, `width` pixels inside of it."""
    window, pixels = patch
    inside = np.pad(pixels, width)
    for _ in range(width):
        smaller = inside.copy()
        smaller[1:] &= inside[:-1]
        smaller[:-1] &= inside[1:]
        smaller[:, 1:] &= inside[:, :-1]
        smaller[:, :-1] &= inside[:, 1:]
        inside = smaller
    inside = inside[width:-width, width:-width]
    share = np.where(pixels, np.where(inside, FILLED, OUTLINED), 0.0).astype(np.float32)[..., None]
    under = picture[window].astype(np.float32)
    picture[window] = np.round(under + (color - under) * share).astype(np.uint8)
