"""Holds what the stages of a detector hand on: the boxes that heads look at, and the results of all stages."""

from typing import Any, NamedTuple


class Rois(NamedTuple):
    """The boxes of each image that the heads look at.

    Attributes:
        boxes: (B, R, 4) float32 yxyx pixels, zeros in empty rows.
        scores: (B, R) float32, -inf in empty rows; None in training, where they have no use.
        targets: in training, what the heads should predict for the boxes; else None.
    """

    boxes: Any
    scores: Any = None
    targets: Any = None


class Stages(NamedTuple):
    """The results of a detector's stages.

    Attributes:
        levels: {"P2": (B, H, W, C), ...}, of `Detector.features`.
        rpn: {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]}, of `Detector.rpn`; None without an RPN.
        rois: the boxes that the heads look at, of `Detector.propose`.
        outputs: {"box": ...}, of the heads that have looked at them, of `Detector.heads`.
    """

    levels: dict
    rpn: Any
    rois: Rois
    outputs: dict[str, Any]
