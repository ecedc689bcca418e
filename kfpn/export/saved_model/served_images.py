"""Answers requests with images: reads, resizes and pads them, and hands them to a network."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.export.saved_model.graph_images import ImageBatch, batch_of_files, batch_of_pixels
from kfpn.export.saved_model.request_limits import RequestLimits


class ServedImages(ABC):
    """The functions of the signatures `image_bytes` and `image_tensor`, whatever the network gives.

    Attributes:
        input: how images are resized.
        limits: what a request may hold.
    """

    input: InputConfig
    limits: RequestLimits

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Returns the functions of the signatures by the names of `kfpn export saved_model --signatures`."""
        return {"image_bytes": self.detect_files, "image_tensor": self.detect_pixels}

    @abstractmethod
    def answer(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        """Runs the network: returns outputs with one row an image."""

    def checked(self, batch: ImageBatch, files: tf.Tensor) -> ImageBatch:
        """Returns the batch of a request of so many files, or one that makes the request fail. Here each request may be answered."""
        return batch

    def completed(self, outputs: dict[str, tf.Tensor], sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs, and what is made of them for images that were sent with the sizes (B, 2). Here nothing is added."""
        return outputs

    def detect_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in image files: (B,) string. A bad file gets a row of zeros, and a sentence in `errors`."""
        files = batch_of_files(image_bytes, self.input, self.limits)
        batch = self.checked(files.batch, tf.size(image_bytes))
        outputs, sizes = self.answer(batch), batch.original_sizes
        if self.limits.strict:
            return self.completed(outputs, sizes)
        # The row behind the last image is the one of files without an image.
        rows = {name: tf.concat([value, tf.zeros_like(value[:1])], axis=0) for name, value in outputs.items()}
        outputs = {name: tf.gather(value, files.rows) for name, value in rows.items()}
        sizes = tf.gather(tf.concat([sizes, [[0, 0]]], axis=0), files.rows)
        return {**self.completed(outputs, sizes), "errors": files.errors}

    def detect_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images of one size: (B, H, W, 3) uint8 RGB."""
        batch = self.checked(batch_of_pixels(images, self.input, self.limits), tf.shape(images)[0])
        return self.completed(self.answer(batch), batch.original_sizes)


def to_sent_images(boxes: tf.Tensor, batch: ImageBatch, clip: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps boxes of the network's input to the images as they were sent.

    Args:
        boxes: (B, N, 4) yxyx pixels of the network's input.
        batch: the images.
        clip: cut boxes off at the images' borders.

    Returns:
        Boxes in pixels, and divided by the images' sides; both (B, N, 4) float32.
    """
    sides = tf.cast(tf.tile(batch.image_sizes, (1, 2)), tf.float32)[:, None]
    normalised = tf.cast(boxes, tf.float32) / sides
    if clip:
        normalised = tf.clip_by_value(normalised, 0.0, 1.0)
    return normalised * tf.cast(tf.tile(batch.original_sizes, (1, 2)), tf.float32)[:, None], normalised
