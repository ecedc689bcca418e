"""Serves a detector: the form in which a SavedModel holds it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.export.archive import detection_outputs
from kfpn.export.class_thresholds import above_thresholds
from kfpn.export.saved_model.full_masks import FULL_MASKS, full_masks_of, mask_check
from kfpn.export.saved_model.graph_images import ImageBatch, batch_of_pixels
from kfpn.export.saved_model.request_limits import USUAL_LIMITS, RequestLimits
from kfpn.export.saved_model.served_images import ServedImages, to_sent_images
from kfpn.export.trained import TrainedDetector
from kfpn.kernels.sparse_roi_align import SparseRoIAlign
from kfpn.modeling.detector import Detector
from kfpn.modeling.stages import Stages

NMS_FORMS = {"cpu": "kernel", "gpu": "gpu_kernel"}
"""Device that a server has -> the form of NMS that is exported, a key of `kfpn.ops.nms.FINAL_NMS`."""


class ServedDetector(ServedImages, Detector):
    """The detector in the formulations that TensorFlow's own kernels run fastest, and the functions of the signatures.

    Args:
        trained: the detector; its submodels with folded norms are used.
        xla: compile with XLA: features and RPN in one function, RoIAlign and the heads in another.
        limits: what a request may hold.
        nms_on: a key of `NMS_FORMS`.
        full_masks: also give `FULL_MASKS`.
    """

    def __init__(
        self,
        trained: TrainedDetector,
        xla: bool = False,
        limits: RequestLimits = USUAL_LIMITS,
        nms_on: str = "cpu",
        full_masks: bool = False,
    ):
        super().__init__(trained.submodels, trained.config.model, nms=NMS_FORMS[nms_on])
        self.full_masks = full_masks
        self.input: InputConfig = trained.config.input
        self.category_ids = trained.category_ids
        self.thresholds = trained.thresholds
        self.xla = xla
        self.limits = limits
        if not xla:  # XLA fuses the gathers, and has no sparse matrices
            self.aligns = {name: SparseRoIAlign.from_config(align.get_config()) for name, align in self.aligns.items()}
        # Functions of their own are traced and stored once for all signatures.
        self._convolve = tf.function(super().convolve, autograph=False, jit_compile=xla or None)
        self._second_stage = tf.function(super().second_stage, autograph=False, jit_compile=xla or None)
        self._first_stage = tf.function(self._propose_in_batch, autograph=False)
        self._detect = tf.function(self._detect_in_batch, autograph=False)

    def convolve(self, images, image_sizes, training=None):
        """Runs the fully convolutional part as a function of its own."""
        return self._convolve(images, image_sizes)

    def second_stage(self, levels, boxes, image_sizes, training=None, names=None):
        """Pools and reads boxes as a function of its own."""
        return self._second_stage(levels, boxes, image_sizes, None, None if names is None else tuple(names))

    def heads(self, pooled, training=None):
        """Reads the pooled boxes.

        With `training` the box head's first layer is a matrix product, and nothing else in the head changes. The product is
        faster, except where XLA fuses RoIAlign into that layer.
        """
        return super().heads(pooled, training=not self.xla)

    def select(self, outputs, rois, image_sizes):
        """Selects the detections that reach the threshold of their class, where the export has thresholds."""
        return above_thresholds(super().select(outputs, rois, image_sizes), self.thresholds)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Returns the functions of the signatures, `proposals` among them."""
        return {**super().functions(), "proposals": self.propose_in_pixels}

    def answer(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        """Returns the detections of images, see `detection_outputs`."""
        return self._detect(batch)

    def checked(self, batch: ImageBatch, files: tf.Tensor) -> ImageBatch:
        """Returns the batch, which is refused where its full masks would be too large."""
        if not self.full_masks:
            return batch
        with tf.control_dependencies(
            [mask_check(batch.original_sizes, files, self.config.max_detections, self.limits)]
        ):
            return ImageBatch(*map(tf.identity, batch))

    def completed(self, outputs: dict[str, tf.Tensor], sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs and, if they are asked for, the masks in images of the sizes (B, 2)."""
        if not self.full_masks:
            return outputs
        masks, boxes = outputs["detection_masks"], outputs["detection_boxes_pixels"]
        return {**outputs, FULL_MASKS: full_masks_of(masks, boxes, sizes, self.config.pasting)}

    def propose_in_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the RPN's proposals for images of one size: (B, H, W, 3) uint8 RGB; empty rows are zeros."""
        batch = batch_of_pixels(images, self.input, self.limits)
        rois = self._first_stage(batch).rois
        pixels, normalised = to_sent_images(rois.boxes, batch)
        return {
            "proposal_boxes": normalised,
            "proposal_boxes_pixels": pixels,
            "proposal_scores": tf.sigmoid(rois.scores),  # 0 in empty rows, whose logit is -inf
        }

    def _propose_in_batch(self, batch: ImageBatch) -> Stages:
        return self.first_stage(batch.images, batch.image_sizes)

    def _detect_in_batch(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        detections = self(batch.images, batch.image_sizes)
        pixels, normalised = to_sent_images(detections["boxes"], batch)
        return detection_outputs(detections, normalised, pixels, self.category_ids)
