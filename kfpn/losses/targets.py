"""Computes what the sampled anchors and RoIs should predict from the ground truth."""

from typing import Any, NamedTuple

from keras import ops

from kfpn.config.run import SamplingConfig
from kfpn.losses.matching import MatchRule, Sample, match, sample
from kfpn.ops import boxes as box_ops
from kfpn.ops.boxes import gather_rows


class Targets(NamedTuple):
    """A sample of S candidates an image and their targets.

    Attributes:
        index, positive, valid: see `kfpn.losses.matching.Sample`.
        labels: (B, S) int32, class of the matched box; the background's label where not positive.
        deltas: (B, S, 4) float32 (dy, dx, dh, dw) to the matched box; meaningless where not positive.
        boxes: (B, S, 4) float32 yxyx, the sampled candidates.
        gt_index: (B, S) int32, the matched box of each; meaningless where not positive.
    """

    index: Any
    positive: Any
    valid: Any
    labels: Any
    deltas: Any
    boxes: Any
    gt_index: Any = None


def positive_rows(sampling: SamplingConfig) -> int:
    """Returns P: in the first P rows of a sample of RoIs stand all positives. It is at least 1, so that no shape is empty."""
    return max(1, int(sampling.roi_batch * sampling.roi_positive_fraction))


def mask_rows(sampling: SamplingConfig) -> int:
    """Returns how many rows of a sample of RoIs the mask head learns from: the first `mask_batch`, and P of `positive_rows` at most.

    The positives of a sample stand in the order of their noise, so the first of them are a random choice.
    """
    rows = positive_rows(sampling)
    return rows if sampling.mask_batch is None else min(rows, sampling.mask_batch)


def rpn_targets(anchors, usable, gt, sampling: SamplingConfig, noise) -> Targets:
    """Samples anchors for the RPN losses; labels are 0 for objects, 1 for background.

    Args:
        anchors: (1 or B, N, 4) float32 yxyx, of all levels.
        usable: (B, N) bool, False for anchors of cells in the batch's padding.
        gt: dict of gt_boxes (B, G, 4), gt_labels (B, G), gt_crowd (B, G), see `kfpn.losses.matching.match`.
        sampling: thresholds and counts.
        noise: (B, N) float32 in 0..1.
    """
    rule = MatchRule(sampling.rpn_positive_iou, sampling.rpn_negative_iou, keep_best=True)
    matched, gt_index = match(anchors, gt, rule)
    matched = ops.where(usable, matched, -1)
    drawn = sample(matched, noise, sampling.rpn_batch, sampling.rpn_positive_fraction)
    objects = {**gt, "gt_labels": ops.zeros_like(gt["gt_labels"])}
    return _targets_of(drawn, anchors, gt_index, objects, 1, box_ops.RPN_DELTA_SCALE)


def roi_targets(proposals, usable, gt, num_classes, sampling: SamplingConfig, noise) -> Targets:
    """Samples RoIs for the box head's losses; background is label `num_classes`.

    Args:
        proposals: (B, R, 4) float32 yxyx, the ground-truth boxes among them.
        usable: (B, R) bool, False in rows that hold no box.
        gt, sampling: as for `rpn_targets`.
        num_classes: int, K.
        noise: (B, R) float32 in 0..1.
    """
    threshold = sampling.roi_positive_iou
    matched, gt_index = match(proposals, gt, MatchRule(threshold, threshold))
    matched = ops.where(usable, matched, -1)
    drawn = sample(matched, noise, sampling.roi_batch, sampling.roi_positive_fraction)
    return _targets_of(drawn, proposals, gt_index, gt, num_classes, box_ops.HEAD_DELTA_SCALE)


def _targets_of(drawn: Sample, candidates, gt_index, gt, background, delta_scale) -> Targets:
    boxes, gt_index = gather_rows(candidates, drawn.index), gather_rows(gt_index, drawn.index)
    labels = ops.where(drawn.positive, gather_rows(gt["gt_labels"], gt_index), background)
    deltas = box_ops.encode_boxes(gather_rows(gt["gt_boxes"], gt_index), boxes, delta_scale)
    return Targets(*drawn, labels, deltas, boxes, gt_index)
