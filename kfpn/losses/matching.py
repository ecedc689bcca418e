"""Matches boxes to the ground truth: positive, negative or ignored; and samples those that a loss sees."""

import dataclasses
from typing import Any, NamedTuple

from keras import ops

from kfpn.ops import boxes as box_ops

CROWD_OVERLAP = 0.7
"""A candidate of which at least this share lies in a crowd region is not a negative (CROWD_OVERLAP_THRESH in tensorpack)."""

BLOCK = 32
"""Boxes that all candidates are compared with at once: the IoUs of 268,569 anchors (800 x 1333 pixels) with 32 boxes are 34 MB."""


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


class Overlap(NamedTuple):
    """What the ground-truth boxes, or a block of them, are to N candidates.

    Attributes:
        best: (B, N) float32, the highest IoU with a box.
        index: (B, N) int32, the box of that IoU, the first of equals; 0 where no box overlaps.
        is_best: (B, N) bool, whether the candidate is among the best of a box.
        in_crowd: (B, N) float32, the largest share of the candidate that lies in one crowd region.
    """

    best: Any
    index: Any
    is_best: Any
    in_crowd: Any


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
    boxes = gt["gt_labels"].shape[1]
    few = boxes is not None and boxes <= BLOCK
    overlap = (_overlap if few else _overlap_in_blocks)(candidates, gt, rule.keep_best)
    positive = ops.logical_and(overlap.best >= rule.positive_iou, overlap.best > 0.0)
    positive = ops.logical_or(positive, overlap.is_best)
    negative = ops.logical_and(overlap.best < rule.negative_iou, overlap.in_crowd < CROWD_OVERLAP)
    return ops.where(positive, 1, ops.where(negative, 0, -1)), overlap.index


def _overlap(candidates, gt, keep_best: bool) -> Overlap:
    """Compares all candidates with all boxes; arguments as for `match`."""
    gt_boxes, gt_labels, gt_crowd = gt["gt_boxes"], gt["gt_labels"], gt["gt_crowd"]
    real = ops.logical_and(gt_labels >= 0, ops.logical_not(gt_crowd))
    overlap = ops.where(real[:, None, :], box_ops.iou(candidates, gt_boxes), 0.0)
    best = ops.max(overlap, axis=-1)
    index = ops.cast(ops.argmax(overlap, axis=-1), "int32")
    is_best = ops.zeros_like(best, dtype="bool")
    if keep_best:
        of_box = ops.max(overlap, axis=1, keepdims=True)
        is_best = ops.any(ops.logical_and(overlap == of_box, of_box > 0.0), axis=-1)
    crowd = ops.logical_and(gt_labels >= 0, gt_crowd)
    in_crowd = ops.where(crowd[:, None, :], box_ops.intersection_over_area(candidates, gt_boxes), 0.0)
    return Overlap(best, index, is_best, ops.max(in_crowd, axis=-1))


def _overlap_in_blocks(candidates, gt, keep_best: bool) -> Overlap:
    """Compares all candidates with one block of boxes after the other, up to the last block that holds a box.

    Memory is that of one block, and time follows the boxes of this batch: the rows that pad it to the fullest image of the data
    set cost nothing. The number of rounds is a value and not a shape, so the step is compiled once for any number of boxes.
    """
    blocks = {
        name: _cut(gt[name], value) for name, value in (("gt_boxes", 0.0), ("gt_labels", -1), ("gt_crowd", False))
    }
    labels = gt["gt_labels"]
    places = ops.arange(1, ops.shape(labels)[1] + 1, dtype="int32")
    last = ops.max(ops.where(labels >= 0, places, 0))
    needed = (last + BLOCK - 1) // BLOCK

    def add_block(number, *before):
        sofar = Overlap(*before)
        block = _overlap(
            candidates, {name: ops.take(value, number, axis=1) for name, value in blocks.items()}, keep_best
        )
        higher = block.best > sofar.best  # Of equals the earlier box stays, as with `argmax` over all of them.
        return (
            number + 1,
            ops.where(higher, block.best, sofar.best),
            ops.where(higher, block.index + number * BLOCK, sofar.index),
            ops.logical_or(block.is_best, sofar.is_best),
            ops.maximum(block.in_crowd, sofar.in_crowd),
        )

    shape = (ops.shape(labels)[0], ops.shape(candidates)[1])
    nothing = [ops.zeros(shape, dtype) for dtype in ("float32", "int32", "bool", "float32")]
    start = ops.zeros((), "int32")
    _, *totals = ops.while_loop(lambda number, *_: number < needed, add_block, (start, *nothing))
    return Overlap(*totals)


def _cut(rows, padding):
    """Cuts (B, G, ...) into blocks (B, G / BLOCK, BLOCK, ...), the last one filled up with a value."""
    batch, count = ops.shape(rows)[:2]
    missing = -count % BLOCK
    filled = ops.concatenate([rows, ops.full((batch, missing, *rows.shape[2:]), padding, rows.dtype)], axis=1)
    return ops.reshape(filled, (batch, -1, BLOCK, *rows.shape[2:]))


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
    if candidates is None:
        # A graph for images of any size knows no number: with so many more that are ignored there are enough for `top_k`.
        more, candidates = ((0, 0), (0, count)), count
        matched, noise = ops.pad(matched, more, constant_values=-1), ops.pad(noise, more)
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
