"""Reads the EXIF orientation of JPEG files and turns images by it, inside a TensorFlow graph."""

import tensorflow as tf


def orientation(file: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation of a JPEG file: string scalar -> int32 1..8, 1 where there is none."""
    # A segment of a JPEG has at most 64 KB, and the EXIF segment is the first or comes after a small one. The zeros behind
    # the content let a table that is cut short be read.
    content = tf.pad(tf.cast(tf.io.decode_raw(tf.strings.substr(file, 0, 2**17), tf.uint8), tf.int32), [[0, 64]])
    mark = [0xFF, 0xE1, None, None, *b"Exif", 0, 0]
    places = tf.size(content) - len(mark) + 1
    matches = tf.reduce_all(
        [content[i : i + places] == byte for i, byte in enumerate(mark) if byte is not None], axis=0
    )

    def in_table() -> tf.Tensor:
        tiff = content[tf.cast(tf.argmax(matches), tf.int32) + len(mark) :]
        little = tiff[0] == ord("I")

        def number(digits: tf.Tensor) -> tf.Tensor:
            digits = tf.cond(little, lambda: tf.reverse(digits, [-1]), lambda: digits)
            return tf.reduce_sum(digits * [256**i for i in reversed(range(digits.shape[-1]))], axis=-1)

        start = tf.clip_by_value(number(tf.ensure_shape(tiff[4:8], [4])), 0, tf.size(tiff) - 2)
        entries = tiff[start + 2 :]
        rows = tf.minimum(number(tf.ensure_shape(tiff[start : start + 2], [2])), tf.size(entries) // 12)
        table = tf.reshape(entries[: rows * 12], (-1, 12))
        values = tf.boolean_mask(number(table[:, 8:10]), number(table[:, :2]) == 0x0112)
        value = tf.concat([values, [1]], axis=0)[0]
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.reduce_any(matches), in_table, lambda: 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image (H, W, 3) by an EXIF orientation, int32 1..8."""

    def turned() -> tf.Tensor:
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
            mirror = tf.reduce_any(orientation == tf.constant(mirrored))
            turned = tf.cond(mirror, lambda x=turned, axis=axis: tf.reverse(x, [axis]), lambda x=turned: x)
        return turned

    return tf.cond(orientation == 1, lambda: image, turned)
