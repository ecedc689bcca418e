"""Tells inside a TensorFlow graph whether a JPEG file has a picture behind its headers, as `kfpn.data.jpeg_header` does."""

import tensorflow as tf

from kfpn.export.saved_model.file_bytes import bytes_at, number_at, string_at

MOST_SEGMENTS = 1000
"""Segments that are read in search of the picture. Where there are more, the picture counts as there."""
_SCAN, _HUFFMAN_FRAMES = 0xDA, (0xC0, 0xC1, 0xC2)


def has_picture(file: tf.Tensor) -> tf.Tensor:
    """Tells whether a JPEG has enough bytes between the header of its first scan and its end marker for a picture of its size.

    Each block of 8 x 8 pixels has a code of its own in its component's first scan, and no Huffman code is shorter than a bit.
    Where the headers are unusual, the picture counts as there: the decoder then finds what is wrong.

    Args:
        file: string scalar that begins as a JPEG.

    Returns:
        bool scalar.
    """

    def segment_end(head, at):
        return at + 2 + head[2] * 256 + head[3]

    def goes_on(head, _at, _frame, count):
        # Codes from C0 on have a length; SOI, EOI and the restarts (D0 to D9) don't, and don't stand here.
        has_length = (head[1] >= 0xC0) & ((head[1] < 0xD0) | (head[1] > 0xDA)) & (head[1] < 0xFF)
        return (head[0] == 0xFF) & has_length & (count < MOST_SEGMENTS)

    def next_segment(head, at, frame, count):
        is_frame = tf.reduce_any(head[1] == tf.constant(_HUFFMAN_FRAMES))
        end = segment_end(head, at)
        return bytes_at(file, end, 4), end, tf.where(is_frame, at, frame), count + 1

    first = (bytes_at(file, 2, 4), tf.constant(2), tf.constant(0), tf.constant(0))
    head, at, frame, _ = tf.while_loop(goes_on, next_segment, first)
    known = (head[0] == 0xFF) & (head[1] == _SCAN) & (frame > 0)
    least = -(-_blocks(file, frame) // 8)
    picture = tf.io.decode_raw(string_at(file, segment_end(head, at), least), tf.uint8)
    ends = tf.reduce_any((picture[:-1] == 0xFF) & (picture[1:] == 0xD9))
    return ~known | ((tf.size(picture) == least) & ~ends)


def _blocks(file: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
    """Returns the blocks of the component that has most of them: int32 scalar, from the segment of a frame."""
    sides = tf.stack([number_at(file, frame + place, 2, big=True) for place in (5, 7)])
    table = tf.reshape(bytes_at(file, frame + 10, 12), (4, 3))[:, 1]
    table = tf.where(tf.range(4) < bytes_at(file, frame + 9, 1), table, 0)
    samples = tf.stack([table % 16, table // 16], axis=-1)  # rows and columns
    most = tf.maximum(tf.reduce_max(samples, axis=0), 1)
    return tf.reduce_max(tf.reduce_prod(-(-sides * samples // (8 * most)), axis=-1))
