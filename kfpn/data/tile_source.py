"""Gives the tiles of a data set's images as images of their own."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kfpn.config.tile_options import Tiles
from kfpn.data.image import load_image
from kfpn.data.image_part import ImagePart
from kfpn.data.mask_moves import seen_masks
from kfpn.data.record import Record, Source
from kfpn.data.tile_grid import tile_grid
from kfpn.data.views import cut_boxes

KEPT = 3
"""Decoded images that are kept: the tiles of an image follow each other, and several threads read them."""
LEAST_SEEN = 0.3
"""Share of an object's area that a tile must show so that the object counts as one of the tile's."""


class TileSource:
    """Gives each part of each image of a source that is looked at: as `tile_grid` lays them, image after image.

    Each image is decoded whole, once for all of its tiles where they are read in their order. Objects are cut to their tile, as `cut_boxes`
    does; those with a smaller share in it are left out.

    Args:
        source: the data set.
        tiles: with a side.

    Attributes:
        name, class_names, category_ids, max_boxes: of the source.
        sizes: (T, 2) int32, of each part.
        windows: (T, 4) int32, top, left, bottom, right in pixels of the image.
        neighbours: (T, 4), see `TileGrid`.
        image_of_tile: (T,) int64, index of the image in the source.
    """

    def __init__(self, source: Source, tiles: Tiles) -> None:
        self.source, self.tiles = source, tiles
        self.name, self.class_names, self.category_ids = source.name, source.class_names, source.category_ids
        self.max_boxes = source.max_boxes
        sizes = [(int(height), int(width)) for height, width in source.sizes]
        grids = {size: tile_grid(size, tiles) for size in set(sizes)}
        counts = [len(grids[size].windows) for size in sizes]
        self.windows = np.concatenate([np.zeros((0, 4), np.int32), *(grids[size].windows for size in sizes)])
        self.neighbours = np.concatenate([np.zeros((0, 4), np.float32), *(grids[size].neighbours for size in sizes)])
        self.image_of_tile = np.repeat(np.arange(len(sizes)), counts).astype(np.int64)
        self.sizes = (self.windows[:, 2:] - self.windows[:, :2]).astype(np.int32)
        self._decoded = _LastImages()

    def __len__(self) -> int:
        """Returns the number of parts."""
        return len(self.windows)

    def __getitem__(self, index: int) -> Record:
        """Returns a part as a record, whose `image_id` is its index, and whose boxes are in its own pixels."""
        image = int(self.image_of_tile[index])
        record = self.source[image]
        top, left, bottom, right = (int(side) for side in self.windows[index])
        window = (top, left, bottom, right)
        boxes, kept = cut_boxes(record.boxes, record.crowd, window, LEAST_SEEN)
        sides = (record.boxes[kept, 2:] - record.boxes[kept, :2]).astype(np.float64)
        seen = (boxes[kept, 2:] - boxes[kept, :2]).astype(np.float64)
        return Record(
            image=ImagePart(lambda: self._decoded.get(image, lambda: load_image(record)), window),
            image_id=index,
            height=bottom - top,
            width=right - left,
            boxes=boxes[kept],
            labels=record.labels[kept],
            crowd=record.crowd[kept],
            areas=(record.areas[kept] * (seen.prod(-1) / np.maximum(sides.prod(-1), 1e-12))).astype(np.float32),
            name=record.name,
            masks=seen_masks(
                None if record.masks is None else record.masks.take(kept), window, (bottom - top, right - left)
            ),
        )


def tiles_without_images(source: Source, tiles: Tiles | None) -> Source:
    """Returns the tiles of a source's images, without the whole images; the source itself where `tiles` is None."""
    return TileSource(source, replace(tiles, whole=False)) if tiles else source


class _LastImages:
    """Keeps the images that were decoded last, for several threads; each image is decoded by one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._locks: dict[int, threading.Lock] = {}

    def get(self, index: int, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Returns image `index`, which `load` decodes if it is not kept."""
        with self._lock:
            if index not in self._held:
                self._held[index], self._locks[index] = [], threading.Lock()
                while len(self._held) > KEPT:
                    gone, _ = self._held.popitem(last=False)
                    del self._locks[gone]
            else:
                self._held.move_to_end(index)
            held, lock = self._held[index], self._locks[index]
        with lock:
            if not held:
                held.append(load())
            return held[0]
