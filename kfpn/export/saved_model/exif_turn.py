"""Reads the EXIF orientation of JPEG and PNG files and turns images by it, inside a TensorFlow graph."""

import tensorflow as tf

from kfpn.export.saved_model.file_bytes import bytes_at

_JPEG_XMP, _PNG_XMP = "http://ns.adobe.com/xap/1.0/", "XML:com.adobe.xmp"


def orientation(file: tf.Tensor) -> tf.Tensor:
    """Reads the orientation of a JPEG file, of EXIF or else of XMP: string scalar -> int32 1..8, 1 where there is none."""
    # A segment of a JPEG has at most 64 KB, and the EXIF segment is the first or comes after a small one.
    head = tf.strings.substr(file, 0, 2**17)
    content = _byte_values(head)
    mark = [0xFF, 0xE1, None, None, *b"Exif", 0, 0]
    places = tf.size(content) - len(mark) + 1
    matches = tf.reduce_all(
        [content[i : i + places] == byte for i, byte in enumerate(mark) if byte is not None], axis=0
    )
    tiff = content[tf.cast(tf.argmax(matches), tf.int32) + len(mark) :]
    value = tf.cond(tf.reduce_any(matches), lambda: _in_table(tiff), lambda: -1)
    return _valid_turn(value, _behind_mark(head, _JPEG_XMP))


def png_orientation(file: tf.Tensor) -> tf.Tensor:
    """Reads the orientation of a PNG file, of its eXIf chunk or else of XMP that is not compressed, as `orientation` does."""
    tiff = tf.strings.substr(_behind_mark(file, "eXIf"), 0, 2**16)
    start = tf.strings.substr(tiff, 0, 4)
    begins = (start == b"II*\0") | (start == b"MM\0*")
    value = tf.cond(begins, lambda: _in_table(_byte_values(tiff)), lambda: -1)
    return _valid_turn(value, tf.strings.substr(_behind_mark(file, _PNG_XMP), 0, 2**17))


def _byte_values(text: tf.Tensor) -> tf.Tensor:
    # The zeros behind the content let a table that is cut short be read.
    return tf.pad(tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32), [[0, 64]])


def _behind_mark(text: tf.Tensor, mark: str) -> tf.Tensor:
    """Returns what stands behind the first mark, nothing where there is none."""
    return tf.concat([tf.strings.split(text, mark, maxsplit=1), [b"", b""]], axis=0)[1]


def _in_table(tiff: tf.Tensor) -> tf.Tensor:
    """Returns the orientation that the first directory of a TIFF block (n,) int32 has, -1 where it has none."""
    little = tiff[0] == ord("I")

    def number(digits: tf.Tensor) -> tf.Tensor:
        digits = tf.cond(little, lambda: tf.reverse(digits, [-1]), lambda: digits)
        return tf.reduce_sum(digits * [256**i for i in reversed(range(digits.shape[-1]))], axis=-1)

    start = tf.clip_by_value(number(tf.ensure_shape(tiff[4:8], [4])), 0, tf.size(tiff) - 2)
    entries = tiff[start + 2 :]
    rows = tf.minimum(number(tf.ensure_shape(tiff[start : start + 2], [2])), tf.size(entries) // 12)
    table = tf.reshape(entries[: rows * 12], (-1, 12))
    values = tf.boolean_mask(number(table[:, 8:10]), number(table[:, :2]) == 0x0112)
    return tf.concat([values, [-1]], axis=0)[0]


def _valid_turn(value: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    """Returns an orientation 1..8: of EXIF or, where that is -1, what the text of XMP says, as Pillow reads it; else 1."""
    signs = bytes_at(_behind_mark(xmp, "tiff:Orientation"), 0, 3)
    quoted = tf.where((signs[0] == ord("=")) & (signs[1] == ord('"')), signs[2], 0)
    said = tf.where(signs[0] == ord(">"), signs[1], quoted) - ord("0")
    value = tf.where(value == -1, said, value)
    return tf.where((value >= 1) & (value <= 8), value, 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image (H, W, 3) by an EXIF orientation, int32 1..8."""

    def turned() -> tf.Tensor:
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
            mirror = tf.reduce_any(orientation == tf.constant(mirrored))
            turned = tf.cond(mirror, lambda x=turned, axis=axis: tf.reverse(x, [axis]), lambda x=turned: x)
        return turned

    return tf.cond(orientation == 1, lambda: image, turned)
