"""Pastes the masks of detections into the images as they were sent, inside a SavedModel's graph."""

import tensorflow as tf

from kfpn.config.model import Pasting
from kfpn.export.saved_model.request_limits import RequestLimits
from kfpn.ops.mask_paste import paste_one

FULL_MASKS = "detection_masks_reframed"
"""Name of the output. Examples of the Object Detection API keep masks under it that the client itself has pasted."""


def mask_check(original_sizes: tf.Tensor, files: tf.Tensor, rows: int, limits: RequestLimits) -> tf.Operation:
    """Returns the check of the pixels of all full masks of an answer.

    Args:
        original_sizes: (B, 2) int32, of the images as they were sent.
        files: int32 scalar, files of the request: bad ones have masks in the answer too, of zeros.
        rows: int, D, masks of an image.
        limits: what is taken at most.
    """
    height, width = tf.unstack(tf.cast(tf.reduce_max(original_sizes, axis=0), tf.int64))
    pixels = tf.cast(files, tf.int64) * rows * height * width
    rule = f"full masks must have at most {limits.max_mask_pixels} pixels in all, {rows} masks an image, got "
    advice = ": send fewer or smaller images, or export with a larger --max-mask-pixels"
    message = tf.strings.join([rule, tf.strings.as_string(pixels), advice])
    return tf.debugging.Assert(pixels <= limits.max_mask_pixels, [message])


def full_masks_of(masks: tf.Tensor, boxes: tf.Tensor, sizes: tf.Tensor, rule: Pasting) -> tf.Tensor:
    """Returns masks of the images' size, one detection after another: (B, D, H, W) uint8, 1 where the object is.

    Args:
        masks: (B, D, M, M) float32.
        boxes: (B, D, 4) float32 yxyx, pixels of the images as they were sent.
        sizes: (B, 2) int32, of these images; 0, 0 where there is none. H and W are the largest of them; what lies below and right
            of an image is 0.
        rule: see `kfpn.ops.mask_paste.paste_masks`.
    """
    rows = masks.shape[1]
    height, width = tf.unstack(tf.reduce_max(sizes, axis=0))
    pixels = tf.cast(tf.range(height), tf.float32), tf.cast(tf.range(width), tf.float32)

    def paste(parts):
        mask, box, size = parts
        inside = [at < tf.cast(size[axis], tf.float32) for axis, at in enumerate(pixels)]
        pasted = paste_one(mask, box, pixels, rule=rule)
        return tf.cast(pasted & inside[0][:, None] & inside[1][None], tf.uint8)

    flat = tf.reshape(masks, (-1, *masks.shape[2:])), tf.reshape(boxes, (-1, 4)), tf.repeat(sizes, rows, axis=0)
    # With more at a time, the values before the threshold would take the memory of as many masks in float32.
    pasted = tf.map_fn(paste, flat, fn_output_signature=tf.TensorSpec((None, None), tf.uint8), parallel_iterations=2)
    # Without a single image H and W are 0, and -1 would not tell B.
    return tf.reshape(pasted, (tf.shape(masks)[0], rows, height, width))
