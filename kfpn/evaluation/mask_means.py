"""Merges the masks that several looks at an object gave to it: their mean, in the box of the one that is kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.ops.box_overlaps import areas, shared_areas
from kfpn.ops.mask_paste import paste_masks


def compact_masks(detections: dict[str, Any]) -> dict[str, Any]:
    """Returns detections whose masks take a byte a cell, as long as they wait for the other looks at their image.

    Args:
        detections: with `masks` (n, M, M) float32 in 0..1, if there are any; then they become uint8, 0..255.
    """
    if "masks" not in detections:
        return detections
    return {**detections, "masks": np.round(detections["masks"] * 255.0).astype(np.uint8)}


def float_masks(masks: np.ndarray) -> np.ndarray:
    """Returns masks of `compact_masks` as float32 in 0..1; others as they are."""
    return masks.astype(np.float32) / np.float32(255.0) if masks.dtype == np.uint8 else masks


def mean_masks(rows: Mapping[str, np.ndarray], chosen: np.ndarray, least_iou: float) -> np.ndarray:
    """Returns the masks of the detections that NMS has kept, each the mean of those that belong to it.

    These are its own and, of each other look at the same part of the image, that of the detection which overlaps it most: of its
    class, by more than `least_iou`, and no other kept one more. A mask of another box is moved into the kept one as
    `kfpn.paste_masks` samples it, and is 0 outside of its own box.

    Args:
        rows: `boxes` (n, 4), `labels` (n,), `masks` (n, M, M) of all looks; `look` (n,) int, which look gave it; and `view` (n,)
            int, which part of the image that was: masks of different parts are not averaged, because one may show an object that
            the other cuts.
        chosen: (m,) indices of the kept ones.
        least_iou: 0..1, that of NMS.

    Returns:
        (m, M, M) float32 in 0..1.
    """
    best, owner = np.full(len(rows["boxes"]), least_iou), np.full(len(rows["boxes"]), -1)
    for index in chosen:
        ious = _ious(rows["boxes"][index], rows["boxes"])
        ious[(rows["labels"] != rows["labels"][index]) | (rows["view"] != rows["view"][index])] = 0.0
        nearer = ious > best
        best[nearer], owner[nearer] = ious[nearer], index
    owner[chosen] = -1
    means = np.zeros((len(chosen), *rows["masks"].shape[1:]), np.float32)
    for row, index in enumerate(chosen):
        own = np.flatnonzero((owner == index) & (rows["look"] != rows["look"][index]))
        own = own[np.argsort(-best[own], kind="stable")]
        _, first = np.unique(rows["look"][own], return_index=True)
        means[row] = _mean(rows, index, own[first])
    return means


def _mean(rows: Mapping[str, np.ndarray], index: int, others: np.ndarray) -> np.ndarray:
    mask, box = float_masks(rows["masks"][index]), rows["boxes"][index].astype(np.float64)
    if not len(others):
        return mask
    side = mask.shape[0]
    cells = (rows["boxes"][others] - np.tile(box[:2], 2)) / np.tile(box[2:] - box[:2], 2) * side
    moved = paste_masks(float_masks(rows["masks"][others]), cells, side, side, None)
    return (mask + moved.sum(0)) / (1 + len(others))


def _ious(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    box, boxes = box.astype(np.float64), boxes.astype(np.float64)
    inter = shared_areas(box, boxes)
    union = areas(box[None]) + areas(boxes) - inter
    return inter / np.maximum(union, 1e-12)
