"""Computes the losses of the later stages of a cascade, each against objects that its boxes match better (Cascade R-CNN, section 4.2)."""

import dataclasses

from keras import ops

from kfpn.config.model import CASCADE, STAGE_IOUS
from kfpn.config.run import Config
from kfpn.losses import box
from kfpn.losses.matching import MatchRule, match
from kfpn.losses.targets import Targets
from kfpn.modeling.heads.cascade import delta_scale
from kfpn.ops import boxes as box_ops
from kfpn.ops.boxes import gather_rows


def stage_targets(boxes, exists, gt: dict, num_classes: int, stage: int) -> Targets:
    """Matches the boxes that a stage looks at anew; all of them count, nothing is sampled.

    Args:
        boxes: (B, S, 4) float32 yxyx pixels.
        exists: (B, S) bool, False in rows that hold no box. Boxes without an area count as none.
        gt: dict of gt_boxes (B, G, 4), gt_labels (B, G), gt_crowd (B, G), see `kfpn.losses.matching.match`.
        num_classes: int, K, the label of the background.
        stage: 2 or 3.
    """
    matched, gt_index = match(boxes, gt, MatchRule(STAGE_IOUS[stage], STAGE_IOUS[stage]))
    exists = ops.logical_and(exists, box_ops.area(boxes) > 0.0)
    positive = ops.logical_and(exists, matched == 1)
    valid = ops.logical_and(exists, matched >= 0)
    labels = ops.where(positive, gather_rows(gt["gt_labels"], gt_index), num_classes)
    deltas = box_ops.encode_boxes(gather_rows(gt["gt_boxes"], gt_index), boxes, delta_scale(stage))
    rows = ops.zeros_like(gt_index) + ops.arange(boxes.shape[1], dtype="int32")
    return Targets(rows, positive, valid, labels, deltas, boxes, gt_index)


@dataclasses.dataclass(frozen=True)
class StageLosses:
    """The losses of a later stage, as `kfpn.losses` describes those of a head.

    Attributes:
        stage: 2 or 3.
    """

    stage: int

    @property
    def NAMES(self) -> tuple[str, ...]:
        """Returns the names of the first stage's losses, with the number of this stage behind them."""
        return tuple(f"{name}_{self.stage}" for name in box.NAMES)

    def gradient_share(self, config: Config) -> float:
        """Returns the share of the first stage: it is the same in all stages."""
        return box.gradient_share(config)

    def losses(self, outputs, targets: Targets, batch: dict, config: Config) -> dict:
        """Computes the losses of the stage, as `kfpn.losses.box.losses` those of the first.

        Args:
            outputs: of the head: logits (B S, K + 1), deltas (B S, 1, 4), and the boxes (B, S, 4) that it looked at.
            targets: of the first stage's S sampled RoIs of each image, of which these boxes are made.
            batch: has gt_boxes, gt_labels and gt_crowd.
            config: the whole configuration.
        """
        own = stage_targets(outputs["boxes"], targets.valid, batch, config.model.num_classes, self.stage)
        values = box.losses(outputs, own, batch, config).values()
        return dict(zip(self.NAMES, values, strict=True))


LATER_LOSSES = {name: StageLosses(number) for number, name in enumerate(CASCADE[1:], start=2)}
"""Head -> its losses."""
