"""Lays tiles over an image: squares of one size that cover it and overlap."""

from typing import NamedTuple

import numpy as np

from kfpn.config.tile_options import Tiles


class TileGrid(NamedTuple):
    """Holds the parts of an image that are looked at.

    Attributes:
        windows: (T, 4) int32 top, left, bottom, right in pixels of the image.
        neighbours: (T, 4) float32, NaN where a side lies on the image's border. Where the tile above ends, the tile on the left ends,
            the tile below begins and the tile on the right begins.
    """

    windows: np.ndarray
    neighbours: np.ndarray


def tile_starts(length: int, side: int, overlap: float) -> list[int]:
    """Returns where the tiles along one axis begin.

    They follow one another at side x (1 - overlap) pixels, rounded, at least 1. The last one is moved inwards so that it ends with the
    image. An image that is not longer than a tile has one.

    Args:
        length: pixels of the image.
        side: of a tile, pixels.
        overlap: share of the side.
    """
    if length <= side:
        return [0]
    step = max(1, round(side * (1.0 - overlap)))
    return [*range(0, length - side, step), length - side]


def tile_grid(size: tuple[int, int], tiles: Tiles) -> TileGrid:
    """Returns the parts of an image that are looked at: the whole image where it is asked for, then the tiles, row after row.

    An image that is not larger than a tile is looked at once.

    Args:
        size: height and width of the image, pixels.
        tiles: with a side.
    """
    side = tiles.side or max(size)
    rows, columns = (_axis(length, side, tiles.overlap) for length in size)
    windows = [(top, left, bottom, right) for top, bottom, _, _ in rows for left, right, _, _ in columns]
    neighbours = [(above, before, below, behind) for _, _, above, below in rows for _, _, before, behind in columns]
    if tiles.whole and len(windows) > 1:
        windows.insert(0, (0, 0, *size))
        neighbours.insert(0, (np.nan,) * 4)
    return TileGrid(np.array(windows, np.int32), np.array(neighbours, np.float32))


def _axis(length: int, side: int, overlap: float) -> list[tuple[int, int, float, float]]:
    """Returns of each tile along an axis its start, its end, the end of the one before and the start of the one behind."""
    starts = tile_starts(length, side, overlap)
    ends = [min(start + side, length) for start in starts]
    before, behind = [np.nan, *ends[:-1]], [*starts[1:], np.nan]
    return list(zip(starts, ends, before, behind, strict=True))
