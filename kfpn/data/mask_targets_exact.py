"""Computes what the mask head should predict, exactly as detectron2 and torchvision do: from polygons or bitmaps, in NumPy."""

from typing import NamedTuple

import numpy as np

from kfpn.config.sampling_config import MaskTargets
from kfpn.data.mask_raster import CellSamples, cell_averages
from kfpn.data.object_masks import ObjectMasks


class BoxRule(NamedTuple):
    """Says where the cells of a RoI lie in a bitmap.

    Attributes:
        shift: pixels that are subtracted from the box: 0.5 where pixel 0 has its centre at 0 (RoIAlign's `aligned`).
        least: pixels, the shortest side that a box is taken to have.
    """

    shift: float
    least: float


DETECTRON2 = BoxRule(0.5, 0.0)
"""Of detectron2's `BitMasks.crop_and_resize`."""
TORCHVISION = BoxRule(0.0, 1.0)
"""Of torchvision's `project_masks_on_boxes`."""


def exact_mask_targets(
    masks: ObjectMasks, rois: np.ndarray, gt_index: np.ndarray, side: int, rule: MaskTargets
) -> np.ndarray:
    """Returns what the mask head should predict for RoIs, by an exact rule.

    Args:
        masks: those of an image's objects.
        rois: (P, 4) float32 yxyx pixels of the frame of `masks`.
        gt_index: (P,) int, the object of each RoI.
        side: M, cells an axis.
        rule: "polygons" (an object without polygons takes its bitmap), "bitmaps" or "soft", see `SamplingConfig.mask_targets`.

    Returns:
        (P, M, M) float32: 0 or 1, with "soft" 0..1; zeros where the object has no mask.
    """
    if rule == "polygons":
        return masks.take(gt_index).grids(rois, side).astype(np.float32)
    targets = np.zeros((len(rois), side, side), np.float32)
    exists = masks.exists
    for index in np.unique(gt_index):  # Each object is decoded once.
        if not exists[index]:
            continue
        rows = np.flatnonzero(gt_index == index)
        if rule == "soft":
            targets[rows] = bitmap_shares(masks.bitmap(index), rois[rows], side, TORCHVISION)
        else:
            targets[rows] = bitmap_shares(masks.bitmap(index), rois[rows], side, DETECTRON2) >= 0.5
    return targets


def bitmap_shares(bitmap: np.ndarray, rois: np.ndarray, side: int, rule: BoxRule) -> np.ndarray:
    """Returns the share of the object in each cell of each RoI: RoIAlign of its bitmap, with ceil(cell's side) samples an axis.

    Args:
        bitmap: (H, W) bool, of one object.
        rois: (P, 4) yxyx pixels.
        side: M, cells an axis.
        rule: `DETECTRON2`, whose targets are the shares of at least .5, or `TORCHVISION`, whose targets are the shares.

    Returns:
        (P, M, M) float64 in 0..1.
    """
    shares = np.zeros((len(rois), side, side))
    for row, roi in enumerate(np.asarray(rois, np.float64)):
        rows, columns = (
            CellSamples.along(
                roi[axis] - rule.shift,
                max(roi[axis + 2] - roi[axis], rule.least) / side,
                side,
                bitmap.shape[axis],
            )
            for axis in (0, 1)
        )
        shares[row] = cell_averages(bitmap, rows, columns)
    return shares
