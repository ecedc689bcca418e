"""Collects what a detector finds in the tiles of images, leaves out objects that a tile cuts, and merges the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.data.look_source import LookSource
from kfpn.data.views import parts_in_windows
from kfpn.evaluation.detect import original_detections
from kfpn.evaluation.merged import merge_detections
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image

NEAR = 2.0
"""Pixels: a box that ends no farther from a tile's border counts as cut by it. Of the image or of the network's input, whichever are more."""
COVERED = 0.8
"""Share of a cut box's area: if a box that no tile cuts covers as much, it shows the same object."""


class LookDetections:
    """Holds the detections of the tiles of images, in pixels of the images.

    A box that ends at an inner border of its tile is that of an object which the tile cuts. It is left out at once if the neighbour on
    that side shows the object's other end, so that it sees more of it: so where the part in this tile is shorter than the overlap. A longer
    one is left out in the end if a box of the same class that no tile cuts, as in the whole image, covers `COVERED` of it.

    Args:
        looks: the tiles.
        config: as `merge_detections` takes it.
    """

    def __init__(self, looks: LookSource, config: ModelConfig) -> None:
        self.looks, self.config = looks, config
        self._held: dict[int, list[dict[str, np.ndarray]]] = {}

    def add(self, look: int, row: dict[str, np.ndarray]) -> None:
        """Adds what was found in a tile.

        Args:
            look: index of the tile.
            row: of `outputs_by_image`.
        """
        window, collected = self.looks.windows[look], original_detections(row)
        shrunk = (row["original_sizes"] / row["image_sizes"]).max()
        boxes = collected["boxes"] + np.tile(window[:2], 2).astype(np.float32)
        cut, elsewhere = cut_by_border(boxes, window, self.looks.neighbours[look], NEAR * max(1.0, float(shrunk)))
        rows = {"boxes": boxes, "scores": collected["scores"], "labels": collected["labels"], "cut": cut}
        of_image = self._held.setdefault(int(self.looks.image_of_look[look]), [])
        of_image.append({name: values[~elsewhere] for name, values in rows.items()})

    def merged(self) -> list[dict[str, Any]]:
        """Returns the detections of each image, as `detect_source` gives them, in the order of the source."""
        return [
            {"image_id": int(self.looks.source[image].image_id), **merge_detections(_uncovered(held), self.config)}
            for image, held in sorted(self._held.items())
        ]


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


def _uncovered(held: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Returns the looks at an image without the cut boxes that a whole one of their class covers."""
    whole = {name: np.concatenate([look[name][~look["cut"]] for look in held]) for name in ("boxes", "labels")}
    kept = []
    for look in held:
        cut = np.flatnonzero(look["cut"])
        _, shares = parts_in_windows(look["boxes"][cut], whole["boxes"])
        covers = (shares >= COVERED) & (whole["labels"][:, None] == look["labels"][cut])
        kept.append({name: np.delete(values, cut[covers.any(0)], axis=0) for name, values in look.items()})
    return kept


def detect_looks(model: Callable, source_pass: SourcePass) -> list[dict[str, Any]]:
    """Returns the detections of every image of a source, found in its tiles, as `detect_source` gives them.

    Args:
        model: as `detect_source` takes it.
        source_pass: of a `LookSource`.

    Raises:
        ValueError: as `detect_source`, or if the source is another one.
    """
    looks = source_pass.source
    if not isinstance(looks, LookSource):
        raise ValueError(f"source must be a LookSource, got {type(looks).__name__}")
    collected = LookDetections(looks, source_pass.config.model)
    for look, row in outputs_by_image(model, source_pass):
        collected.add(look, row)
    return collected.merged()
