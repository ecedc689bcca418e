"""Ground truth -> what the sampled anchors and RoIs should have predicted."""

import dataclasses
from typing import Any

from keras import ops

from kfpn.config.run import SamplingConfig
from kfpn.losses.matching import match, sample
from kfpn.ops import boxes as box_ops
from kfpn.ops.boxes import gather_rows


@dataclasses.dataclass(frozen=True)
class Targets:
    """A sample of S candidates an image and their targets.

    Attributes:
        index: (B, S) int32 into the candidates.
        positive: (B, S) bool.
        valid: (B, S) bool, False in empty slots.
        labels: (B, S) int32, class of the matched box; `background` where not positive.
        deltas: (B, S, 4) float32 (dy, dx, dh, dw) to the matched box; meaningless where not positive.
        boxes: (B, S, 4) float32 yxyx, the sampled candidates.
    """

    index: Any
    positive: Any
    valid: Any
    labels: Any
    deltas: Any
    boxes: Any


def rpn_targets(anchors, usable, gt, sampling: SamplingConfig, noise) -> Targets:
    """Samples anchors for the RPN losses; labels are 0 for objects, 1 for background.

    Args:
        anchors: (1 or B, N, 4) float32 yxyx, of all levels.
        usable: (B, N) bool, False for anchors of cells in the batch's padding.
        gt: dict of gt_boxes (B, G, 4), gt_labels (B, G), gt_crowd (B, G).
        sampling: thresholds and counts.
        noise: (B, N) float32 in 0..1.
    """
    matched, box = match(
        anchors, gt["gt_boxes"], gt["gt_labels"], gt["gt_crowd"],
        sampling.rpn_positive_iou, sampling.rpn_negative_iou, keep_best=True,
    )  # fmt: skip
    matched = ops.where(usable, matched, -1)
    chosen = sample(matched, noise, sampling.rpn_batch, sampling.rpn_positive_fraction)
    no_class = ops.zeros_like(gt["gt_labels"])
    return _targets(chosen, anchors, box, gt["gt_boxes"], no_class, 1, box_ops.RPN_DELTA_SCALE)


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
    matched, box = match(proposals, gt["gt_boxes"], gt["gt_labels"], gt["gt_crowd"], threshold, threshold)
    matched = ops.where(usable, matched, -1)
    chosen = sample(matched, noise, sampling.roi_batch, sampling.roi_positive_fraction)
    return _targets(chosen, proposals, box, gt["gt_boxes"], gt["gt_labels"], num_classes, box_ops.HEAD_DELTA_SCALE)


def _targets(chosen, candidates, box, gt_boxes, gt_labels, background, weights) -> Targets:
    index, positive, valid = chosen
    box = gather_rows(box, index)
    boxes = gather_rows(candidates, index)
    labels = ops.where(positive, gather_rows(gt_labels, box), background)
    deltas = box_ops.encode(gather_rows(gt_boxes, box), boxes, weights)
    return Targets(index, positive, valid, labels, deltas, boxes)
