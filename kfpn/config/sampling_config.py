"""Defines which examples the losses see: a frozen dataclass, checked when made, the section `sampling` of the configuration."""

import dataclasses
from typing import Literal

from kfpn.config.checks import NOT_NEGATIVE, POSITIVE, SHARE, SHARE_ABOVE_0, WHOLE_OR_NONE, check, one_of, whole
from kfpn.config.field_types import require_types

MaskTargets = Literal["grid", "polygons", "bitmaps", "soft"]


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Which anchors, RoIs and windows the losses see, and how errors count."""

    rpn_positive_iou: float = 0.7
    """Anchors with at least this IoU with a ground-truth box are positive (and each box's best anchors)."""
    rpn_negative_iou: float = 0.3
    """Anchors with less than this IoU with every box are negative; those between are ignored."""
    rpn_batch: int = 256
    """Anchors an image in the RPN loss."""
    rpn_positive_fraction: float = 0.5
    """At most this share of them is positive."""
    roi_positive_iou: float = 0.5
    """RoIs with at least this IoU with a ground-truth box are positive, the others negative."""
    roi_batch: int = 512
    """RoIs an image in the box head's loss."""
    roi_positive_fraction: float = 0.25
    """At most this share of them is positive."""
    rpn_box_beta: float = 1.0 / 9.0
    """The error at which the RPN's smooth L1 turns from a square to a line; 0 is plain L1 (detectron2)."""
    roi_box_beta: float = 1.0
    """The same for the box head: 1 in Fast R-CNN, 1/9 in torchvision, 0 in detectron2."""
    mask_batch: int | None = None
    """The mask head learns from at most so many positive RoIs of an image; of more, these are drawn at random. None: all (Mask R-CNN)."""
    mask_targets: MaskTargets = "grid"
    """What the mask head learns for a RoI. grid: the cells that lie at least half in the object, from its mask of 112 x 112, within the
    compiled step. Exactly as others, on the host: polygons or bitmaps (detectron2), soft (torchvision: each cell's share)."""
    segment_batch: int = 128
    """Windows an image in the losses of segments (FPN, appendix B)."""
    segment_positive_fraction: float = 0.25
    """At most this share of them is positive: one to three (FPN, appendix B)."""
    segment_mask_weight: float = 10.0
    """The loss of the segments' masks counts so many times as much as that of their scores (FPN, appendix B)."""

    def __post_init__(self) -> None:
        require_types(self, "sampling.")
        check(self, "sampling.", "rpn_positive_iou rpn_negative_iou roi_positive_iou", SHARE)
        order = ("be at most sampling.rpn_positive_iou", lambda v: v <= self.rpn_positive_iou)
        check(self, "sampling.", "rpn_negative_iou", order)
        check(self, "sampling.", "rpn_batch roi_batch segment_batch", whole(1))
        check(self, "sampling.", "rpn_positive_fraction roi_positive_fraction segment_positive_fraction", SHARE_ABOVE_0)
        check(self, "sampling.", "rpn_box_beta roi_box_beta", NOT_NEGATIVE)
        check(self, "sampling.", "mask_batch", WHOLE_OR_NONE)
        check(self, "sampling.", "segment_mask_weight", POSITIVE)
        if int(min(self.segment_batch, 10**9) * self.segment_positive_fraction) < 1:
            raise ValueError(
                f"sampling.segment_positive_fraction must give at least one of the {self.segment_batch} windows of sampling.segment_batch, "
                f"got {self.segment_positive_fraction:g}: without a positive no mask is learnt; raise one of the two"
            )
        check(self, "sampling.", "mask_targets", one_of(MaskTargets))
