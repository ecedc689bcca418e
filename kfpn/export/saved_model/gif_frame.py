"""Cuts the first frame out of a GIF file inside a TensorFlow graph, and decodes it as Pillow does."""

from typing import NamedTuple

import tensorflow as tf

from kfpn.export.saved_model.file_bytes import bytes_at, number_at, string_at

MOST_BLOCKS = 1000
"""Largest number of blocks (comments and others) that may stand before the first frame."""
_WINDOW = 2**14
"""Bytes that are looked at together in search of a block's end."""
_EXTENSION, _CONTROL, _FRAME = 0x21, 0xF9, 0x2C


class GifFrame(NamedTuple):
    """The place of the first frame in a file and on the canvas, all int32 scalars.

    Attributes:
        start: where its descriptor begins in the file.
        end: where its last block ends.
        top: row of the canvas where it begins.
        left: column of the canvas where it begins.
        height: of the canvas, which holds the frame.
        width: of the canvas, which holds the frame.
        fill: index of the colour beside the frame.
    """

    start: tf.Tensor
    end: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    fill: tf.Tensor


def find_frame(file: tf.Tensor) -> tuple[GifFrame, tf.Tensor]:
    """Finds the first frame of a GIF file without decoding it.

    Args:
        file: string scalar that begins with "GIF8".

    Returns:
        The frame, and whether it is there to its end: bool scalar. Where it is not, the frame means nothing.
    """

    def go_on(start, _fill, blocks):
        return (bytes_at(file, start, 1)[0] == _EXTENSION) & (blocks < MOST_BLOCKS)

    def next_block(start, fill, blocks):
        head = bytes_at(file, start, 8)
        clear = (head[1] == _CONTROL) & (head[2] == 4) & (head[3] % 2 == 1)
        return _chain_end(file, start + 2), tf.where(clear, head[6], fill), blocks + 1

    first = 13 + _table_size(bytes_at(file, 10, 1)[0])
    start, fill, _ = tf.while_loop(go_on, next_block, (first, tf.constant(0), tf.constant(0)))
    descriptor = bytes_at(file, start, 10)
    left, top, width, height = (number_at(file, start + 1 + 2 * i, 2) for i in range(4))
    data = start + 10 + _table_size(descriptor[9])
    end = _chain_end(file, data + 1)
    # As in Pillow, a frame that is larger than the canvas makes the canvas larger.
    canvas_height = tf.maximum(number_at(file, 8, 2), top + height)
    canvas_width = tf.maximum(number_at(file, 6, 2), left + width)
    whole = (descriptor[0] == _FRAME) & (width > 0) & (height > 0) & (end <= tf.strings.length(file))
    return GifFrame(start, end, top, left, canvas_height, canvas_width, fill), whole


def decode_frame(file: tf.Tensor, frame: GifFrame) -> tf.Tensor:
    """Decodes the first frame of a GIF file: string scalar -> (H, W, 3) uint8 RGB of the canvas.

    The decoder would take memory for all frames, give the size of the largest frame rather than the canvas, and paint black
    what is transparent. So it gets a file of the first frame alone, without place and transparency.

    Raises:
        InvalidArgumentError: for a frame that is damaged.
    """
    first = 13 + _table_size(bytes_at(file, 10, 1)[0])
    descriptor = bytes([_FRAME, 0, 0, 0, 0])
    rest = string_at(file, frame.start + 5, frame.end - frame.start - 5)
    image = tf.io.decode_gif(tf.strings.join([string_at(file, 0, first), descriptor, rest, b";"]))[0]
    height, width = tf.unstack(tf.shape(image)[:2])
    below, right = frame.height - frame.top - height, frame.width - frame.left - width

    def on_canvas() -> tf.Tensor:
        own = _table_size(bytes_at(file, frame.start + 9, 1)[0])
        table, size = tf.where(own > 0, frame.start + 10, 13), tf.where(own > 0, own, first - 13)
        color = tf.where(3 * frame.fill < size, bytes_at(file, table + 3 * frame.fill, 3), 0)
        # Whole lines are copied. On a canvas of a hundred megapixels, a mask of its pixels takes ten times as long.
        line = tf.tile(tf.cast(color, tf.uint8), frame.width[None])
        beside = [tf.broadcast_to(line[: 3 * count], [height, 3 * count]) for count in (frame.left, right)]
        rows = tf.concat([beside[0], tf.reshape(image, [height, 3 * width]), beside[1]], axis=1)
        others = [tf.broadcast_to(line, [count, 3 * frame.width]) for count in (frame.top, below)]
        return tf.reshape(tf.concat([others[0], rows, others[1]], axis=0), [frame.height, frame.width, 3])

    covered = (height == frame.height) & (width == frame.width)
    return tf.cond(covered, lambda: image, on_canvas)


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of the colour table that a descriptor's flags announce."""
    return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _chain_end(file: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns where a chain of data blocks ends: behind its empty block, or behind the file where that is missing.

    A block is its length, 1..255, and that many bytes; the empty block is a single 0. A file may have a million blocks of one
    byte, so the blocks are not visited one by one: each step doubles the distance that every place of a window knows.
    """
    places = tf.range(_WINDOW + 256)

    def look(position, _open):
        lengths = tf.concat([bytes_at(file, position, _WINDOW), tf.zeros(256, tf.int32)], axis=0)
        # An empty block and the places behind the window lead to themselves.
        jump = tf.where((lengths == 0) | (places >= _WINDOW), places, places + 1 + lengths)
        for _ in range(_WINDOW.bit_length()):
            jump = tf.gather(jump, tf.minimum(jump, _WINDOW + 255))
        position += jump[0]
        return position, (jump[0] >= _WINDOW) & (position < tf.strings.length(file))

    return tf.while_loop(lambda _, is_open: is_open, look, (start, tf.constant(True)))[0] + 1
