"""Prepares images inside a TensorFlow graph, as `kfpn predict` prepares image files."""

from typing import NamedTuple

import tensorflow as tf

from kfpn.config.run import InputConfig

MOST_DECODERS = 16
"""Largest number of images of a request that are decoded at the same time."""
READABLE = "JPEG, PNG, GIF or uncompressed BMP files (8, 24 or 32 bits) that are whole"
"""The files that `decode_image` takes, in the words of messages."""


class ImageBatch(NamedTuple):
    """Images that are ready for the padded detector.

    Attributes:
        images: (B, H, W, 3) float32 RGB, 0..255, zeros below and right of each image.
        image_sizes: (B, 2) int32, true height and width.
        original_sizes: (B, 2) int32, height and width before resizing.
    """

    images: tf.Tensor
    image_sizes: tf.Tensor
    original_sizes: tf.Tensor


def batch_of_files(image_bytes: tf.Tensor, config: InputConfig) -> ImageBatch:
    """Decodes and resizes image files of any sizes, and pads them to the largest.

    Args:
        image_bytes: (B,) string, files that `decode_image` takes.
        config: the resize rule and the divisor.

    Raises:
        InvalidArgumentError: when the graph runs; it names the index of each image that cannot be decoded.
    """
    count = tf.size(image_bytes, tf.int64)
    asked = tf.debugging.Assert(count > 0, ["image_bytes must hold at least one image, got none"])
    with tf.control_dependencies([asked]):
        files = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))

    def prepared(index, file):
        image = decode_image(file)
        size = resized_size(tf.shape(image)[:2], config)
        return index, resize(image[None], size)[0], size, tf.shape(image)[:2]

    # A decoder that fails would end the whole request without saying which image it was. Here the image is dropped (the
    # decoder's message goes to the log), and the missing indices tell which images were dropped.
    decoders = tf.minimum(count, MOST_DECODERS)
    whole = files.map(prepared, num_parallel_calls=decoders, deterministic=True).ignore_errors(log_warning=True)
    nothing = (tf.constant(-1, tf.int64), tf.zeros((1, 1, 3), tf.uint8), tf.zeros(2, tf.int32), tf.zeros(2, tf.int32))
    options = tf.data.Options()
    # Tuning takes longer than a request.
    options.autotune.enabled = False
    # One more row makes sure that there is a batch even where no image is whole.
    last = tf.data.Dataset.from_tensors(nothing)
    indices, images, sizes, originals = (
        whole.concatenate(last).padded_batch(count + 1).with_options(options).get_single_element()
    )
    damaged = tf.sets.difference(tf.range(count)[None], indices[None]).values
    message = tf.strings.join(
        [
            f"image_bytes must be {READABLE}, got something else at index ",
            tf.strings.reduce_join(tf.strings.as_string(damaged), separator=", "),
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.size(damaged) == 0, [message])]):
        images, sizes, originals = images[:-1], sizes[:-1], originals[:-1]
    return ImageBatch(tf.cast(pad(images, config), tf.float32), sizes, originals)


def batch_of_pixels(images: tf.Tensor, config: InputConfig) -> ImageBatch:
    """Resizes and pads images of one size.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        config: the resize rule and the divisor.
    """
    original = tf.shape(images)[1:3]
    pixels = tf.debugging.Assert(tf.reduce_all(original > 0), ["images must have pixels, got shape", tf.shape(images)])
    with tf.control_dependencies([pixels]):
        size = resized_size(original, config)
    resized = pad(resize(images, size), config)
    count = tf.shape(images)[:1]
    rows = tf.concat([count, [1]], axis=0)
    return ImageBatch(tf.cast(resized, tf.float32), tf.tile(size[None], rows), tf.tile(original[None], rows))


def decode_image(file: tf.Tensor) -> tf.Tensor:
    """Decodes one image file as `kfpn.data.image.load_image` does: string scalar -> (H, W, 3) uint8 RGB.

    The EXIF rotation of a JPEG is applied; gray becomes RGB; alpha is dropped; of a GIF the first frame is taken.

    Raises:
        InvalidArgumentError: for a file that is not whole or no JPEG, PNG, BMP or GIF file, and for BMPs that are
            compressed or have 1, 4 or 16 bits a pixel, which TensorFlow cannot read.
    """

    def jpeg() -> tf.Tensor:
        # This is Pillow's transform. TensorFlow's default differs from it by up to 3 levels.
        return upright(tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"), orientation(file))

    def other() -> tf.Tensor:
        # All channels are read, because TensorFlow refuses BMPs of one or four channels where three are asked for.
        image = tf.io.decode_image(file, channels=0, expand_animations=False)
        image.set_shape((None, None, None))
        return tf.cond(tf.shape(image)[-1] >= 3, lambda: image[..., :3], lambda: tf.repeat(image[..., :1], 3, axis=-1))

    kinds = [(tf.io.is_jpeg(file), jpeg), (tf.strings.substr(file, 0, 2) == b"BM", lambda: _bmp(file))]
    return tf.ensure_shape(tf.case(kinds, default=other), (None, None, 3))


def _bmp(file: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP file: string scalar -> (H, W, 3) uint8 RGB.

    TensorFlow's decoder reads neither the colour table of 8 bits a pixel nor the kind of compression.
    """
    # Zeros are added, because the smallest file is shorter than the longest header.
    header = tf.strings.substr(tf.strings.join([tf.strings.substr(file, 0, 66), bytes(66)]), 14, 52)
    fields = tf.ensure_shape(tf.io.decode_raw(header, tf.int32), [13])
    size, bits, compression, colors, masks = fields[0], fields[3] // 2**16, fields[4], fields[8], fields[10:]
    usual_masks = (compression == 3) & (bits == 32) & tf.reduce_all(masks == [0xFF0000, 0xFF00, 0xFF])
    readable = (size >= 40) & ((compression == 0) | usual_masks)
    asked = tf.debugging.Assert(readable, ["BMP files must not be compressed, got compression", compression])
    with tf.control_dependencies([asked]):
        image = tf.io.decode_bmp(file)
    image.set_shape((None, None, None))

    def by_table() -> tf.Tensor:
        count = tf.where((colors > 0) & (colors < 256), colors, 256)
        table = tf.io.decode_raw(tf.strings.substr(file, 14 + size, 4 * count), tf.uint8)
        return tf.gather(tf.reshape(table, (-1, 4))[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    return tf.cond(bits == 8, by_table, lambda: image[..., :3])


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


def resized_size(size: tf.Tensor, config: InputConfig) -> tf.Tensor:
    """Computes what `kfpn.data.augment.resized_sizes` gives: (2,) int32 height and width -> (2,) int32."""
    exact = tf.cast(size, tf.float64)
    scale = tf.minimum(config.short_side / tf.reduce_min(exact), config.long_side / tf.reduce_max(exact))
    return tf.cast(tf.maximum(tf.floor(exact * scale + 0.5), 1.0), tf.int32)


def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes (B, H, W, 3) uint8 as Pillow does: bilinear, antialiased where it shrinks, the width first.

    As in Pillow, values are rounded to whole levels after each axis.
    """

    def one_axis(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(images, size, method="bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0.0, 255.0), tf.uint8)

    def both_axes() -> tf.Tensor:
        wide = one_axis(images, tf.stack([tf.shape(images)[1], size[1]]))
        return one_axis(wide, size)

    same = tf.reduce_all(tf.shape(images)[1:3] == size)
    return tf.ensure_shape(tf.cond(same, lambda: images, both_axes), (None, None, None, 3))


def pad(images: tf.Tensor, config: InputConfig) -> tf.Tensor:
    """Pads (B, H, W, 3) with zeros below and right, to a multiple of `config.divisor`."""
    below, right = tf.unstack(-tf.shape(images)[1:3] % config.divisor)
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
