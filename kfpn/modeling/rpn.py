"""Builds the head of the region proposal network, and makes proposals of its outputs (FPN, section 4.1)."""

import dataclasses
from typing import Any, NamedTuple

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.layers import PointwiseConv2D
from kfpn.ops import boxes as box_ops
from kfpn.ops.anchors import grid_anchors, image_strides
from kfpn.ops.boxes import gather_rows
from kfpn.ops.nms import LEVEL_NMS, checked_nms, suppress
from kfpn.ops.padding import valid_cells
from kfpn.ops.pyramid_levels import anchors_a_cell, pre_nms, sizes_by_level, stride


@keras.saving.register_keras_serializable("kfpn")
class FlattenCells(keras.layers.Layer):
    """Puts the anchors of all cells in one row: (B, H, W, A * size) -> (B, H * W * A, size) float32.

    Args:
        size: int, values an anchor; with 1 the last axis is left out.
    """

    def __init__(self, size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = size

    def call(self, x):
        batch = ops.shape(x)[0]
        shape = (batch, -1) if self.size == 1 else (batch, -1, self.size)
        return ops.cast(ops.reshape(x, shape), "float32")

    def compute_output_spec(self, x):
        sides = x.shape[1:]
        count = None if None in sides else sides[0] * sides[1] * sides[2] // self.size
        tail = () if self.size == 1 else (self.size,)
        return keras.KerasTensor((x.shape[0], count, *tail), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class _RPNHead:
    """Applies a 3x3 and two 1x1 to a level: (B, H, W, C) -> logits (B, N_l) and deltas (B, N_l, 4).

    Args:
        filters: int, channels of the 3x3.
        anchors: int, A, anchors a cell.
        suffix: of the layers' names, where each level has its own head.
    """

    def __init__(self, filters, anchors, suffix=""):
        def options(filters):
            # Each layer has its own initializer, because one instance would give both the same weights.
            return {"filters": filters, "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}

        self._conv = keras.layers.Conv2D(
            kernel_size=3, padding="same", activation="relu", name=f"rpn_conv{suffix}", **options(filters)
        )
        # These layers are float32 in mixed precision as well: half precision has so few digits that many logits would be
        # equal, and proposals could not be ranked.
        self._to_logits = PointwiseConv2D(name=f"rpn_logits{suffix}", dtype="float32", **options(anchors))
        self._to_deltas = PointwiseConv2D(name=f"rpn_deltas{suffix}", dtype="float32", **options(4 * anchors))
        self._flatten_logits, self._flatten_deltas = FlattenCells(1), FlattenCells(4)

    def __call__(self, level):
        x = self._conv(level)
        return self._flatten_logits(self._to_logits(x)), self._flatten_deltas(self._to_deltas(x))


def rpn_head(config: ModelConfig, channels: int) -> keras.Model:
    """Builds the submodel `rpn`: {"P2": (B, H, W, C), ...} -> {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]} by level.

    Anchors are ordered (y, x, size, ratio), as `grid_anchors` gives them. Outputs are float32. The 3x3 is as wide as the
    levels (detectron2's StandardRPNHead).

    Args:
        config: the model's.
        channels: int, of every level.
    """
    anchors = anchors_a_cell(config)
    inputs = {level: keras.Input((None, None, channels), name=level) for level in config.levels}
    if config.shared_rpn:
        by_level = dict.fromkeys(inputs, _RPNHead(channels, anchors))
    else:
        by_level = {level: _RPNHead(channels, anchors, f"_{level.lower()}") for level in inputs}
    logits, deltas = zip(*(by_level[level](inputs[level]) for level in inputs), strict=True)
    return keras.Model(inputs, {"logits": list(logits), "deltas": list(deltas)}, name="rpn")


def level_anchors(features, image_sizes, config: ModelConfig) -> list:
    """Returns the anchors of each level: a list of (1 or B, N_l, 4) float32 yxyx pixels.

    Args:
        features: {"P2": (B, H, W, C), ...}.
        image_sizes: (B, 2) int, pixels. They do not matter with `anchor_strides` "level", where all images share the
            anchors (1, N_l, 4).
        config: the model's, or a layer with the same fields.
    """
    anchors, levels = [], sorted(features)
    for level, sizes in zip(levels, sizes_by_level(config.anchor_sizes, len(levels)), strict=True):
        _, height, width, _ = ops.shape(features[level])
        step = stride(level)
        strides = image_strides(image_sizes, step) if config.anchor_strides == "image" else [[step, step]]
        anchors.append(grid_anchors(height, width, strides, sizes, config.aspect_ratios, config.round_anchors))
    return anchors


def usable_anchors(features, image_sizes, config: ModelConfig) -> list:
    """Returns which anchors belong to cells inside the images: a list of (B, N_l) bool, one for each level.

    Args:
        features, image_sizes, config: see `level_anchors`.
    """
    usable, levels = [], sorted(features)
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


def _best(scores, count):
    # Takes the best `count`, as top_k does. Short levels are filled up with -inf, so that shapes stay static.
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
    scores, index, valid = _best(logits, count)
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
    scores, index, valid = _best(scores, rule.post_nms)
    boxes = ops.where(valid[..., None], gather_rows(boxes, index), 0.0)
    return boxes, scores, ops.where(valid, gather_rows(origins, index), 0)


@keras.saving.register_keras_serializable("kfpn")
class Proposals(keras.layers.Layer):
    """Turns the pyramid and the RPN's outputs into proposals at inference.

    Args:
        anchor_sizes, aspect_ratios, round_anchors, anchor_strides: see `ModelConfig`.
        pre_nms, post_nms, iou_threshold, min_size: see `ProposalRule`.
        nms: "rounds" (any backend, XLA) or "kernel" (TensorFlow without XLA), with the same result.

    Call:
        features: {"P2": (B, H, W, C), ...}.
        outputs: of the submodel `rpn`.
        image_sizes: (B, 2) int, pixels.

    Returns:
        boxes (B, P, 4) float32 yxyx and scores (B, P) float32, see `select_proposals`.
    """

    def __init__(
        self, anchor_sizes, aspect_ratios, pre_nms, post_nms, iou_threshold,
        min_size=0.0, round_anchors=False, anchor_strides="level", nms="rounds", **kwargs,
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
            "min_size", "round_anchors", "anchor_strides", "nms",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
