"""Computes with boxes: yxyx, float32, absolute pixels, half-open (height = y2 - y1, no +1)."""

import math

from keras import ops

SCALE_CLAMP = math.log(1000.0 / 16.0)
"""The largest dh and dw that reach exp(): a box grows at most to 1000 pixels from an anchor of 16 (`_DEFAULT_SCALE_CLAMP` in
detectron2, `bbox_xform_clip` in torchvision)."""
RPN_DELTA_SCALE = (1.0, 1.0, 1.0, 1.0)
HEAD_DELTA_SCALE = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN's target normalisation (0.1, 0.1, 0.2, 0.2)


def area(boxes):
    """Returns the areas (...) of boxes (..., 4) yxyx, square pixels; 0 where a side is negative."""
    height = ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    width = ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return height * width


def intersection(a, b):
    """Returns the pairwise intersections (..., N, M) of boxes (..., N, 4) and (..., M, 4), square pixels."""
    # Each coordinate is computed on its own: an intermediate of (..., N, M, 2) would cost twice the memory traffic.
    a, b = a[..., :, None, :], b[..., None, :, :]
    height = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    width = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    return ops.maximum(height, 0.0) * ops.maximum(width, 0.0)


def iou(a, b):
    """Returns the pairwise intersection over union (..., N, M), 0..1; 0 where both boxes are empty.

    Args:
        a: (..., N, 4) float yxyx.
        b: (..., M, 4) float yxyx.
    """
    shared = intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return ops.where(union > 0.0, shared / ops.maximum(union, 1e-12), 0.0)


def intersection_over_area(a, b):
    """Returns the share of each box a (..., N, 4) that lies in each box b (..., M, 4): (..., N, M), 0..1.

    This is COCO's overlap with a crowd region.
    """
    own = area(a)[..., :, None]
    return ops.where(own > 0.0, intersection(a, b) / ops.maximum(own, 1e-12), 0.0)


def encode_boxes(boxes, anchors, weights=RPN_DELTA_SCALE):
    """Returns the deltas (dy, dx, dh, dw) that turn anchors into boxes (R-CNN, appendix C).

    Args:
        boxes: (..., 4) float yxyx with positive sides (others give finite, meaningless deltas).
        anchors: (..., 4) float yxyx, broadcastable to boxes, with positive sides.
        weights: four factors for dy, dx, dh, dw.

    Returns:
        (..., 4) float32.
    """
    height, width = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    height, width = ops.maximum(height, 1e-6), ops.maximum(width, 1e-6)
    box_height = ops.maximum(boxes[..., 2] - boxes[..., 0], 1e-6)
    box_width = ops.maximum(boxes[..., 3] - boxes[..., 1], 1e-6)
    dy = (boxes[..., 0] + 0.5 * box_height - anchors[..., 0] - 0.5 * height) / height
    dx = (boxes[..., 1] + 0.5 * box_width - anchors[..., 1] - 0.5 * width) / width
    deltas = (dy, dx, ops.log(box_height / height), ops.log(box_width / width))
    return ops.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)], axis=-1)


def decode_boxes(deltas, anchors, weights=RPN_DELTA_SCALE):
    """Returns the boxes that deltas make of anchors: the inverse of `encode_boxes`, with dh and dw clamped.

    Args:
        deltas: (..., 4) float, (dy, dx, dh, dw).
        anchors: (..., 4) float yxyx, broadcastable to deltas.
        weights: the four factors that `encode_boxes` was given.

    Returns:
        (..., 4) float32 yxyx.
    """
    dy, dx, dh, dw = (deltas[..., i] / weights[i] for i in range(4))
    height, width = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    y = anchors[..., 0] + 0.5 * height + dy * height
    x = anchors[..., 1] + 0.5 * width + dx * width
    half_height = 0.5 * height * ops.exp(ops.minimum(dh, SCALE_CLAMP))
    half_width = 0.5 * width * ops.exp(ops.minimum(dw, SCALE_CLAMP))
    return ops.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def clip(boxes, image_sizes):
    """Returns boxes cut to their images.

    Args:
        boxes: (B, ..., 4) float yxyx.
        image_sizes: (B, 2) height and width in pixels.
    """
    sizes = ops.cast(image_sizes, boxes.dtype)
    limits = ops.concatenate([sizes, sizes], axis=-1)
    for _ in range(len(boxes.shape) - 2):
        limits = limits[:, None]
    return ops.minimum(ops.maximum(boxes, 0.0), limits)


def gather_rows(values, index):
    """Returns values[b, index[b, s]]: (B, S, ...) of (B or 1, N, ...) and (B, S) int."""
    if values.shape[0] == 1:
        return ops.take(values[0], index, axis=0)
    # The rows of all images lie in one table, because OpenVINO rejects the shapes of Keras' take_along_axis in a graph of
    # open sizes.
    batch, count = ops.shape(values)[:2]
    starts = ops.arange(batch, dtype="int32")[:, None] * count
    return ops.take(ops.reshape(values, (-1, *values.shape[2:])), ops.cast(index, "int32") + starts, axis=0)
