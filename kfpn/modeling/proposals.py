"""Makes proposals of the outputs of the region proposal network (FPN, section 4.1)."""

import dataclasses
from typing import Any, NamedTuple

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.ops import boxes as box_ops
from kfpn.ops.anchors import grid_anchors, image_strides
from kfpn.ops.boxes import gather_rows
from kfpn.ops.nms import LEVEL_NMS, checked_nms, suppress
from kfpn.ops.padding import sizes_with_padding, valid_cells
from kfpn.ops.pyramid_levels import pre_nms, sizes_by_level, stride


def level_anchors(features, image_sizes, config: ModelConfig) -> list:
    """Returns the anchors of each level: a list of (1 or B, N_l, 4) float32 yxyx pixels.

    Args:
        features: {"P2": (B, H, W, C), ...}.
        image_sizes: (B, 2) int, pixels. They do not matter with `anchor_strides` "level", where all images share the
            anchors (1, N_l, 4), nor with `padding` "foreign", where all images have the canvas's.
        config: the model's, or a layer with the same fields.
    """
    image_sizes = sizes_with_padding(features, image_sizes, config.padding)
    anchors, levels = [], sorted(features)
    for level, sizes in zip(levels, sizes_by_level(config.anchor_sizes, len(levels)), strict=True):
        _, height, width, _ = ops.shape(features[level])
        step = stride(level)
        strides = image_strides(image_sizes, step) if config.anchor_strides == "image" else [[step, step]]
        anchors.append(grid_anchors(height, width, strides, sizes, config.aspect_ratios, config.round_anchors))
    return anchors


def usable_anchors(features, image_sizes, config: ModelConfig) -> list:
    """Returns which anchors belong to cells inside the images: a list of (B, N_l) bool, one for each level.

    With `padding` "foreign" padding counts as image, so they all do.

    Args:
        features, image_sizes, config: see `level_anchors`.
    """
    usable, levels = [], sorted(features)
    if config.padding == "foreign":
        image_sizes = ops.zeros_like(image_sizes) + sizes_with_padding(features, image_sizes, config.padding)
    anchors = len(config.aspect_ratios) * len(sizes_by_level(config.anchor_sizes, len(levels))[0])
    for level in levels:
        _, height, width, _ = ops.shape(features[level])
        # A flat range stands in place of a mask broadcast over anchors, because TensorRT can convert all its operations.
        cell = ops.arange(height * width * anchors, dtype="int32")[None] // anchors
        row = cell // width
        rows, columns = ops.split(valid_cells(image_sizes, stride(level)), 2, axis=1)
        usable.append(ops.logical_and(row < rows, cell - row * width < columns))
    return usable


@dataclasses.dataclass(frozen=True)
class ProposalRule:
    """How many proposals are kept, and which.

    Attributes:
        pre_nms: int, boxes of a level that enter NMS.
        post_nms: int, P, proposals an image.
        iou_threshold: float, 0..1, of the NMS within each level.
        min_size: float, pixels: boxes with a shorter side, once clipped, are dropped; empty ones always are.
    """

    pre_nms: int
    post_nms: int
    iou_threshold: float
    min_size: float = 0.0

    @classmethod
    def of_inference(cls, config: ModelConfig) -> "ProposalRule":
        """Returns the rule that a model's settings give at inference."""
        count = pre_nms(config.pre_nms_test, config)
        return cls(count, config.post_nms_test, config.rpn_nms_iou, config.min_proposal_size)

    @classmethod
    def of_training(cls, config: ModelConfig) -> "ProposalRule":
        """Returns the rule that a model's settings give in training."""
        count = pre_nms(config.pre_nms_train, config)
        return cls(count, config.post_nms_train, config.rpn_nms_iou, config.min_proposal_size)


class _Level(NamedTuple):
    # What proposals are made of on one level: (B, N_l), (B, N_l, 4), (1 or B, N_l, 4), and (B, N_l) or None.
    logits: Any
    deltas: Any
    anchors: Any
    usable: Any


def best_rows(scores, count):
    """Takes the best `count` of each image, as `top_k` does. Short rows are filled up with -inf, so that shapes stay static.

    Args:
        scores: (B, N) float, -inf for what does not exist.
        count: int.

    Returns:
        The best scores (B, count), their places (B, count) int32, 0 where there are too few, and which exist (B, count) bool.
    """
    length = scores.shape[1]
    if length is None or length < count:
        missing = count if length is None else count - length
        scores = ops.pad(scores, ((0, 0), (0, missing)), constant_values=-float("inf"))
    top, index = ops.top_k(scores, count)
    valid = top > -float("inf")
    return top, ops.where(valid, ops.cast(index, "int32"), 0), valid


def _level_proposals(level: _Level, image_sizes, rule: ProposalRule, nms):
    logits, count = level.logits, rule.pre_nms
    if level.usable is not None:
        logits = ops.where(level.usable, logits, -float("inf"))
    if logits.shape[1] is not None:
        count = min(count, logits.shape[1])
    scores, index, valid = best_rows(logits, count)
    boxes = box_ops.decode_boxes(gather_rows(level.deltas, index), gather_rows(level.anchors, index))
    boxes = box_ops.clip(boxes, image_sizes)
    too_short = ops.any(boxes[..., 2:] - boxes[..., :2] < rule.min_size, axis=-1)
    valid = ops.logical_and(valid, ops.logical_and(box_ops.area(boxes) > 0.0, ops.logical_not(too_short)))
    keep = nms(boxes, valid, rule.iou_threshold)
    return boxes, ops.where(keep, scores, -float("inf")), index


def select_proposals(outputs, anchors, usable, image_sizes, rule: ProposalRule, nms=suppress):
    """Returns the proposals: the best of each level after NMS, then the best of all levels.

    Args:
        outputs: of the submodel `rpn`: logits, (B, N_l) of each level, and deltas, (B, N_l, 4).
        anchors: (1 or B, N_l, 4) of each level.
        usable: (B, N_l) bool of each level, or None for each where no image has padding.
        image_sizes: (B, 2), the true height and width in pixels, to which boxes are clipped.
        rule: how many are kept, and which.
        nms: `suppress`, or a function that does the same.

    Returns:
        boxes: (B, P, 4) float32 yxyx, best first, zeros in empty rows.
        scores: (B, P) float32 logits, -inf in empty rows.
        origins: (B, P) int32, the anchors that they are made of, counted over all levels; 0 in empty rows.
    """
    parts, before = [], 0
    for values in zip(outputs["logits"], outputs["deltas"], anchors, usable, strict=True):
        level = _Level(*values)
        boxes, scores, index = _level_proposals(level, image_sizes, rule, nms)
        parts.append((boxes, scores, index + before))
        before += ops.shape(level.logits)[1]
    boxes, scores, origins = (ops.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    scores, index, valid = best_rows(scores, rule.post_nms)
    boxes = ops.where(valid[..., None], gather_rows(boxes, index), 0.0)
    return boxes, scores, ops.where(valid, gather_rows(origins, index), 0)


@keras.saving.register_keras_serializable("kfpn")
class Proposals(keras.layers.Layer):
    """Turns the pyramid and the RPN's outputs into proposals at inference.

    Args:
        anchor_sizes, aspect_ratios, round_anchors, anchor_strides, padding: see `ModelConfig`.
        pre_nms, post_nms, iou_threshold, min_size: see `ProposalRule`.
        nms: "rounds" (any backend, XLA), "kernel" or "gpu_kernel" (TensorFlow without XLA), with the same result.

    Call:
        features: {"P2": (B, H, W, C), ...}.
        outputs: of the submodel `rpn`.
        image_sizes: (B, 2) int, pixels.

    Returns:
        boxes (B, P, 4) float32 yxyx and scores (B, P) float32, see `select_proposals`.
    """

    def __init__(
        self, anchor_sizes, aspect_ratios, pre_nms, post_nms, iou_threshold,
        min_size=0.0, round_anchors=False, anchor_strides="level", nms="rounds", padding="zero", **kwargs,
    ):  # fmt: skip
        super().__init__(autocast=False, **kwargs)
        self.anchor_sizes = tuple(anchor_sizes)
        self.aspect_ratios = tuple(aspect_ratios)
        self.pre_nms = pre_nms
        self.post_nms = post_nms
        self.iou_threshold = iou_threshold
        self.min_size = min_size
        self.round_anchors = round_anchors
        self.anchor_strides = anchor_strides
        self.nms = checked_nms(nms)
        self.padding = padding

    def call(self, features, outputs, image_sizes):
        anchors = level_anchors(features, image_sizes, self)
        usable = usable_anchors(features, image_sizes, self)
        rule = ProposalRule(self.pre_nms, self.post_nms, self.iou_threshold, self.min_size)
        boxes, scores, _ = select_proposals(outputs, anchors, usable, image_sizes, rule, LEVEL_NMS[self.nms])
        return boxes, scores

    def compute_output_spec(self, features, outputs, image_sizes):
        batch = image_sizes.shape[0]
        boxes = keras.KerasTensor((batch, self.post_nms, 4), dtype="float32")
        return boxes, keras.KerasTensor((batch, self.post_nms), dtype="float32")

    def get_config(self):
        own = (
            "anchor_sizes", "aspect_ratios", "pre_nms", "post_nms", "iou_threshold",
            "min_size", "round_anchors", "anchor_strides", "nms", "padding",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
