"""Holds the masks of one image's objects, compressed, and follows what is done to the image without decoding them."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from kfpn.data.mask_content import NOTHING, pack_bitmap, pack_outline, rle_as_drawn, unpack_outline
from kfpn.data.mask_raster import (
    bitmap_of_polygons,
    grid_of_bitmap,
    grid_of_polygons,
    moved_bitmap,
    moved_polygons,
    rle_of_polygons,
)

GRID_SIDE = 112
"""Rows and columns of `grids`: the size of TensorFlow Model Garden's `gt_mask_size`, four times that of the targets."""
_MOVED = b"m"
_PLACE = struct.Struct("<2i6d4d")
_ROUNDING = 1e-6  # pixels
_SAME = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


class ObjectMasks:
    """Holds the masks of M objects in one frame: polygons, run lengths or nothing of each. It is never changed.

    What is done to the image (resized, cut, mirrored, turned by quarters) is kept as one matrix an object, and applied when a mask is
    drawn.

    Args:
        contents: M packed outlines, see `pack_outline`, in the pixels that they were drawn in.
        size: height and width of the frame.
        matrices: (M, 2, 3) float64, from x, y of each outline's pixels to those of the frame, half-open: pixel x covers x .. x + 1.
            None: they are the same.
        clips: (M, 4) float64 yxyx, the part of the frame in which each object may be. None: all of it.
    """

    def __init__(
        self,
        contents: Sequence[bytes],
        size: tuple[int, int],
        matrices: np.ndarray | None = None,
        clips: np.ndarray | None = None,
    ) -> None:
        self.contents = tuple(contents)
        self.size = (int(size[0]), int(size[1]))
        count = len(self.contents)
        whole = np.array([0.0, 0.0, *self.size])
        self.matrices = np.broadcast_to(_SAME, (count, 2, 3)) if matrices is None else matrices
        self.clips = np.broadcast_to(whole, (count, 4)) if clips is None else clips

    @classmethod
    def of(cls, outlines: Sequence[Any], size: tuple[int, int]) -> "ObjectMasks":
        """Makes masks of outlines.

        Args:
            outlines: of each object None, a list of polygons ((n, 2) x, y in pixels, or x1, y1, x2, y2, ...), COCO's run lengths
                {size, counts}, or a bitmap (H, W).
            size: height and width of the image.

        Raises:
            ValueError: "mask i must RULE, got VALUE"; for a size that is none, and for outlines that are no sequence.
        """
        size = _checked_size(size)
        if isinstance(outlines, str | bytes) or not isinstance(outlines, Sequence | np.ndarray):
            raise ValueError(f"outlines must be a list, one for each object, got {type(outlines).__name__}")
        contents = []
        for i, outline in enumerate(outlines):
            try:
                contents.append(pack_outline(outline, size))
            except ValueError as error:
                raise ValueError(f"mask {i} must {error}") from None
        return cls(contents, size)

    @classmethod
    def joined(cls, parts: Sequence["ObjectMasks"]) -> "ObjectMasks":
        """Returns the masks of several groups of objects of one frame, one group behind the other."""
        first = parts[0]
        if any(part.size != first.size for part in parts):
            raise ValueError(f"masks must be of one frame, got {[part.size for part in parts]}: move them first")
        return cls(
            [content for part in parts for content in part.contents],
            first.size,
            np.concatenate([part.matrices for part in parts]),
            np.concatenate([part.clips for part in parts]),
        )

    @classmethod
    def from_serialized(cls, rows: Sequence[bytes] | np.ndarray, size: tuple[int, int] | None = None) -> "ObjectMasks":
        """Returns what `serialized` wrote.

        Args:
            rows: (M,) bytes.
            size: height and width of the frame; None: that of the first mask that was written with its place.
        """
        contents, places = [], []
        for row in (bytes(row) for row in rows):
            place = _PLACE.unpack_from(row, 1) if row[:1] == _MOVED else None
            contents.append(row if place is None else row[1 + _PLACE.size :])
            places.append(place)
        size = size or next(((place[0], place[1]) for place in places if place is not None), (1, 1))
        plain = (*size, *_SAME.ravel(), 0.0, 0.0, *size)
        table = np.array([place or plain for place in places], np.float64).reshape(-1, 12)
        return cls(contents, size, table[:, 2:8].reshape(-1, 2, 3), table[:, 8:])

    def serialized(self) -> np.ndarray:
        """Returns each mask as bytes, (M,) object: the outline with its place; empty where an object has none."""
        rows = np.empty(len(self), object)
        for i, content in enumerate(self.contents):
            place = _PLACE.pack(*self.size, *self.matrices[i].ravel(), *self.clips[i])
            rows[i] = _MOVED + place + content if content else NOTHING
        return rows

    def __len__(self) -> int:
        """Returns the number of objects."""
        return len(self.contents)

    @property
    def exists(self) -> np.ndarray:
        """Says which objects have a mask, (M,) bool."""
        return np.array([content != NOTHING for content in self.contents], bool)

    def take(self, indices: Any) -> "ObjectMasks":
        """Returns the masks of some objects, by their indices (or an (M,) bool array), in this order."""
        indices = np.asarray(indices)
        chosen = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        contents = [self.contents[i] for i in chosen.tolist()]
        return ObjectMasks(contents, self.size, self.matrices[chosen], self.clips[chosen])

    def moved(self, matrix: np.ndarray, size: tuple[int, int]) -> "ObjectMasks":
        """Returns the masks in a new frame; what lies outside of it is cut off for good.

        Args:
            matrix: (2, 3) float64 from x, y of this frame to those of the new one, axis-aligned.
            size: height and width of the new frame.

        Raises:
            ValueError: when the matrix is not axis-aligned.
        """
        matrix = np.asarray(matrix, np.float64)
        straight = (matrix[:, :2] != 0).tolist()
        if straight not in ([[True, False], [False, True]], [[False, True], [True, False]]):
            raise ValueError(
                f"matrix must be axis-aligned and keep areas above 0, got {matrix.tolist()}: mask the pixels instead"
            )
        linear = matrix[:, :2]
        matrices = np.concatenate(
            [linear @ self.matrices[..., :2], linear @ self.matrices[..., 2:] + matrix[:, 2:]], -1
        )
        corners = self.clips[:, [1, 0, 3, 2]].reshape(-1, 2, 2) @ linear.T + matrix[:, 2]
        low = np.maximum(corners.min(1)[:, ::-1], 0.0)
        high = np.minimum(corners.max(1)[:, ::-1], np.array(size, np.float64))
        return ObjectMasks(self.contents, size, matrices, np.concatenate([low, np.maximum(high, low)], -1))

    def bitmap(self, index: int) -> np.ndarray:
        """Returns the mask of one object, (H, W) bool; all False where it has none."""
        outline = unpack_outline(self.contents[index])
        matrix = self.matrices[index]
        if outline is None:
            return np.zeros(self.size, bool)
        if isinstance(outline, list):
            drawn = bitmap_of_polygons(moved_polygons(outline, matrix), self.size)
        else:
            drawn = moved_bitmap(outline, matrix, self.size)
        if self._is_cut(index):
            drawn = drawn & _cells_inside(self.clips[index], np.array([0.0, 0.0, *self.size]), self.size)
        return drawn.astype(bool)

    def rle(self, index: int) -> dict[str, Any]:
        """Returns the mask of one object in COCO's compressed run lengths: {"size": [H, W], "counts": bytes}."""
        if (self.matrices[index] == _SAME).all() and not self._is_cut(index):
            kept = rle_as_drawn(self.contents[index])
            if kept is not None and kept["size"] == list(self.size):
                return kept
        outline = unpack_outline(self.contents[index])
        if isinstance(outline, list) and not self._is_cut(index):
            return rle_of_polygons(moved_polygons(outline, self.matrices[index]), self.size)
        return coco_mask.encode(np.asfortranarray(self.bitmap(index).astype(np.uint8)))

    def areas(self) -> np.ndarray:
        """Returns the pixels of each mask in this frame, (M,) float32; 0 where an object has none."""
        pixels = [coco_mask.area(self.rle(i)) if content else 0.0 for i, content in enumerate(self.contents)]
        return np.array(pixels, np.float32)

    def grids(self, boxes: np.ndarray, side: int = GRID_SIDE) -> np.ndarray:
        """Samples each mask over its own box.

        Args:
            boxes: (M, 4) yxyx pixels of this frame.
            side: rows and columns.

        Returns:
            (M, side, side) uint8: 1 where the object is; zeros where it has no mask.
        """
        cells = np.zeros((len(self), side, side), np.uint8)
        for i, content in enumerate(self.contents):
            outline, box = unpack_outline(content), np.asarray(boxes[i], np.float64)
            if outline is None:
                continue
            if isinstance(outline, list):
                cells[i] = grid_of_polygons(moved_polygons(outline, self.matrices[i]), box, side)
            else:
                cells[i] = grid_of_bitmap(outline, self.matrices[i], box, side)
            if self._is_cut(i):
                cells[i] &= _cells_inside(self.clips[i], box, (side, side))
        return cells

    def without(self, covers: Sequence[np.ndarray | None]) -> "ObjectMasks":
        """Returns the masks without what covers the objects.

        Args:
            covers: of each object a bitmap (H, W) bool of what lies over it, or None.
        """
        contents, matrices, clips = list(self.contents), self.matrices.copy(), self.clips.copy()
        for i, cover in enumerate(covers):
            if cover is None or not contents[i]:
                continue
            contents[i] = pack_bitmap(self.bitmap(i) & ~cover)
            matrices[i], clips[i] = _SAME, (0.0, 0.0, *self.size)
        return ObjectMasks(contents, self.size, matrices, clips)

    def is_moved(self, index: int) -> bool:
        """Says whether the mask of an object lies elsewhere than it was drawn, or is cut."""
        return bool((self.matrices[index] != _SAME).any()) or self._is_cut(index)

    def _is_cut(self, index: int) -> bool:
        top, left, bottom, right = self.clips[index]
        height, width = self.size
        return bool(max(top, left, height - bottom, width - right) > _ROUNDING)


def _cells_inside(clip: np.ndarray, box: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Says which cells of a box (4,) yxyx have their centre in a clip (4,) yxyx: (rows, columns) uint8."""
    rows, columns = (
        start + (np.arange(count) + 0.5) * ((end - start) / count)
        for start, end, count in zip(box[:2], box[2:], cells, strict=True)
    )
    inside_y, inside_x = (rows > clip[0]) & (rows < clip[2]), (columns > clip[1]) & (columns < clip[3])
    return np.outer(inside_y, inside_x).astype(np.uint8)


def _checked_size(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence | np.ndarray) and not isinstance(size, str) else ()
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in sides):
        raise ValueError(f"size must be height and width of the image, whole numbers of at least 1, got {size!r}")
    return int(sides[0]), int(sides[1])
