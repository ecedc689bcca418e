"""Matches boxes to the ground truth: positive, negative or ignored; and samples those that a loss sees."""

import dataclasses
from typing import Any, NamedTuple

from keras import ops

from kfpn.ops import boxes as box_ops

CROWD_OVERLAP = 0.7
"""A candidate of which at least this share lies in a crowd region is not a negative (CROWD_OVERLAP_THRESH in tensorpack)."""


@dataclasses.dataclass(frozen=True)
class MatchRule:
    """Which candidates are positive, and which negative.

    Attributes:
        positive_iou: float, candidates with at least this IoU with a ground-truth box are positive.
        negative_iou: float, candidates with less than this IoU with every box are negative; those between are ignored.
        keep_best: bool, whether each ground-truth box's best candidates are positive too, whatever their IoU.
    """

    positive_iou: float
    negative_iou: float
    keep_best: bool = False


def match(candidates, gt, rule: MatchRule):
    """Matches candidate boxes to the ground truth by IoU (Faster R-CNN, section 3.1.2).

    Args:
        candidates: (B, N, 4) or (1, N, 4) float32 yxyx.
        gt: dict of gt_boxes (B, G, 4) float32 yxyx, gt_labels (B, G) int32 with -1 in padding, gt_crowd (B, G) bool.
        rule: the thresholds.

    Returns:
        matched: (B, N) int32, 1 positive, 0 negative, -1 ignored (between the thresholds, or in a crowd region).
        index: (B, N) int32, the ground-truth box of highest IoU (the first of equals).
    """
    gt_boxes, gt_labels, gt_crowd = gt["gt_boxes"], gt["gt_labels"], gt["gt_crowd"]
    real = ops.logical_and(gt_labels >= 0, ops.logical_not(gt_crowd))
    overlap = ops.where(real[:, None, :], box_ops.iou(candidates, gt_boxes), 0.0)
    best = ops.max(overlap, axis=-1)
    index = ops.cast(ops.argmax(overlap, axis=-1), "int32")
    positive = ops.logical_and(best >= rule.positive_iou, best > 0.0)
    if rule.keep_best:
        of_box = ops.max(overlap, axis=1, keepdims=True)
        is_best = ops.logical_and(overlap == of_box, of_box > 0.0)
        positive = ops.logical_or(positive, ops.any(is_best, axis=-1))
    crowd = ops.logical_and(gt_labels >= 0, gt_crowd)
    in_crowd = ops.where(crowd[:, None, :], box_ops.intersection_over_area(candidates, gt_boxes), 0.0)
    negative = ops.logical_and(best < rule.negative_iou, ops.max(in_crowd, axis=-1) < CROWD_OVERLAP)
    return ops.where(positive, 1, ops.where(negative, 0, -1)), index


class Sample(NamedTuple):
    """Candidates that were drawn, positives first.

    Attributes:
        index: (B, count) int32 into the candidates; 0 in empty slots.
        positive: (B, count) bool.
        valid: (B, count) bool, False in slots left empty because there were too few candidates.
    """

    index: Any
    positive: Any
    valid: Any


def sample(matched, noise, count, positive_fraction) -> Sample:
    """Draws `count` candidates an image, at most a share of them positive: a pure function of its arguments.

    Args:
        matched: (B, N) int32, 1 positive, 0 negative, -1 ignored.
        noise: (B, N) float32, uniform in 0..1: the positives (negatives) of largest noise are drawn.
        count: int, how many are drawn at most.
        positive_fraction: float, at most floor(count x this) are positive; negatives fill the rest.
    """
    candidates = matched.shape[1]
    positives = min(int(count * positive_fraction), candidates)
    negatives = min(count, candidates)
    positive_noise, positive_index = ops.top_k(ops.where(matched == 1, noise, -1.0), positives)
    negative_noise, negative_index = ops.top_k(ops.where(matched == 0, noise, -1.0), negatives)
    index = ops.concatenate([positive_index, negative_index], axis=1)
    drawn = ops.concatenate([positive_noise, negative_noise], axis=1) >= 0.0
    # The drawn candidates move to the front, in order. Negatives for which no slot is left are dropped.
    slots = positives + negatives
    order = ops.where(drawn, ops.cast(slots - ops.arange(slots), "int32"), 0)
    rank, place = ops.top_k(order, min(count, slots))
    missing = count - min(count, slots)
    rank, place = (ops.pad(x, ((0, 0), (0, missing))) for x in (rank, place))
    valid = rank > 0
    index = ops.where(valid, ops.take_along_axis(ops.cast(index, "int32"), ops.cast(place, "int32"), axis=1), 0)
    return Sample(index, ops.logical_and(valid, place < positives), valid)
