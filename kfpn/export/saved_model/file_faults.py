"""Says inside a TensorFlow graph what is wrong with the files of a request, and keeps the limits of requests."""

from typing import NamedTuple

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.decode_limits import scan_limit
from kfpn.data.file_kinds import IMAGES
from kfpn.export.saved_model.file_headers import READABLE, FileHeader
from kfpn.export.saved_model.request_limits import RequestLimits
from kfpn.ops.padding import padded_up

_RULE = f"image_bytes must be {READABLE}, got "


class FileFaults(NamedTuple):
    """The faults of F files.

    Attributes:
        got: (F,) string, what a file is that is not one of `READABLE`; empty for the others.
        beyond: (F,) string, the sentence on a file that is beyond a limit; empty for the others.
    """

    got: tf.Tensor
    beyond: tf.Tensor

    def none(self) -> tf.Tensor:
        """Returns which files are without a fault: (F,) bool."""
        return (self.got == b"") & (self.beyond == b"")

    def with_damaged(self, decoded: tf.Tensor, kinds: tf.Tensor) -> "FileFaults":
        """Returns the faults with those of the files that could not be decoded.

        Args:
            decoded: (B,) int64, the indices of the files that could.
            kinds: (F,) int32, the files' kinds.
        """
        count = tf.size(self.got, tf.int64)
        arrived = tf.scatter_nd(decoded[:, None], tf.ones_like(decoded), count[None]) > 0
        named = tf.strings.join(["a ", tf.gather([*IMAGES, ""], kinds), " file that is damaged behind its header"])
        return self._replace(got=tf.where(arrived | ~self.none(), self.got, named))

    def errors(self) -> tf.Tensor:
        """Returns the sentence on each file: (F,) string, empty where there is no fault."""
        return tf.where(self.got == b"", self.beyond, tf.strings.join([_RULE, _with_index(self.got)]))

    def refusal(self) -> list[tf.Operation]:
        """Returns the check that refuses the request where a file has a fault, and names all of them."""
        unreadable = tf.boolean_mask(_with_index(self.got), self.got != b"")
        listed = tf.strings.join([_RULE, tf.strings.reduce_join(unreadable, separator=", ")])
        sentences = tf.concat([listed[None][: tf.size(unreadable)], self.beyond], axis=0)
        message = tf.strings.reduce_join(tf.boolean_mask(sentences, sentences != b""), separator="; ")
        return [tf.debugging.Assert(tf.reduce_all(self.none()), [message])]


def _with_index(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.join([texts, tf.strings.as_string(tf.range(tf.size(texts)))], separator=" at index ")


def find_faults(headers: FileHeader, limits: RequestLimits) -> FileFaults:
    """Returns what the headers of F files show; each field of `headers` has the files as its first axis."""
    pixels = tf.reduce_prod(headers.size, axis=-1)
    size = _with_index(tf.strings.reduce_join(tf.strings.as_string(headers.size), axis=-1, separator=" x "))
    rule = f"image_bytes must have at most {limits.max_pixels} pixels an image, got "
    large = tf.strings.join([rule, size, ": send a smaller image, or export with a larger --max-pixels"])
    rule = f"image_bytes must have at most {scan_limit(limits.max_pixels)} pixels in all scans of a JPEG together, got "
    scans = tf.strings.as_string(headers.scans)
    slow = tf.strings.join([rule, scans, " scans of ", size, ": save the image anew, as a JPEG of one scan"])
    whole = headers.fault == b""
    beyond = tf.where(whole & (pixels * headers.scans > scan_limit(limits.max_pixels)), slow, "")
    return FileFaults(headers.fault, tf.where(whole & (pixels > limits.max_pixels), large, beyond))


def count_check(count: tf.Tensor, name: str, limits: RequestLimits) -> tf.Operation:
    """Returns the check of the number of images in a request: int32 scalar."""
    rule = f"{name} must hold at least one image and at most {limits.max_images}, got "
    advice = ": send fewer at a time, or export with a larger --max-images"
    message = tf.strings.join([rule, tf.strings.as_string(count), advice])
    return tf.debugging.Assert((count >= 1) & (count <= limits.max_images), [message])


def decoding_check(pixels: tf.Tensor, name: str, limits: RequestLimits, scans: int = 1) -> tf.Operation:
    """Returns the check of the pixels that all images of a request have once they are decoded, before resizing.

    Args:
        pixels: int64 scalar.
        name: the input, in the message.
        limits: what is taken at most.
        scans: what the limit is multiplied by: 1, or `SCANS` where `pixels` counts each pixel of a JPEG once for each scan.
    """
    most, counted = scans * limits.request_pixels, " in all scans together" if scans > 1 else ""
    rule = f"{name} must have at most {most} pixels in a request before resizing{counted}, got "
    advice = ": send fewer images at a time, or export with a larger --max-request-pixels"
    return tf.debugging.Assert(pixels <= most, [tf.strings.join([rule, tf.strings.as_string(pixels), advice])])


def batch_check(
    count: tf.Tensor, largest: tf.Tensor, name: str, config: InputConfig, limits: RequestLimits
) -> tf.Operation:
    """Returns the check of a request's pixels after resizing and padding.

    Args:
        count: int32 scalar, images.
        largest: (2,) int32, the largest height and the largest width of the resized images.
        name: the input, in the message.
        config: the divisor.
        limits: what is taken at most.
    """
    padded = tf.cast(padded_up(largest, config.divisor), tf.int64)
    pixels = tf.cast(count, tf.int64) * tf.reduce_prod(padded)
    rule = f"{name} must have at most {limits.max_batch_pixels} pixels in a request after resizing and padding, got "
    factors = tf.strings.as_string(tf.concat([[tf.cast(count, tf.int64)], padded], axis=0))
    advice = ": send fewer images at a time, or export with a larger --max-batch-pixels"
    message = tf.strings.join([rule, tf.strings.reduce_join(factors, separator=" x "), advice])
    return tf.debugging.Assert(pixels <= limits.max_batch_pixels, [message])
