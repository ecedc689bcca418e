"""Prepares images inside a TensorFlow graph, as `kfpn predict` prepares image files."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.decode_limits import SCANS
from kfpn.export.saved_model.file_faults import batch_check, count_check, decoding_check, find_faults
from kfpn.export.saved_model.file_headers import FileHeader, file_header
from kfpn.export.saved_model.graph_fractions import decoded_pixels, fractions_of, graph_picture_box
from kfpn.export.saved_model.graph_resize import pad, resize, resized_size
from kfpn.export.saved_model.image_decoders import decode_image
from kfpn.export.saved_model.request_limits import RequestLimits

MOST_DECODERS = 16
"""Largest number of images of a request that are decoded at the same time."""


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


class FileBatch(NamedTuple):
    """The images of a request's files.

    Attributes:
        batch: the B images that could be decoded; where there is none, one black pixel.
        rows: (F,) int32, each file's row of `batch`, or B where it has none.
        errors: (F,) string, what is wrong with each file; empty where nothing is.
    """

    batch: ImageBatch
    rows: tf.Tensor
    errors: tf.Tensor


def batch_of_files(image_bytes: tf.Tensor, config: InputConfig, limits: RequestLimits) -> FileBatch:
    """Decodes and resizes image files of any sizes, and pads them to the largest.

    Args:
        image_bytes: (F,) string, files of the kinds that `READABLE` names; others get an error.
        config: the resize rule and the divisor.
        limits: what is taken at most.

    Raises:
        InvalidArgumentError: when the graph runs, for a request without files or beyond the limits of requests; with
            `limits.strict` also for a bad file, which is named by its index.
    """
    count = tf.size(image_bytes)
    with tf.control_dependencies([count_check(count, "image_bytes", limits)]):
        image_bytes = tf.identity(image_bytes)
    headers = _headers(image_bytes)
    faults = find_faults(headers, limits)
    good = tf.where(faults.none())[:, 0]
    sizes = resized_size(tf.gather(headers.size, good), config)
    largest = tf.reduce_max(tf.concat([sizes, [[1, 1]]], axis=0), axis=0)
    fractions = fractions_of(headers, config)
    pixels = tf.gather(decoded_pixels(headers, fractions), good)
    scanned = tf.gather(tf.reduce_prod(headers.size, axis=-1) * headers.scans, good)
    checks = [
        batch_check(tf.size(good), largest, "image_bytes", config, limits),
        decoding_check(tf.reduce_sum(pixels), "image_bytes", limits),
        decoding_check(tf.reduce_sum(scanned), "image_bytes", limits, SCANS),
    ]
    # A damaged body is found only by decoding. With `strict`, what the headers show is enough to refuse the request.
    with tf.control_dependencies([*checks, *(faults.refusal() if limits.strict else [])]):
        good = tf.identity(good)
    # The files that are decoded at the same time have at most `max_pixels` pixels together, or are a single file.
    most = tf.reduce_max(tf.concat([pixels, [1]], axis=0))
    decoders = tf.clip_by_value(limits.max_pixels // most, 1, MOST_DECODERS)
    chosen = [tf.gather(values, good) for values in (image_bytes, fractions, *headers)]
    decoded, batch = _decoded(good, chosen, config, decoders)
    faults = faults.with_damaged(decoded, headers.kind)
    with tf.control_dependencies(faults.refusal() if limits.strict else []):
        batch = ImageBatch(*map(tf.identity, batch))
    sound = faults.none()
    rows = tf.where(sound, tf.cumsum(tf.cast(sound, tf.int32)) - 1, tf.shape(batch.images)[0])
    return FileBatch(batch, rows, faults.errors())


def _headers(image_bytes: tf.Tensor) -> FileHeader:
    """Returns the headers of files (F,) string, each field with the files as its first axis."""
    count = tf.size(image_bytes, tf.int64)
    files = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    read = files.map(lambda index, file: (index, *file_header(file)), num_parallel_calls=MOST_DECODERS)
    damaged = FileHeader(0, (1, 1), 1, (0,) * 7, 1, 0, "a JPEG file whose header is damaged")
    last = [tf.constant(value, spec.dtype) for value, spec in zip((-1, *damaged), read.element_spec, strict=True)]
    indices, *fields = _all_of(read, last, count)
    # The row behind the files stands for those whose headers could not be read: JPEGs, as the other readers only look at bytes.
    places = tf.tensor_scatter_nd_update(
        tf.fill(count[None], tf.size(indices) - 1), indices[:-1, None], tf.range(tf.size(indices) - 1)
    )
    return FileHeader(*(tf.gather(field, places) for field in fields))


def _decoded(
    good: tf.Tensor, chosen: Sequence[tf.Tensor], config: InputConfig, decoders: tf.Tensor
) -> tuple[tf.Tensor, ImageBatch]:
    """Decodes, resizes and pads the files of some indices, and returns the indices of those that were whole.

    Args:
        good: (G,) int64, indices of files.
        chosen: of these files: the contents, the fractions at which they are decoded, and the fields of their headers.
        config: the resize rule and the divisor.
        decoders: int64 scalar, files that are decoded at the same time.
    """

    def prepared(index, file, fraction, *fields):
        header = FileHeader(*fields)
        image = decode_image(file, header, fraction)
        size = resized_size(header.size, config)
        box = graph_picture_box(header.size, fraction, header.turn)
        return index, resize(image[None], size, box)[0], size, tf.cast(header.size, tf.int32)

    files = tf.data.Dataset.from_tensor_slices((good, *chosen))
    nothing = (tf.constant(-1, tf.int64), tf.zeros((1, 1, 3), tf.uint8), tf.ones(2, tf.int32), tf.ones(2, tf.int32))
    decoded = files.map(prepared, num_parallel_calls=decoders, deterministic=True)
    indices, images, sizes, originals = _all_of(decoded, nothing, tf.size(good, tf.int64))
    # The detector gets the black pixel behind the images only where there is none.
    kept = tf.maximum(tf.size(indices) - 1, 1)
    images = tf.cast(pad(images[:kept], config), tf.float32)
    return indices[:-1], ImageBatch(images, sizes[:kept], originals[:kept])


def _all_of(dataset: tf.data.Dataset, last: Sequence[tf.Tensor], count: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the elements of a data set that could be made, padded to one shape, and one more that is given.

    An error would end the whole request without saying which file it was. Here the element is dropped (the message goes to the
    log), and the missing index tells which one it was.

    Args:
        dataset: of at most `count` elements.
        last: the last element, which makes sure that there is one.
        count: int64 scalar.
    """
    options = tf.data.Options()
    # Tuning takes longer than a request.
    options.autotune.enabled = False
    whole = dataset.ignore_errors(log_warning=True).concatenate(tf.data.Dataset.from_tensors(tuple(last)))
    return whole.padded_batch(count + 1).with_options(options).get_single_element()


def batch_of_pixels(images: tf.Tensor, config: InputConfig, limits: RequestLimits) -> ImageBatch:
    """Resizes and pads images of one size.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        config: the resize rule and the divisor.
        limits: what is taken at most.

    Raises:
        InvalidArgumentError: when the graph runs, for a request beyond the limits.
    """
    count, original = tf.shape(images)[0], tf.shape(images)[1:3]
    some = tf.debugging.Assert(tf.reduce_all(original > 0), ["images must have pixels, got shape", tf.shape(images)])
    rule = f"images must have at most {limits.max_pixels} pixels an image, got shape"
    pixels = tf.reduce_prod(tf.cast(original, tf.int64))
    few = tf.debugging.Assert(pixels <= limits.max_pixels, [rule, tf.shape(images)])
    sent = decoding_check(pixels * tf.cast(count, tf.int64), "images", limits)
    with tf.control_dependencies([some, few, count_check(count, "images", limits), sent]):
        size = resized_size(original, config)
    with tf.control_dependencies([batch_check(count, size, "images", config, limits)]):
        size = tf.identity(size)
    resized = pad(resize(images, size), config)
    return ImageBatch(tf.cast(resized, tf.float32), *(tf.tile(sides[None], (count, 1)) for sides in (size, original)))
