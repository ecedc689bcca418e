"""Draws outlines and bitmaps of objects into other frames: moved, scaled, mirrored, turned by quarters, cut."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from kfpn.data.mask_content import Bitmap

_ROOM = 2.0
"""Polygons that reach farther than this many frames outside are cut: COCO's drawing takes memory with the length of each line."""
_LEAST_ROOM = 2048.0
"""Cells that polygons may reach outside of any frame. A cut moves the rounding of a line: within a small RoI that would show."""


def rle_of_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> dict:
    """Returns COCO's run lengths {size, counts} of the union of polygons, by its own drawing.

    Args:
        polygons: each (n, 2) float64 x, y in pixels of the frame.
        size: height and width of the frame.
    """
    height, width = size
    near = [cut for polygon in polygons if len(cut := near_part(polygon, size)) >= 3]
    if not near:
        near = [np.full((3, 2), -2.0 * max(size))]
    return coco_mask.merge(coco_mask.frPyObjects([polygon.ravel() for polygon in near], height, width))


def bitmap_of_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns the union of polygons as a bitmap (height, width) uint8, 0 or 1."""
    return coco_mask.decode(rle_of_polygons(polygons, size))


def near_part(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the polygon, cut to the surroundings of a frame if it reaches far outside of it: the frame sees the same.

    Args:
        polygon: (n, 2) float64 x, y.
        size: height and width of the frame.
    """
    for axis, side in ((0, size[1]), (1, size[0])):
        room = max(_ROOM * side, _LEAST_ROOM)
        low, high = -room, side + room
        if len(polygon) and polygon[:, axis].min() < low:
            polygon = _cut_below(polygon, axis, low)
        if len(polygon) and polygon[:, axis].max() > high:
            polygon = _cut_below(polygon * _mirror(axis), axis, -high) * _mirror(axis)
    return polygon


def _mirror(axis: int) -> np.ndarray:
    return np.where(np.arange(2) == axis, -1.0, 1.0)


def _cut_below(polygon: np.ndarray, axis: int, low: float) -> np.ndarray:
    """Returns what of a polygon lies at or above a coordinate (Sutherland and Hodgman 1974, one edge)."""
    following = np.roll(polygon, -1, axis=0)
    inside = polygon[:, axis] >= low
    crosses = inside != np.roll(inside, -1)
    step = following[:, axis] - polygon[:, axis]
    share = np.where(crosses, (low - polygon[:, axis]) / np.where(step == 0, 1.0, step), 0.0)
    between = polygon + share[:, None] * (following - polygon)
    between[:, axis] = low
    both = np.stack([polygon, between], 1).reshape(-1, 2)
    return both[np.stack([inside, crosses], 1).ravel()]


def moved_polygons(polygons: Sequence[np.ndarray], matrix: np.ndarray) -> list[np.ndarray]:
    """Returns polygons in the frame to which a matrix (2, 3) leads."""
    return [polygon @ matrix[:, :2].T + matrix[:, 2] for polygon in polygons]


def moved_bitmap(bitmap: Bitmap, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a bitmap in another frame: each pixel is what lies under its centre, as Pillow's NEAREST has it.

    Args:
        bitmap: of the object.
        matrix: (2, 3) axis-aligned, from x, y of the bitmap to those of the frame.
        size: height and width of the frame.

    Returns:
        (height, width) uint8, 0 or 1.
    """
    turned, (scale_x, shift_x), (scale_y, shift_y) = axes_of(matrix)
    along_x = np.arange(size[0] if turned else size[1]) + 0.5
    along_y = np.arange(size[1] if turned else size[0]) + 0.5
    columns = np.floor(along_x * scale_x + shift_x).astype(np.int64) - bitmap.first
    rows = np.floor(along_y * scale_y + shift_y).astype(np.int64)
    height, width = bitmap.pixels.shape
    seen_x = np.flatnonzero((columns >= 0) & (columns < width))
    seen_y = np.flatnonzero((rows >= 0) & (rows < height))
    drawn = np.zeros((len(rows), len(columns)), np.uint8)
    if len(seen_x) and len(seen_y):
        drawn[np.ix_(seen_y, seen_x)] = bitmap.pixels[np.ix_(rows[seen_y], columns[seen_x])]
    return drawn.T if turned else drawn


def axes_of(matrix: np.ndarray) -> tuple[bool, tuple[float, float], tuple[float, float]]:
    """Returns the way back along each axis of a matrix (2, 3): whether the axes are swapped, and factor and shift to x and to y.

    With swapped axes the x of the bitmap follows from the y of the frame, and y from x.
    """
    turned = matrix[0, 0] == 0.0
    to_x, to_y = (matrix[1, 0], matrix[0, 1]) if turned else (matrix[0, 0], matrix[1, 1])
    of_x, of_y = (matrix[1, 2], matrix[0, 2]) if turned else (matrix[0, 2], matrix[1, 2])
    return bool(turned), (1.0 / to_x, -of_x / to_x), (1.0 / to_y, -of_y / to_y)


def grid_of_polygons(polygons: Sequence[np.ndarray], box: np.ndarray, side: int) -> np.ndarray:
    """Draws polygons within a box, as detectron2's `rasterize_polygons_within_box` does.

    Args:
        polygons: each (n, 2) float64 x, y.
        box: (4,) float64 yxyx in the same pixels.
        side: rows and columns.

    Returns:
        (side, side) uint8, 0 or 1.
    """
    tall, wide = max(box[2] - box[0], 0.1), max(box[3] - box[1], 0.1)
    scale = np.array([side / wide, side / tall])
    return bitmap_of_polygons([(polygon - box[[1, 0]]) * scale for polygon in polygons], (side, side))


def grid_of_bitmap(bitmap: Bitmap, matrix: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """Samples a bitmap within a box: the average of each cell, as RoIAlign takes it with a sample for each pixel, at least .5.

    Args:
        bitmap: of the object.
        matrix: (2, 3) axis-aligned, from x, y of the bitmap to those of the box.
        box: (4,) float64 yxyx.
        side: rows and columns.

    Returns:
        (side, side) uint8, 0 or 1.
    """
    turned, (scale_x, shift_x), (scale_y, shift_y) = axes_of(matrix)
    of_x, of_y = (box[0::2], box[1::2]) if turned else (box[1::2], box[0::2])
    columns, rows = (
        CellSamples.along(begin - 0.5, (end - begin) / side, side, pixels)
        for begin, end, pixels in (
            (*(of_x * scale_x + shift_x), bitmap.size[1]),
            (*(of_y * scale_y + shift_y), bitmap.size[0]),
        )
    )
    average = cell_averages(bitmap.pixels, rows, columns, bitmap.first)
    return ((average.T if turned else average) >= 0.5 - 1e-6).astype(np.uint8)


class CellSamples(NamedTuple):
    """Says from which pixels of an axis the cells along it take their samples, as RoIAlign does with a sample for each pixel.

    A sample takes its value from the two nearest pixels. Beyond the first and the last one it has their value for up to a pixel, and
    0 farther outside.

    Attributes:
        lower, upper: (side x samples,) int64, the two pixels of each sample.
        weights: two of (side x samples,) float64, of the lower and of the upper pixel.
        samples: of a cell.
    """

    lower: np.ndarray
    upper: np.ndarray
    weights: tuple[np.ndarray, np.ndarray]
    samples: int

    @classmethod
    def along(cls, start: float, step: float, side: int, pixels: int) -> "CellSamples":
        """Returns the samples along an axis.

        Args:
            start: where the first cell begins, in pixels whose centres are whole numbers.
            step: pixels of a cell, below 0 in a mirrored frame.
            side: cells.
            pixels: of the axis.
        """
        samples = max(1, int(np.ceil(abs(step))))
        places = start + (np.arange(side * samples) + 0.5) * (step / samples)
        inside = (places >= -1.0) & (places <= pixels)
        places = np.minimum(np.maximum(places, 0.0), pixels - 1.0)  # np.clip takes twice as long for so few
        lower = places.astype(np.int64)
        share = places - lower
        return cls(lower, np.minimum(lower + 1, pixels - 1), ((1.0 - share) * inside, share * inside), samples)

    def averages(self, values: np.ndarray, first: int = 0) -> np.ndarray:
        """Averages the samples of each cell along the first axis: (n, m) pixels from number `first` on -> (side, m) float64.

        Pixels that are not given are 0.
        """
        # A pixel that is not given becomes the row of zeros before the first one or behind the last one.
        padded = np.zeros((len(values) + 2, values.shape[1]))
        padded[1:-1] = values
        # No matrix product: BLAS would wake its threads for each small one, beside those of the training.
        lower, upper = (
            padded.take(np.minimum(np.maximum(pixels - (first - 1), 0), len(values) + 1), 0)
            for pixels in (self.lower, self.upper)
        )
        lower *= self.weights[0][:, None]
        upper *= self.weights[1][:, None]
        total = lower + upper
        if self.samples == 1:
            return total
        return total.reshape(len(total) // self.samples, self.samples, values.shape[1]).mean(1)


def cell_averages(pixels: np.ndarray, rows: CellSamples, columns: CellSamples, first_column: int = 0) -> np.ndarray:
    """Averages an image within cells, as RoIAlign does: (H, w) -> (cells of rows, cells of columns) float64.

    Args:
        pixels: columns `first_column` to `first_column` + w - 1 of the image; all others are 0.
        rows: the samples along the columns of the image.
        columns: those along its rows.
        first_column: number.
    """
    begin = max(int(columns.lower.min()) - first_column, 0)
    end = max(int(columns.upper.max()) + 1 - first_column, begin)
    seen = pixels[:, begin:end]
    return columns.averages(rows.averages(seen).T, first_column + begin).T
