"""Merges detections of one image that come from several looks at it: sizes, mirror images and tiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.evaluation.detection_rows import ROWS
from kfpn.evaluation.mask_means import float_masks, mean_masks
from kfpn.ops.nms import suppress

AT_ONCE = 1000
"""Detections that are compared at once: memory grows with the square of their number."""


def merge_detections(passes: Sequence[dict[str, Any]], config: ModelConfig) -> dict[str, np.ndarray]:
    """Merges the detections of several passes over one image by NMS within each class.

    Of two detections with equal scores, the one of the earlier pass goes first. The detections of a single pass stay as they
    are, because the network's own NMS has been applied to them. A mask is the mean over the passes, see `mean_masks`.

    Args:
        passes: `boxes` (n, 4) yxyx pixels of the original image, `scores` (n,), `labels` (n,) of each pass; with masks also
            `masks` (n, M, M), as they are or of `compact_masks`, and `view` int, which part of the image the pass looked at; without
            `view` all looked at the same.
        config: with `nms_iou`, `score_threshold` (scores at or below it are dropped) and `max_detections`.

    Returns:
        dict: `boxes` (m, 4) float32, `scores` (m,) float32 from high to low, `labels` (m,) int32; m is at most
        `max_detections`; with masks also `masks` (m, M, M) float32.
    """
    names = [name for name in ROWS if name in passes[0]]
    rows = {name: np.concatenate([detections[name] for detections in passes]) for name in names}
    if len(passes) == 1 or not len(rows["scores"]):
        return {**rows, "masks": float_masks(rows["masks"])} if "masks" in rows else rows
    if "masks" in rows:
        lengths = [len(detections["scores"]) for detections in passes]
        rows["look"] = np.repeat(np.arange(len(passes)), lengths)
        rows["view"] = np.repeat([detections.get("view", 0) for detections in passes], lengths)
    order = np.argsort(-rows["scores"], kind="stable")
    ranked = {name: values[order] for name, values in rows.items()}
    candidates = np.flatnonzero(ranked["scores"] > config.score_threshold)
    chosen = candidates[:0]
    # Only better boxes suppress a box. So the best can be chosen before the others are looked at.
    for start in range(0, len(candidates), AT_ONCE):
        together = np.concatenate([chosen, candidates[start : start + AT_ONCE]])
        boxes, labels = ranked["boxes"][together], ranked["labels"][together]
        keep = suppress(boxes[None], np.ones((1, len(together)), bool), config.nms_iou, groups=labels[None])
        chosen = together[np.asarray(keep)[0]]
        if len(chosen) >= config.max_detections:
            break
    chosen = chosen[: config.max_detections]
    merged = {name: ranked[name][chosen] for name in names}
    return {**merged, "masks": mean_masks(ranked, chosen, config.nms_iou)} if "masks" in merged else merged
