"""Collects what a detector finds in the tiles of images, leaves out objects that a tile cuts, and merges the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.data.tile_source import TileSource
from kfpn.data.views import parts_in_windows
from kfpn.evaluation.detect import original_detections
from kfpn.evaluation.detection_rows import take_rows
from kfpn.evaluation.mask_means import compact_masks
from kfpn.evaluation.merged import merge_detections
from kfpn.evaluation.segmentations import segmented
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image

NEAR = 2.0
"""Pixels: a box that ends no farther from a tile's border counts as cut by it. Of the image or of the network's input, whichever are more."""
COVERED = 0.8
"""Share of a cut box's area: if a box that no tile cuts covers as much, it shows the same object."""


class TileDetections:
    """Holds the detections of the tiles of images, in pixels of the images.

    A box that ends at an inner border of its tile is that of an object which the tile cuts. It is left out at once if the neighbour on
    that side shows the object's other end, so that it sees more of it: so where the part in this tile is shorter than the overlap. A longer
    one is left out in the end if a box of the same class that no tile cuts, as in the whole image, covers `COVERED` of it.

    Args:
        tile_source: the tiles.
        config: as `merge_detections` takes it.
    """

    def __init__(self, tile_source: TileSource, config: ModelConfig) -> None:
        self.tile_source, self.config = tile_source, config
        self._held: dict[int, list[dict[str, Any]]] = {}

    def add(self, tile: int, row: dict[str, np.ndarray]) -> None:
        """Adds what was found in a tile.

        Args:
            tile: index of the tile.
            row: of `outputs_by_image`.
        """
        window, collected = self.tile_source.windows[tile], original_detections(row)
        shrunk = (row["original_sizes"] / row["image_sizes"]).max()
        boxes = collected["boxes"] + np.tile(window[:2], 2).astype(np.float32)
        cut, elsewhere = cut_by_border(boxes, window, self.tile_source.neighbours[tile], NEAR * max(1.0, float(shrunk)))
        rows = take_rows(compact_masks({**collected, "boxes": boxes}), ~elsewhere)
        of_image = self._held.setdefault(int(self.tile_source.image_of_tile[tile]), [])
        of_image.append({**rows, "cut": cut[~elsewhere], "view": tile})

    def merged(self) -> list[dict[str, Any]]:
        """Returns the detections of each image, as `detect_image` gives them, in the order of the source."""
        return [self._merged(image) for image in sorted(self._held)]

    def merged_segmentations(self) -> list[dict[str, Any]]:
        """Returns the detections of each image, as `detect_source` gives them: masks one image at a time."""
        sizes, rule = self.tile_source.source.sizes, self.config.pasting
        return [segmented(self._merged(image), sizes[image], rule) for image in sorted(self._held)]

    def _merged(self, image: int) -> dict[str, Any]:
        merged = merge_detections(_uncovered(self._held[image]), self.config)
        return {"image_id": int(self.tile_source.source[image].image_id), **merged}


def cut_by_border(
    boxes: np.ndarray, window: np.ndarray, neighbours: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tells which boxes a tile cuts, and of which of them its neighbours see more.

    Args:
        boxes: (n, 4) yxyx, pixels of the image.
        window: (4,) the tile.
        neighbours: (4,) of the tile, see `TileGrid`.
        near: pixels within which a box counts as ending at a border.

    Returns:
        (n,) bool, cut, and (n,) bool, among them those that a neighbour sees more of.
    """
    # A comparison with NaN is False: no object is cut where the image itself ends.
    inner = ~np.isnan(neighbours)
    begins = (boxes[:, :2] < window[:2] + near) & inner[:2]
    ends = (boxes[:, 2:] > window[2:] - near) & inner[2:]
    seen_before = begins & (boxes[:, 2:] < neighbours[:2] - near)
    seen_behind = ends & (boxes[:, :2] > neighbours[2:] + near)
    return (begins | ends).any(-1), (seen_before | seen_behind).any(-1)


def _uncovered(held: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the tiles of an image without the cut boxes that a whole one of their class covers."""
    whole = {name: np.concatenate([tile[name][~tile["cut"]] for tile in held]) for name in ("boxes", "labels")}
    kept = []
    for tile in held:
        cut = np.flatnonzero(tile["cut"])
        _, shares = parts_in_windows(tile["boxes"][cut], whole["boxes"])
        covers = (shares >= COVERED) & (whole["labels"][:, None] == tile["labels"][cut])
        kept.append(take_rows(tile, np.delete(np.arange(len(tile["boxes"])), cut[covers.any(0)])))
    return kept


def detect_tile_source(model: Callable, source_pass: SourcePass) -> list[dict[str, Any]]:
    """Returns the detections of every image of a source, found in its tiles, as `detect_source` gives them.

    Args:
        model: as `detect_source` takes it.
        source_pass: of a `TileSource`.

    Raises:
        ValueError: as `detect_source`, or if the source is another one.
    """
    tile_source = source_pass.source
    if not isinstance(tile_source, TileSource):
        raise ValueError(f"source must be a TileSource, got {type(tile_source).__name__}")
    collected = TileDetections(tile_source, source_pass.config.model)
    for tile, row in outputs_by_image(model, source_pass):
        collected.add(tile, row)
    return collected.merged_segmentations()
