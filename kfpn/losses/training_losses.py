"""Computes the losses of a training step from images, ground truth and noise: one value an image."""

from collections.abc import Callable
from typing import Any

from keras import ops

from kfpn.config.run import Config
from kfpn.losses import find_loss, terms
from kfpn.losses.segment_losses import segment_losses, segment_noise_shapes
from kfpn.losses.targets import Targets, mask_rows, roi_targets, rpn_targets
from kfpn.modeling.detector import Detector
from kfpn.modeling.proposals import ProposalRule, level_anchors, select_proposals, usable_anchors
from kfpn.modeling.stages import Rois
from kfpn.modeling.submodels import Submodels
from kfpn.ops import boxes as box_ops
from kfpn.ops.boxes import gather_rows
from kfpn.ops.padding import padded_up
from kfpn.ops.pyramid_levels import anchors_a_cell, stride


class TrainingDetector(Detector):
    """The detector in training: all its heads look at a sample of the proposals and the ground truth.

    Args:
        submodels: of `build_submodels`.
        config: the whole configuration.
        batch, noise: see `training_losses`.
    """

    def __init__(self, submodels: Submodels, config: Config, batch: dict, noise: dict):
        super().__init__(submodels, config.model)
        # Heads that look at detections elsewhere learn from the sample as well: there are no detections yet.
        self.proposal_heads = [name for name in submodels.heads if name not in self.later_heads]
        self.detection_heads = []
        self.run_config = config
        self.batch = batch
        self.noise = noise

    def anchors(self, levels: dict) -> tuple[list, list]:
        """Returns the anchors of each level, and which of them belong to cells inside the images."""
        sizes = self.batch["image_sizes"]
        return level_anchors(levels, sizes, self.config), usable_anchors(levels, sizes, self.config)

    def candidates(self, levels: dict, rpn: dict | None, image_sizes) -> tuple[Any, Any, Any]:
        """Returns the proposals (B, P, 4), which rows hold a proposal (B, P) bool, and the noise of each (B, P).

        Noise belongs to the anchor that a proposal is made of, not to the proposal's rank: rounding can swap two ranks, and
        that would change the sample.
        """
        anchors, usable = self.anchors(levels)
        rule = ProposalRule.of_training(self.config)
        proposals, scores, origins = select_proposals(rpn, anchors, usable, image_sizes, rule)
        of_anchors = self.noise["roi"][:, : ops.shape(self.noise["rpn"])[1]]
        return proposals, scores > -float("inf"), gather_rows(of_anchors, origins)

    def propose(self, levels: dict, rpn: dict | None, image_sizes) -> Rois:
        """Samples RoIs among the proposals and the ground-truth boxes, and finds their targets."""
        return self.submodels.forms.island(self._propose)(stop_gradient(levels), stop_gradient(rpn), image_sizes)

    def _propose(self, levels: dict, rpn: dict | None, image_sizes) -> Rois:
        batch, config = self.batch, self.run_config
        proposals, exists, noise = self.candidates(levels, rpn, image_sizes)
        boxes = ops.concatenate([proposals, batch["gt_boxes"]], axis=1)
        exists = ops.concatenate([exists, batch["gt_labels"] >= 0], axis=1)
        of_gt_boxes = self.noise["roi"][:, ops.shape(self.noise["roi"])[1] - ops.shape(batch["gt_boxes"])[1] :]
        usable, noise = (
            ops.logical_and(exists, box_ops.area(boxes) > 0.0),
            ops.concatenate([noise, of_gt_boxes], axis=1),
        )
        sampled = roi_targets(boxes, usable, batch, self.config.num_classes, config.sampling, noise)
        return Rois(ops.stop_gradient(sampled.boxes), targets=sampled)

    def pool(self, levels: dict, boxes, image_sizes, head: str = "box"):
        """Pools the boxes that a head looks at; for one that learns from positives alone, the first rows, where these stand."""
        loss = find_loss(head)
        if getattr(loss, "LOOKS_AT", "sample") == "positives":
            boxes = boxes[:, : mask_rows(self.run_config.sampling)]
            return self.submodels.forms.kept(super().pool(levels, boxes, image_sizes, head))
        pooled = super().pool(levels, boxes, image_sizes, head)
        share = loss.gradient_share(self.run_config) if hasattr(loss, "gradient_share") else 1.0
        return pooled if share == 1.0 else with_gradient_share(pooled, share)

    def anchor_targets(self, levels: dict) -> Targets:
        """Samples anchors, and finds what the RPN should predict for them."""
        return self.submodels.forms.island(self._anchor_targets)(stop_gradient(levels))

    def _anchor_targets(self, levels: dict) -> Targets:
        anchors, usable = (ops.concatenate(parts, axis=1) for parts in self.anchors(levels))
        return rpn_targets(anchors, usable, self.batch, self.run_config.sampling, self.noise["rpn"])


class FixedProposalsTraining(TrainingDetector):
    """The detector in training on proposals that are given: `batch["proposals"]` (B, P, 4), zeros in empty rows."""

    def rpn(self, levels, training=None):
        """Computes nothing, and returns None."""
        return None

    def candidates(self, levels, rpn, image_sizes):
        """Returns the given proposals; all rows are said to exist, because `propose` leaves empty boxes out."""
        proposals = self.batch["proposals"]
        count = proposals.shape[1]
        return proposals, ops.ones_like(proposals[..., 0], dtype="bool"), self.noise["roi"][:, :count]


def stop_gradient(tensors):
    """Applies `ops.stop_gradient` to all tensors in nested lists and dicts; None stays None."""
    if tensors is None:
        return None
    if isinstance(tensors, dict):
        return {key: stop_gradient(value) for key, value in tensors.items()}
    if isinstance(tensors, (list, tuple)):
        return [stop_gradient(value) for value in tensors]
    return ops.stop_gradient(tensors)


def with_gradient_share(values, share: float):
    """Returns values as they are, through which a share of the gradient passes."""
    fixed = ops.stop_gradient(values)
    return fixed + share * (values - fixed)


def noise_shapes(config: Config, height: int, width: int, max_boxes: int) -> dict[str, tuple[int]]:
    """Returns the shapes, for one image, of the noise in 0..1 that the samplers need.

    Args:
        config: the whole configuration.
        height, width: int, of the padded batch.
        max_boxes: int, G, rows of gt_boxes.

    Returns:
        {"rpn": (N,), "roi": (N + G,)}: one value for each anchor; and one for the proposal of each anchor and for each
        ground-truth box.
    """
    if config.model.padding == "foreign":
        height, width = padded_up(height), padded_up(width)
    cells = sum(-(-height // stride(level)) * -(-width // stride(level)) for level in config.model.levels)
    anchors = cells * anchors_a_cell(config.model)
    return {"rpn": (anchors,), "roi": (anchors + max_boxes,)}


def fixed_noise_shapes(config: Config, height: int, width: int, max_boxes: int) -> dict[str, tuple[int]]:
    """Returns the shapes of the noise for given proposals: {"roi": (P + G,)}, in the proposals' order.

    Args:
        config, height, width, max_boxes: see `noise_shapes`.
    """
    return {"roi": (config.model.post_nms_train + max_boxes,)}


def rpn_losses(outputs, targets: Targets, config: Config) -> dict:
    """Computes the losses of the RPN: {"rpn_class": (B,), "rpn_box": (B,)} float32.

    Args:
        outputs: of the submodel `rpn`.
        targets: of the sampled anchors.
        config: the whole configuration.
    """
    sampling = config.sampling
    logits = gather_rows(ops.concatenate(outputs["logits"], axis=1), targets.index)
    deltas = gather_rows(ops.concatenate(outputs["deltas"], axis=1), targets.index)
    size = float(sampling.rpn_batch)
    return {
        "rpn_class": terms.rpn_class_loss(logits, targets.positive, targets.valid, size),
        "rpn_box": terms.box_loss(deltas, targets.deltas, targets.positive, size, sampling.rpn_box_beta),
    }


def head_losses(outputs: dict, rois: Rois, batch: dict, config: Config) -> dict:
    """Computes the losses of all heads: {"roi_class": (B,), "roi_box": (B,), ...} float32.

    Args:
        outputs: {"box": ...}, of `Detector.run` in training.
        rois: the boxes that the heads looked at, with targets.
        batch, config: see `training_losses`.
    """
    losses: dict[str, Any] = {}
    for name, values in outputs.items():
        losses |= find_loss(name).losses(values, rois.targets, batch, config)
    return losses


def training_losses(submodels: Submodels, config: Config, batch: dict, noise: dict, training: bool = True) -> dict:
    """Computes the losses of a batch: a pure function of weights, batch and noise.

    Args:
        submodels: of `build_submodels`; batch-norm statistics are updated in place.
        config: the whole configuration.
        batch: dict of images (B, H, W, 3), image_sizes (B, 2) int32, gt_boxes (B, G, 4) float32 yxyx pixels,
            gt_labels (B, G) int32 with -1 in padding, gt_crowd (B, G) bool; with `model.mask` also what
            `kfpn.losses.mask.losses` reads.
        noise: dict of rpn (B, N) and roi (B, N + G) float32, uniform in 0..1, see `noise_shapes`.
        training: False: batch norms use their statistics and change none.

    Returns:
        {"rpn_class", "rpn_box", "roi_class", "roi_box"}, with `model.cascade` those of its later stages, "roi_class_2" to
        "roi_box_3", and with `model.mask` "roi_mask": (B,) float32 each, one loss an image.
    """
    detector = TrainingDetector(submodels, config, batch, noise)
    stages = detector.run(batch["images"], batch["image_sizes"], training=training)
    targets = detector.anchor_targets(stages.levels)
    losses = submodels.forms.island(lambda outputs, targets: rpn_losses(outputs, targets, config))(stages.rpn, targets)
    return {**losses, **head_losses(stages.outputs, stages.rois, batch, config)}


def fixed_proposal_losses(
    submodels: Submodels, config: Config, batch: dict, noise: dict, training: bool = True
) -> dict:
    """Computes the heads' losses on given proposals: the counterpart of `training_losses` without an RPN.

    Args:
        submodels: of `build_submodels`; batch-norm statistics are updated in place.
        config: the whole configuration.
        batch: as `training_losses` takes it, and proposals (B, P, 4) float32 yxyx pixels, zeros in empty rows; P is
            `post_nms_train`.
        noise: dict of roi (B, P + G) float32, uniform in 0..1, see `fixed_noise_shapes`.
        training: see `training_losses`.

    Returns:
        {"roi_class", "roi_box"}, with `model.cascade` those of its later stages, "roi_class_2" to
        "roi_box_3", and with `model.mask` "roi_mask": (B,) float32 each, one loss an image.
    """
    detector = FixedProposalsTraining(submodels, config, batch, noise)
    stages = detector.run(batch["images"], batch["image_sizes"], training=training)
    return head_losses(stages.outputs, stages.rois, batch, config)


def training_functions(config: Config) -> tuple[Callable, Callable]:
    """Returns the two functions that a run trains with: its losses, and the shapes of its samplers' noise.

    Args:
        config: with `proposals`, Fast R-CNN is trained on those; without, the RPN is trained as well.

    Returns:
        `training_losses` and `noise_shapes`, or `fixed_proposal_losses` and `fixed_noise_shapes`; of a network that proposes segments,
        `segment_losses` and `segment_noise_shapes`.
    """
    if config.model.task == "segments":
        return segment_losses, segment_noise_shapes
    return (fixed_proposal_losses, fixed_noise_shapes) if config.proposals else (training_losses, noise_shapes)
