"""Says inside a TensorFlow graph at which fraction of its size a JPEG is decoded, as `kfpn.data.jpeg_fraction` does."""

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.jpeg_fraction import AT_LEFT, AT_TOP, FRACTIONS, SPARE
from kfpn.export.saved_model.file_headers import FileHeader
from kfpn.export.saved_model.graph_resize import resized_size


def fractions_of(headers: FileHeader, config: InputConfig) -> tf.Tensor:
    """Returns what the sides of each file's image are divided by when it is decoded: (F,) int32, 1 for all but large JPEGs.

    Args:
        headers: of the files, each field with the files as its first axis.
        config: the resize rule.
    """
    fractions = graph_fractions(headers.size, resized_size(headers.size, config))
    # CMYK is decoded whole, as `kfpn.data.jpeg_fraction.draft_plain` does it.
    plain = (headers.components == 1) | (headers.components == 3)
    return tf.where(plain, fractions, 1)


def graph_fractions(sizes: tf.Tensor, needed: tf.Tensor) -> tf.Tensor:
    """Computes what `kfpn.data.jpeg_fraction.decoding_fraction` gives: (F, 2) int64 and (F, 2) int32 -> (F,) int32."""
    fractions = tf.ones_like(needed[..., 0])
    for fraction in sorted(FRACTIONS):
        enough = tf.reduce_all(graph_divided(sizes, fraction) >= SPARE * tf.cast(needed, tf.int64), axis=-1)
        fractions = tf.where(enough, fraction, fractions)
    return fractions


def decoded_pixels(headers: FileHeader, fractions: tf.Tensor) -> tf.Tensor:
    """Returns the pixels that decoding makes of each file: (F,) int64.

    A JPEG of several scans counts with all its pixels, because its decoder keeps what all of them are made of.
    """
    fractions = tf.where(headers.scans > 1, 1, fractions)
    return tf.reduce_prod(graph_divided(headers.size, fractions[:, None]), axis=-1)


def graph_picture_box(size: tf.Tensor, fraction: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Computes what `kfpn.data.jpeg_fraction.picture_box` gives: (2,) int64 and two int32 scalars -> (4,) float32."""
    rows_and_columns = graph_divided(size, fraction)
    sides = tf.cast(size, tf.float32) / tf.cast(fraction, tf.float32)
    starts = [tf.reduce_any(turn == tf.constant(turns)) for turns in (AT_TOP, AT_LEFT)]
    start = tf.where(tf.stack(starts), tf.cast(rows_and_columns, tf.float32) - sides, 0.0)
    return tf.concat([start, start + sides], axis=0)


def graph_divided(sizes: tf.Tensor, fractions: tf.Tensor | int) -> tf.Tensor:
    """Computes what `kfpn.data.jpeg_fraction.divided` gives: (..., 2) int64 sides, rounded up."""
    return -(-sizes // tf.cast(fractions, tf.int64))
