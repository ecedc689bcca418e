"""Decodes image files inside a TensorFlow graph, as `kfpn.data.image` decodes them with Pillow."""

import tensorflow as tf

from kfpn.data.jpeg_fraction import FRACTIONS
from kfpn.export.saved_model.exif_turn import upright
from kfpn.export.saved_model.file_bytes import number_at, string_at
from kfpn.export.saved_model.file_headers import FileHeader, frame_of, table_colors
from kfpn.export.saved_model.gif_frame import decode_frame
from kfpn.export.saved_model.graph_fractions import graph_divided


def decode_image(file: tf.Tensor, header: FileHeader, fraction: tf.Tensor | int = 1) -> tf.Tensor:
    """Decodes one image file as `kfpn.data.image.load_image` does: string scalar -> (H, W, 3) uint8 RGB.

    The EXIF rotation of a JPEG or PNG is applied; gray becomes RGB; alpha is dropped; of a GIF the first frame is taken. No decoder
    sees a file that has a fault in its header.

    Args:
        file: string scalar.
        header: of the file.
        fraction: int32 scalar, what the sides of a JPEG are divided by, rounded up: 1, 2, 4 or 8.

    Raises:
        InvalidArgumentError: when the graph runs, for a file with a fault, or one that is damaged behind its header.
    """

    def jpeg() -> tf.Tensor:
        def at(ratio: int) -> tf.Tensor:
            # This is Pillow's transform. TensorFlow's default differs from it by up to 3 levels.
            return tf.io.decode_jpeg(file, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

        # The fraction is an attribute of the operation, so each has its own.
        ratios = (1, *sorted(FRACTIONS))
        chosen = tf.cast(tf.argmax(tf.constant(ratios) == fraction), tf.int32)
        return upright(tf.switch_case(chosen, [lambda ratio=ratio: at(ratio) for ratio in ratios]), header.turn)

    decoders = [
        jpeg,
        lambda: upright(tf.io.decode_png(file, channels=3), header.turn),
        lambda: decode_frame(file, frame_of(header)),
        lambda: _decode_bmp(file),
    ]
    checked = tf.debugging.Assert(header.fault == b"", ["image file", header.fault])
    with tf.control_dependencies([checked]):
        kind = tf.identity(header.kind)
    # The last branch is the one for all other numbers too, so it must not be a decoder.
    image = tf.switch_case(kind, [*decoders, lambda: tf.zeros((0, 0, 3), tf.uint8)])
    same = tf.reduce_all(tf.shape(image, tf.int64)[:2] == graph_divided(header.size, fraction))
    decoded = tf.debugging.Assert(same, ["image file of another size than its header says", tf.shape(image)])
    with tf.control_dependencies([decoded]):
        return tf.ensure_shape(tf.identity(image), (None, None, 3))


def _decode_bmp(file: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP file: string scalar -> (H, W, 3) uint8 RGB. TensorFlow's decoder does not read the colour table."""
    # The decoder refuses a file with bytes behind its pixels, and one whose last row is not padded.
    start, width, height = (tf.cast(number_at(file, place, 4), tf.int32) for place in (10, 18, 22))
    end = start + (width * number_at(file, 28, 2) + 31) // 32 * 4 * tf.abs(height)
    image = tf.io.decode_bmp(string_at(tf.strings.join([file, bytes(4)]), 0, end))
    image.set_shape((None, None, None))

    def by_table() -> tf.Tensor:
        count = table_colors(number_at(file, 46, 4))
        place = 14 + tf.cast(number_at(file, 14, 4), tf.int32)
        table = tf.io.decode_raw(string_at(file, place, 4 * tf.cast(count, tf.int32)), tf.uint8)
        return tf.gather(tf.reshape(table, (-1, 4))[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    return tf.cond(number_at(file, 28, 2) == 8, by_table, lambda: image[..., :3])
