"""Serves a network that proposes segments: the form in which a SavedModel holds it."""

import tensorflow as tf

from kfpn.export.archive import segment_outputs
from kfpn.export.saved_model.graph_images import ImageBatch
from kfpn.export.saved_model.request_limits import USUAL_LIMITS, RequestLimits
from kfpn.export.saved_model.served_images import ServedImages, to_sent_images
from kfpn.export.trained import TrainedSegmenter
from kfpn.modeling.segmenter import Segmenter


class ServedSegmenter(ServedImages, Segmenter):
    """The segmenter with the functions of the signatures.

    Args:
        trained: the segmenter; its submodels with folded norms are used.
        xla: compile the pyramid, and the layers on all windows, with XLA.
        limits: what a request may hold.
    """

    def __init__(self, trained: TrainedSegmenter, xla: bool = False, limits: RequestLimits = USUAL_LIMITS):
        super().__init__(trained.submodels, trained.config.model)
        self.input, self.limits = trained.config.input, limits
        # Functions of their own are traced and stored once for all signatures.
        self._convolve = tf.function(super().pyramid, autograph=False, jit_compile=xla or None)
        self._look_at_windows = tf.function(super().all_windows, autograph=False, jit_compile=xla or None)
        self._segment = tf.function(self._segment_batch, autograph=False)

    def pyramid(self, images, image_sizes, training=None):
        """Computes the levels as a function of its own."""
        return self._convolve(images, image_sizes)

    def all_windows(self, levels):
        """Computes the hidden layers and the scores as a function of their own."""
        return self._look_at_windows(levels)

    def answer(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        """Returns the segments of images, see `segment_outputs`."""
        return self._segment(batch)

    def _segment_batch(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        segments = self(batch.images, batch.image_sizes)
        pixels, normalised = to_sent_images(segments["boxes"], batch, clip=False)
        return segment_outputs(segments, normalised, pixels)
