"""Reads bytes and numbers of an image file inside a TensorFlow graph; behind the file's end there are zeros."""

import tensorflow as tf


def string_at(file: tf.Tensor, start: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Returns `count` bytes from `start` on, fewer at the file's end: string scalar -> string scalar."""
    return tf.strings.substr(file, tf.clip_by_value(start, 0, tf.strings.length(file)), count)


def bytes_at(file: tf.Tensor, start: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns `count` bytes from `start` on: string scalar -> (count,) int32, 0..255."""
    padded = tf.strings.substr(tf.strings.join([string_at(file, start, count), bytes(count)]), 0, count)
    return tf.cast(tf.ensure_shape(tf.io.decode_raw(padded, tf.uint8), [count]), tf.int32)


def number_at(file: tf.Tensor, start: tf.Tensor | int, count: int, big: bool = False) -> tf.Tensor:
    """Returns a number of `count` bytes, up to 4, from `start` on.

    Args:
        file: string scalar.
        start: int32 scalar.
        count: bytes of the number.
        big: whether the highest byte stands first, as in PNG.

    Returns:
        scalar: int32 for a number of two bytes; int64 for one of four.
    """
    digits = bytes_at(file, start, count)
    wide = tf.cast(digits, tf.int32 if count <= 2 else tf.int64)
    weights = [256**i for i in (reversed(range(count)) if big else range(count))]
    return tf.reduce_sum(wide * tf.constant(weights, wide.dtype))
