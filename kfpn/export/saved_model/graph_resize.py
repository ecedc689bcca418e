"""Resizes and pads images inside a TensorFlow graph, as Pillow and `kfpn predict` do."""

import tensorflow as tf

from kfpn.config.run import InputConfig

_BLOCK = 2**22
"""Pixels that are made narrower at a time."""


def resized_size(size: tf.Tensor, config: InputConfig) -> tf.Tensor:
    """Computes what `kfpn.data.augment.resized_sizes` gives: (..., 2) integer heights and widths -> (..., 2) int32."""
    exact = tf.cast(size, tf.float64)
    short, long = (reduce(exact, axis=-1, keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.minimum(config.short_side / short, config.long_side / long)
    return tf.cast(tf.maximum(tf.floor(exact * scale + 0.5), 1.0), tf.int32)


def resize(images: tf.Tensor, size: tf.Tensor, box: tf.Tensor | None = None) -> tf.Tensor:
    """Resizes (B, H, W, 3) uint8 as Pillow does: bilinear, antialiased where it shrinks, the width first.

    As in Pillow, values are rounded to whole levels after each axis.

    Args:
        images: (B, H, W, 3) uint8.
        size: (2,) int32, height and width of the result.
        box: (4,) float32, top, left, bottom, right of what becomes the result; None: the whole images.
    """
    if box is None:
        box = tf.cast(tf.concat([[0, 0], tf.shape(images)[1:3]], axis=0), tf.float32)
    scale = tf.cast(size, tf.float32) / (box[2:] - box[:2])
    shift = -box[:2] * scale

    def one_axis(images: tf.Tensor, axis: int) -> tf.Tensor:
        # `tf.image.resize` is this operation too, without the shift.
        own = tf.range(2) == axis
        resized = tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=tf.where(own, size, tf.shape(images)[1:3]),
            scale=tf.where(own, scale, 1.0),
            translation=tf.where(own, shift, 0.0),
            kernel_type="triangle",
            antialias=True,
        )
        return tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0.0, 255.0), tf.uint8)

    def narrower() -> tf.Tensor:
        # The kernel takes 12 bytes for each pixel that it is given. A row doesn't depend on others, so large images are
        # given to it in blocks of rows.
        count, height, width = (tf.shape(images)[i] for i in range(3))
        rows = tf.reshape(images, (1, -1, width, 3))
        block = tf.maximum(_BLOCK // width, 1)
        blocks = -(-count * height // block)

        def more(i, parts):
            return i + 1, parts.write(i, one_axis(rows[:, i * block : (i + 1) * block], 1)[0])

        empty = tf.TensorArray(tf.uint8, blocks, infer_shape=False, element_shape=(None, None, 3))
        parts = tf.while_loop(lambda i, _: i < blocks, more, (0, empty), parallel_iterations=1)[1]
        return tf.reshape(parts.concat(), (count, height, size[1], 3))

    def both_axes() -> tf.Tensor:
        small = tf.reduce_prod(tf.shape(images, tf.int64)[:3]) <= _BLOCK
        return one_axis(tf.cond(small, lambda: one_axis(images, 1), narrower), 0)

    same = tf.reduce_all(tf.shape(images)[1:3] == size)
    return tf.ensure_shape(tf.cond(same, lambda: images, both_axes), (None, None, None, 3))


def pad(images: tf.Tensor, config: InputConfig) -> tf.Tensor:
    """Pads (B, H, W, 3) with zeros below and right, to a multiple of `config.divisor`."""
    below, right = tf.unstack(-tf.shape(images)[1:3] % config.divisor)
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
