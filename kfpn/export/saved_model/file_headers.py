"""Reads kinds and sizes of image files inside a TensorFlow graph, before any decoder sees them."""

from typing import NamedTuple

import tensorflow as tf

from kfpn.data.file_kinds import IMAGES, SENT_BY_MISTAKE
from kfpn.export.saved_model.exif_turn import orientation, png_orientation
from kfpn.export.saved_model.file_bytes import bytes_at, number_at
from kfpn.export.saved_model.gif_frame import GifFrame, find_frame
from kfpn.export.saved_model.jpeg_picture import has_picture

READABLE = "JPEG, PNG, GIF or uncompressed BMP files (8, 24 or 32 bits) that are whole"
"""The files that are decoded, in the words of messages."""
JPEG, PNG, GIF, BMP, OTHER = range(5)  # in the order of `IMAGES`
LONGEST_SIDE = 1_000_000
"""Longest side of a BMP file, in pixels. It is the PNG library's own limit; JPEG and GIF have less."""


class FileHeader(NamedTuple):
    """What a file says of its image.

    Attributes:
        kind: int32 scalar, `JPEG` .. `OTHER`.
        size: (2,) int64, height and width as displayed.
        turn: int32 scalar, EXIF orientation 1..8.
        frame: (7,) int32, the fields of `GifFrame`; zeros for other kinds.
        scans: int64 scalar, scans of a JPEG, at least 1; behind its end chance bytes may count too.
        components: int32 scalar, values a pixel of a JPEG: 1 for gray, 3 for colours, 4 for CMYK; 0 for other kinds.
        fault: string scalar, what the file is where it is not one of `READABLE`, else empty.
    """

    kind: tf.Tensor
    size: tf.Tensor
    turn: tf.Tensor
    frame: tf.Tensor
    scans: tf.Tensor
    components: tf.Tensor
    fault: tf.Tensor


def file_header(file: tf.Tensor) -> FileHeader:
    """Reads the header of one file: string scalar.

    Raises:
        InvalidArgumentError: when the graph runs, for a JPEG whose header is damaged.
    """
    starts = [tf.strings.substr(file, 0, len(start)) == start for start in IMAGES.values()]
    kind = tf.cast(tf.argmax([*starts, True]), tf.int32)
    readers = [_jpeg_header, _png_header, _gif_header, _bmp_header, _other_header]
    header = tf.switch_case(kind, [lambda read=read: tuple(read(file)) for read in readers])
    size, turn, frame, scans, components, fault = header
    empty = tf.reduce_any(size < 1) & (fault == b"")
    named = tf.gather([*IMAGES, ""], kind)
    fault = tf.where(empty, tf.strings.join(["a ", named, " file without pixels"]), fault)
    return FileHeader(kind, tf.ensure_shape(size, [2]), turn, tf.ensure_shape(frame, [7]), scans, components, fault)


def _fields(height, width, fault, **own):
    size = tf.cast(tf.stack([height, width]), tf.int64)
    usual = {
        "turn": tf.constant(1),
        "frame": tf.zeros(7, tf.int32),
        "scans": tf.constant(1, tf.int64),
        "components": tf.constant(0),
    }
    return (size, *map(tf.convert_to_tensor, (usual | own).values()), tf.convert_to_tensor(fault))


def _jpeg_header(file):
    height, width, components = tf.unstack(tf.io.extract_jpeg_shape(file), num=3)
    turn = orientation(file)
    content = tf.io.decode_raw(file, tf.uint8)
    scans = tf.math.count_nonzero((content[:-1] == 0xFF) & (content[1:] == 0xDA))
    height, width = _as_displayed(height, width, turn)
    fault = tf.where(has_picture(file), "", "a JPEG file without the picture behind its headers")
    return _fields(height, width, fault, turn=turn, scans=tf.maximum(scans, 1), components=components)


def _png_header(file):
    width, height = (number_at(file, place, 4, big=True) for place in (16, 20))
    begins = tf.reduce_all(bytes_at(file, 8, 8) == [0, 0, 0, 13, *b"IHDR"]) & (tf.strings.length(file) >= 33)
    fault = tf.where(begins & (width < 2**31) & (height < 2**31), "", "a PNG file whose header is damaged")
    turn = png_orientation(file)
    height, width = _as_displayed(height, width, turn)
    return _fields(height, width, fault, turn=turn)


def _as_displayed(height, width, turn):
    turned = turn >= 5
    return tf.where(turned, width, height), tf.where(turned, height, width)


def _gif_header(file):
    frame, whole = find_frame(file)
    fault = tf.where(whole, "", "a GIF file whose first frame is cut short or damaged")
    return _fields(frame.height, frame.width, fault, frame=tf.stack(frame))


def _bmp_header(file):
    """Reads the header of a BMP file; TensorFlow's decoder looks neither at its version nor at the compression."""
    start, header, width, height = (_signed(number_at(file, place, 4)) for place in (10, 14, 18, 22))
    bits = tf.cast(number_at(file, 28, 2), tf.int64)
    compression, colors = number_at(file, 30, 4), number_at(file, 46, 4)
    masks = tf.stack([number_at(file, place, 4) for place in (54, 58, 62)])
    usual = (compression == 0) | (compression == 3) & (bits == 32) & tf.reduce_all(masks == [0xFF0000, 0xFF00, 0xFF])
    length, rows = tf.cast(tf.strings.length(file), tf.int64), tf.abs(height)
    # Sides beyond 2^24 would overflow here; no file is long enough for them.
    wide, high = tf.minimum(width, 2**24), tf.minimum(rows, 2**24)
    pixels_end = start + (high - 1) * ((wide * bits + 31) // 32 * 4) + wide * bits // 8
    table_end = 14 + header + tf.where(bits == 8, 4 * table_colors(colors), 0)
    fits = (start >= 14 + header) & (pixels_end <= length) & (table_end <= length)
    sides = (width >= 0) & (width <= LONGEST_SIDE) & (rows <= LONGEST_SIDE)
    fault = tf.where(fits & sides, "", "a BMP file that is cut short or has wrong sizes")
    odd_bits = tf.strings.join(["a BMP file of ", tf.strings.as_string(bits), " bits a pixel"])
    fault = tf.where(usual, fault, "a BMP file that is compressed or has bit fields")
    fault = tf.where((bits == 8) | (bits == 24) | (bits == 32), fault, odd_bits)
    known = (length >= 54) & (header >= 40) & (header < 2**16)
    return _fields(rows, width, tf.where(known, fault, "a BMP file whose header is damaged or of another version"))


def table_colors(colors: tf.Tensor) -> tf.Tensor:
    """Returns the colours in the table of a BMP file of 8 bits: of the header's number, any integer."""
    return tf.where((colors > 0) & (colors < 256), colors, 256)


def _signed(number):
    return tf.where(number < 2**31, number, number - 2**32)


def _other_header(file):
    # Zeros are added, because the file may be shorter than what is looked for.
    head = tf.strings.join([tf.strings.substr(file, 0, 16), bytes(16)])
    codes = tf.gather([f" {code:02x}" for code in range(256)], bytes_at(file, 0, 8))[: tf.strings.length(file)]
    fault = tf.strings.join(["bytes that begin with", tf.strings.reduce_join(codes)])
    for offset, start, name in SENT_BY_MISTAKE:
        fault = tf.where(tf.strings.substr(head, offset, len(start)) == start, name, fault)
    return _fields(0, 0, tf.where(tf.strings.length(file) == 0, "an empty file", fault))


def frame_of(header: FileHeader) -> GifFrame:
    """Returns the first frame of a GIF file's header."""
    return GifFrame(*tf.unstack(header.frame))
