"""Holds what the page of a pyramid shows of one image: arrays, and the names of levels and classes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kfpn.plotting.draw_masks import Masks


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """The strength of each cell of one level.

    Attributes:
        name: "C2" to "C5" or "P2" to "P6".
        stride: int, pixels from cell to cell.
        channels: int.
        strength: (H, W) float32, the L2 norm over the channels of each cell.
    """

    name: str
    stride: int
    channels: int
    strength: np.ndarray


@dataclasses.dataclass(frozen=True)
class Objectness:
    """The RPN's probability of an object, for the anchors of one size on one level.

    Attributes:
        level: the level's name.
        stride: int, pixels from cell to cell.
        size: float, the side of the square anchor in pixels.
        probability: (H, W) float32 in 0..1, the highest of each cell's aspect ratios.
    """

    level: str
    stride: int
    size: float
    probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class PyramidView:
    """All that a page shows of one image. Boxes are yxyx pixels of the network's input.

    Attributes:
        image: (H, W, 3) uint8 RGB, the network's input, without padding.
        stages: the backbone's maps, C2 first.
        levels: the pyramid's maps, P2 first; empty for a detector whose RPN works on a stage of the backbone.
        objectness: one for each level and anchor size.
        rois: (R, 4) float32, best first.
        roi_scores: (R,) float32, their objectness in 0..1.
        roi_levels: (R,) int, the number of the level that each RoI is pooled from (FPN, equation 1).
        pooled: names of the levels that RoIs are pooled from.
        boxes: (n, 4) float32, the detections' boxes.
        labels: (n,) int, the detections' class ids.
        scores: (n,) float32 in 0..1, the detections' scores.
        class_names: names of labels 0 .. K-1.
        masks: (n, M, M) float32 in 0..1, the detections' masks, each within its box; None for a detector without masks.
        parts: gives the pasted mask of a detection, see `kfpn.plotting.draw_masks`; None for a detector without masks.
    """

    image: np.ndarray
    stages: Sequence[FeatureMap]
    levels: Sequence[FeatureMap]
    objectness: Sequence[Objectness]
    rois: np.ndarray
    roi_scores: np.ndarray
    roi_levels: np.ndarray
    pooled: Sequence[str]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: Sequence[str]
    masks: np.ndarray | None = None
    parts: Masks | None = None


def level_counts(view: PyramidView) -> dict[str, int]:
    """Returns the number of RoIs that are pooled from each level: {"P2": 103, ...}."""
    return {name: int((np.asarray(view.roi_levels) == int(name[1:])).sum()) for name in view.pooled}
