"""Writes NMS, the final selection and RoIAlign in several forms, for `formulations.py` to compare and time."""

import numpy as np
import tensorflow as tf
from keras import ops

from kfpn.ops import boxes as box_ops
from kfpn.ops.nms import select_per_class, suppress
from kfpn.ops.roi_align import roi_align, roi_levels

IMAGE = 512  # pixels, the side of the image that all boxes lie in

# NMS within a level: boxes (B, N, 4), the best one first -> kept (B, N) bool.


def nms_fixed_point(boxes, threshold=0.7):
    return suppress(boxes, ops.ones(boxes.shape[:2], "bool"), threshold)


def nms_tiles(boxes, tile, threshold=0.7):
    """Finds the fixed point within a tile, then drops the later boxes that the tile's kept boxes overlap.

    It computes half of the overlaps, and holds those of one tile at a time.
    """
    alive, kept = ops.ones(boxes.shape[:2], "bool"), []
    while boxes.shape[1]:
        own, boxes = boxes[:, :tile], boxes[:, tile:]
        keep = suppress(own, alive[:, :tile], threshold)
        kept.append(keep)
        suppressed = ops.any(ops.logical_and(box_ops.iou(own, boxes) > threshold, keep[:, :, None]), axis=1)
        alive = ops.logical_and(alive[:, tile:], ops.logical_not(suppressed))
    return ops.concatenate(kept, axis=1)


def nms_greedy(boxes, threshold=0.7):
    """Takes box after box, as the textbook does: N sequential steps."""
    batch, count = boxes.shape[:2]
    rank = ops.arange(count)

    def step(i, alive):
        one, own = ops.slice(boxes, (0, i, 0), (batch, 1, 4)), ops.slice(alive, (0, i), (batch, 1))
        suppressed = ops.logical_and(ops.logical_and(box_ops.iou(one, boxes)[:, 0] > threshold, own), rank > i)
        return i + 1, ops.logical_and(alive, ops.logical_not(suppressed))

    start = (ops.convert_to_tensor(0, "int32"), ops.ones((batch, count), "bool"))
    return ops.while_loop(lambda i, _alive: i < count, step, start)[1]


def nms_kernel(boxes, threshold=0.7):
    count, masks = boxes.shape[1], []
    for image in tf.unstack(boxes):
        index = tf.image.non_max_suppression(image, tf.linspace(1.0, 0.1, count), count, threshold)
        masks.append(tf.scatter_nd(index[:, None], tf.ones_like(index), [count]) > 0)
    return tf.stack(masks)


def nms_padded(boxes, threshold=0.7):
    batch, count = boxes.shape[:2]
    scores = tf.broadcast_to(tf.linspace(1.0, 0.1, count), (batch, count))
    index, number = tf.image.non_max_suppression_padded(
        boxes, scores, count, threshold, pad_to_max_output_size=True, sorted_input=True, canonicalized_coordinates=True
    )
    rows = tf.stack([tf.broadcast_to(tf.range(batch)[:, None], index.shape), index], axis=-1)
    return tf.scatter_nd(rows, tf.cast(tf.range(count) < number[:, None], tf.int32), (batch, count)) > 0


# Final selection: boxes (B, R, K, 4), scores (B, R, K) -> boxes, scores, labels, number of detections.


def select_kfpn(boxes, scores, cut=1000):
    boxes, scores = ops.transpose(boxes, (0, 2, 1, 3)), ops.transpose(scores, (0, 2, 1))
    return select_per_class(boxes, scores, 0.5, 0.05, 100, cut)


def select_loop(boxes, scores):
    """Runs the loop alone: one pair is never enough here, so the cut of one pair always falls back to the loop."""
    return select_kfpn(boxes, scores, cut=1)


def select_combined(boxes, scores):
    kept = tf.image.combined_non_max_suppression(boxes, scores, 100, 100, 0.5, 0.05, clip_boxes=False)
    valid = tf.range(100)[None] < kept.valid_detections[:, None]
    labels = tf.where(valid, tf.cast(kept.nmsed_classes, tf.int32), -1)
    return kept.nmsed_boxes, kept.nmsed_scores, labels, kept.valid_detections


def select_cut(boxes, scores, cut=1000):
    """Runs NMS once, on the best pairs of all classes, with the classes moved apart. It cuts candidates off, so it isn't exact."""
    classes, batch = scores.shape[2], scores.shape[0]
    top, index = ops.top_k(ops.reshape(scores, (batch, -1)), cut)
    labels = ops.cast(index % classes, "int32")
    boxes = ops.take_along_axis(ops.reshape(boxes, (batch, -1, 4)), index[..., None], axis=1)
    apart = boxes + ops.cast(labels, "float32")[..., None] * (IMAGE + 1.0)
    keep = suppress(apart, top > 0.05, 0.5)
    score, place = ops.top_k(ops.where(keep, top, 0.0), 100)
    valid = score > 0.0
    boxes = ops.where(valid[..., None], ops.take_along_axis(boxes, place[..., None], axis=1), 0.0)
    labels = ops.where(valid, ops.take_along_axis(labels, place, axis=1), -1)
    return boxes, score, labels, ops.sum(ops.cast(valid, "int32"), axis=-1)


# RoIAlign: four levels (1, H, W, C) and rois (1, R, 4) -> pooled features (1, R, 7, 7, C).


def align_gathers(*inputs):
    *features, rois = inputs
    cells = [tf.constant([[x.shape[1], x.shape[2]]], tf.int32) for x in features]
    return roi_align(features, rois, cells)


def align_crop(*inputs):
    """Takes 14 x 14 samples by `crop_and_resize`, level by level, then the mean of each 2 x 2. Samples outside the level are 0."""
    *features, rois = inputs
    level, parts, places = roi_levels(rois)[0] - 2, [], []
    for number, feature in enumerate(features):
        place = tf.where(level == number)[:, 0]
        box = tf.gather(rois[0], place) / 2.0 ** (number + 2) - 0.5
        inset = (box[:, 2:] - box[:, :2]) / 28.0
        box = tf.concat([box[:, :2] + inset, box[:, 2:] - inset], axis=1) / (feature.shape[1] - 1.0)
        crops = tf.image.crop_and_resize(feature, box, tf.zeros_like(place, tf.int32), (14, 14))
        parts.append(tf.nn.avg_pool2d(crops, 2, 2, "VALID"))
        places.append(place)
    order = tf.argsort(tf.concat(places, axis=0))
    return tf.ensure_shape(tf.gather(tf.concat(parts, axis=0), order)[None], (1, rois.shape[1], 7, 7, None))


def align_at_once(*inputs):
    """Gathers all sixteen taps at once, (R, 7, 7, 16, C), and sums them with their weights."""
    *features, rois = inputs
    table = tf.concat([tf.reshape(x, (-1, x.shape[-1])) for x in features], axis=0)
    sides = [x.shape[1] for x in features]
    level = roi_levels(rois)[0] - 2
    side = tf.gather(tf.constant(sides), level)[:, None, None, None]
    box = rois[0] / tf.gather(tf.constant([4.0, 8.0, 16.0, 32.0]), level)[:, None] - 0.5
    steps = (tf.reshape(tf.range(14, dtype=tf.float32), (7, 2)) + 0.5) / 14.0
    last, taps, weights = tf.cast(side, tf.float32) - 1.0, [], []
    for axis in (0, 1):
        start, end = box[:, axis, None, None], box[:, axis + 2, None, None]
        at = start + steps * (end - start)
        inside = tf.cast(tf.logical_and(at >= -1.0, at <= last[..., 0] + 1.0), tf.float32)
        at = tf.clip_by_value(at, 0.0, last[..., 0])
        low = tf.floor(at)
        pair = tf.stack([low, tf.minimum(low + 1.0, last[..., 0])], axis=-1)
        weight = tf.stack([1.0 - at + low, at - low], axis=-1) * inside[..., None] / 2.0
        taps.append(tf.reshape(tf.cast(pair, tf.int32), (-1, 7, 4)))
        weights.append(tf.reshape(weight, (-1, 7, 4)))
    starts = tf.gather(tf.constant(np.cumsum([0, *np.square(sides[:-1])]), tf.int32), level)[:, None, None, None]
    rows = (starts + taps[0][:, :, None] * side)[..., None] + taps[1][:, None, :, None]
    weight = weights[0][:, :, None, :, None] * weights[1][:, None, :, None]
    shape = (rois.shape[1], 7, 7, 16)
    taps = tf.gather(table, tf.reshape(rows, shape))
    return tf.linalg.matvec(taps, tf.reshape(weight, shape), transpose_a=True)[None]


ALIGN_FORMS = {
    "sixteen gathers, summed (`roi_align`)": align_gathers,
    "`crop_and_resize` a level": align_crop,
    "one gather of all taps": align_at_once,
}
