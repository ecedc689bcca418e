"""Exact greedy non-maximum suppression with static shapes, for batches, on every backend."""

from keras import ops

from kfpn import boxes as box_ops


def suppress(boxes, valid, iou_threshold):
    """Returns which boxes greedy NMS keeps: (B, N) bool.

    A box is kept when no better kept box overlaps it by more than the threshold. Starting from "all
    kept", applying that rule to all boxes at once until nothing changes gives exactly the greedy
    result: after t rounds every box whose chain of suppressors is shorter than t is right, and a
    chain is rarely longer than twenty. Each round is one masked reduction over the overlaps, so the whole
    is a few milliseconds where N sequential rounds take N. docs/nms.md holds the measurements.

    Args:
        boxes: (B, N, 4) float32 yxyx, best first.
        valid: (B, N) bool, False for rows that hold no box.
        iou_threshold: float, 0..1; IoU above it suppresses.
    """
    count = ops.shape(boxes)[1]
    better = ops.arange(count)[:, None] < ops.arange(count)[None, :]
    # overlaps[b, i, j]: box i, if kept, suppresses box j.
    overlaps = ops.logical_and(box_ops.iou(boxes, boxes) > iou_threshold, better[None])

    def changed(_keep, go):
        return go

    def apply_rule(keep, _go):
        beaten = ops.any(ops.logical_and(overlaps, keep[:, :, None]), axis=1)
        new = ops.logical_and(valid, ops.logical_not(beaten))
        return new, ops.any(new != keep)

    keep, _ = ops.while_loop(changed, apply_rule, (valid, ops.convert_to_tensor(True)))
    return keep


def select_per_class(boxes, scores, iou_threshold, score_threshold, count):
    """Returns the best `count` detections after NMS within each class.

    The best remaining (class, box) pair is taken and what it suppresses removed, `count` times at
    most: exact, whatever the number of candidates, and (B, K, N) is all it holds. Cutting the candidates
    first, as is usual, is not exact.

    Args:
        boxes: (B, K, N, 4) float32 yxyx, class by class.
        scores: (B, K, N) float32.
        iou_threshold: float, IoU above it suppresses.
        score_threshold: float, pairs at or below it are dropped.
        count: int, D.
    Returns:
        boxes: (B, D, 4), scores: (B, D), labels: (B, D) int32, number: (B,) int32;
        rows past `number` are zero boxes, zero scores, label -1.
    """
    batch, candidates = ops.shape(scores)[0], ops.shape(scores)[2]
    classes = scores.shape[1]
    flat_boxes = ops.reshape(boxes, (batch, -1, 4))
    class_ids = ops.arange(classes, dtype="int32")
    slots = ops.arange(count, dtype="int32")

    def more(step, remaining, _chosen, _score):
        return ops.logical_and(step < count, ops.any(remaining > score_threshold))

    def take_best(step, remaining, chosen, chosen_score):
        flat = ops.reshape(remaining, (batch, -1))
        best = ops.cast(ops.argmax(flat, axis=-1), "int32")
        score = ops.max(flat, axis=-1)
        label = best // candidates
        box = ops.take_along_axis(flat_boxes, best[:, None, None], axis=1)
        rivals = ops.take_along_axis(boxes, label[:, None, None, None], axis=1)[:, 0]
        # The box itself goes too: an empty one has no IoU even with itself.
        itself = ops.arange(candidates, dtype="int32")[None] == (best % candidates)[:, None]
        beaten = ops.logical_or(box_ops.iou(box, rivals)[:, 0] > iou_threshold, itself)
        same_class = class_ids[None, :] == label[:, None]
        gone = ops.logical_and(same_class[:, :, None], beaten[:, None, :])
        here = slots[None] == step
        found = ops.logical_and(here, (score > score_threshold)[:, None])
        chosen = ops.where(found, best[:, None], chosen)
        chosen_score = ops.where(found, score[:, None], chosen_score)
        return step + 1, ops.where(gone, -1.0, remaining), chosen, chosen_score

    start = (
        ops.convert_to_tensor(0, "int32"),
        scores,
        ops.zeros((batch, count), "int32") - 1,
        ops.zeros((batch, count), "float32"),
    )
    _, _, chosen, chosen_score = ops.while_loop(more, take_best, start)
    found = chosen >= 0
    index = ops.maximum(chosen, 0)
    chosen_boxes = ops.take_along_axis(flat_boxes, index[..., None], axis=1)
    chosen_boxes = ops.where(found[..., None], chosen_boxes, 0.0)
    labels = ops.where(found, index // candidates, -1)
    return chosen_boxes, chosen_score, labels, ops.sum(ops.cast(found, "int32"), axis=-1)
