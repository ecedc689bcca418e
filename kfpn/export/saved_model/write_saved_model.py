"""Writes SavedModels for TensorFlow Serving, and for every program that loads SavedModels without Keras."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.export.archive import detection_outputs, write_archive, write_classes
from kfpn.export.class_thresholds import above_thresholds
from kfpn.export.saved_model.full_masks import FULL_MASKS, full_masks_of, mask_check
from kfpn.export.saved_model.graph_images import ImageBatch, batch_of_files, batch_of_pixels
from kfpn.export.saved_model.request_limits import USUAL_LIMITS, RequestLimits
from kfpn.export.saved_model.serving_files import (
    check_batch_pixels,
    check_batch_sizes,
    read_images,
    write_batching,
    write_warmup,
)
from kfpn.export.saved_model.sparse_roi_align import SparseRoIAlign
from kfpn.export.saved_model.verify_saved_model import verify_trained
from kfpn.export.saved_model.verify_thresholded import verify_served_thresholds
from kfpn.export.trained import TrainedDetector, next_version, open_trained, written_aside
from kfpn.modeling.detector import Detector
from kfpn.modeling.stages import Stages

SIGNATURES = {"image_bytes": "serving_default", "image_tensor": "image_tensor", "proposals": "proposals"}
"""Signature that can be exported -> the name by which servers find it."""
NMS_FORMS = {"cpu": "kernel", "gpu": "gpu_kernel"}
"""Device that a server has -> the form of NMS that is exported, a key of `kfpn.ops.nms.FINAL_NMS`."""

_FILES = tf.TensorSpec((None,), tf.string, "image_bytes")
_PIXELS = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")


def export_saved_model(
    workdir: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    signatures: Sequence[str] = tuple(SIGNATURES),
    warmup: Sequence[str | os.PathLike] = (),
    warmup_batch_sizes: Sequence[int] = (1,),
    batching: bool = False,
    xla: bool = False,
    nms_on: str = "cpu",
    best_thresholds: bool = False,
    verify: bool = False,
    limits: RequestLimits = USUAL_LIMITS,
    full_masks: bool = False,
) -> Path:
    """Writes a trained detector as the next version of a served model.

    Args:
        workdir: of `kfpn train` or `kfpn import-weights`.
        directory: the model's folder; the export becomes its next subfolder: 1, 2, and so on.
        signatures: keys of `SIGNATURES`.
        warmup: image files, of which a server answers requests in every signature before it opens.
        warmup_batch_sizes: images in these requests; there is one request for each image and each size.
        batching: also write `directory`/batching.config, unless it is there.
        xla: compile the convolutions and the box head with XLA, anew for each padded size and batch size.
        nms_on: a key of `NMS_FORMS`: the device whose kernels select proposals and detections. The detections are the same.
        best_thresholds: leave out detections below the threshold of their class, see `kfpn.evaluate`.
        verify: compare with the Keras model before the version appears, see `verify_saved_model`.
        limits: what the server takes at most, and whether one bad file fails its whole request.
        full_masks: also give the masks pasted into images of the size that was sent, see `FULL_MASKS`. It takes a detector with
            masks, and a signature other than "proposals".

    Returns:
        The new version's folder.

    Raises:
        ValueError: for a work directory without weights or without the thresholds or masks that are asked for, a place that cannot
            be written, an unknown signature, or an image that cannot be read. No version appears then.
        ExportMismatch: a ValueError, for an export that differs from Keras. No version appears then.
    """
    names = _checked_signatures(signatures)
    if nms_on not in NMS_FORMS:
        raise ValueError(f"nms_on must be {' or '.join(NMS_FORMS)}, got {nms_on!r}")
    if full_masks and names == ("proposals",):
        raise ValueError("full_masks must go with image_bytes or image_tensor, got the signature proposals alone")
    check_batch_sizes(warmup_batch_sizes, limits)
    images = read_images(warmup, limits)
    target = next_version(directory)
    trained = open_trained(workdir, best_thresholds)
    if full_masks and not trained.config.model.mask:
        raise ValueError(f"full_masks must go with a detector that has masks, got {workdir}, which has none")
    masks = trained.config.model.max_detections if full_masks else 0
    check_batch_pixels(images, warmup_batch_sizes, trained.config.input, limits, masks)
    form = xla, limits, nms_on, full_masks
    with written_aside(target) as aside:
        write_signatures(trained, aside, names, ServedDetector(trained, *form))
        if images:
            write_warmup(aside, images, [SIGNATURES[name] for name in names], warmup_batch_sizes, target.parent.name)
        if verify and trained.thresholds is None:
            verify_trained(trained, aside)
        elif verify:
            # The thresholds hide most rows of a drawn picture. So the same export without them is compared with Keras.
            plain, all_rows = aside.with_name("plain"), dataclasses.replace(trained, thresholds=None)
            write_signatures(all_rows, plain, names, ServedDetector(all_rows, *form))
            verify_trained(all_rows, plain)
            verify_served_thresholds(trained, plain, aside)
    if batching:
        write_batching(target.parent)
    return target


def _checked_signatures(signatures: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in signatures if name not in SIGNATURES]
    if unknown or not signatures:
        raise ValueError(f"signatures must be some of {', '.join(SIGNATURES)}, got {', '.join(unknown) or 'none'}")
    return tuple(dict.fromkeys(signatures))


def write_signatures(
    trained: TrainedDetector,
    path: Path,
    names: Sequence[str] = tuple(SIGNATURES),
    detector: "ServedDetector | None" = None,
) -> None:
    """Writes the SavedModel itself.

    Args:
        trained: the detector.
        path: folder to make.
        names: keys of `SIGNATURES`.
        detector: the form in which it is served; None: the usual one.
    """
    detector = detector or ServedDetector(trained)
    endpoints = {
        "image_bytes": (detector.detect_files, [_FILES]),
        "image_tensor": (detector.detect_pixels, [_PIXELS]),
        "proposals": (detector.propose_in_pixels, [_PIXELS]),
    }
    write_archive(path, {SIGNATURES[name]: endpoints[name] for name in names})
    write_classes(path, trained)


class ServedDetector(Detector):
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

    def detect_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in image files: (B,) string. A bad file gets a row of zeros, and a sentence in `errors`."""
        files = batch_of_files(image_bytes, self.input, self.limits)
        batch = self._with_checked_masks(files.batch, tf.size(image_bytes))
        outputs, sizes = self._detect(batch), batch.original_sizes
        if self.limits.strict:
            return self._with_full_masks(outputs, sizes)
        # The row behind the last image is the one of files without an image.
        rows = {name: tf.concat([value, tf.zeros_like(value[:1])], axis=0) for name, value in outputs.items()}
        outputs = {name: tf.gather(value, files.rows) for name, value in rows.items()}
        sizes = tf.gather(tf.concat([sizes, [[0, 0]]], axis=0), files.rows)
        return {**self._with_full_masks(outputs, sizes), "errors": files.errors}

    def detect_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images of one size: (B, H, W, 3) uint8 RGB."""
        batch = self._with_checked_masks(batch_of_pixels(images, self.input, self.limits), tf.shape(images)[0])
        return self._with_full_masks(self._detect(batch), batch.original_sizes)

    def _with_checked_masks(self, batch: ImageBatch, files: tf.Tensor) -> ImageBatch:
        """Returns the batch, which is refused where its full masks would be too large."""
        if not self.full_masks:
            return batch
        with tf.control_dependencies(
            [mask_check(batch.original_sizes, files, self.config.max_detections, self.limits)]
        ):
            return ImageBatch(*map(tf.identity, batch))

    def _with_full_masks(self, outputs: dict[str, tf.Tensor], sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs and, if they are asked for, the masks in images of the sizes (B, 2)."""
        if not self.full_masks:
            return outputs
        masks, boxes = outputs["detection_masks"], outputs["detection_boxes_pixels"]
        return {**outputs, FULL_MASKS: full_masks_of(masks, boxes, sizes, self.config.pasting)}

    def propose_in_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the RPN's proposals for images of one size: (B, H, W, 3) uint8 RGB; empty rows are zeros."""
        batch = batch_of_pixels(images, self.input, self.limits)
        rois = self._first_stage(batch).rois
        pixels, normalised = _to_original(rois.boxes, batch)
        return {
            "proposal_boxes": normalised,
            "proposal_boxes_pixels": pixels,
            "proposal_scores": tf.sigmoid(rois.scores),  # 0 in empty rows, whose logit is -inf
        }

    def _propose_in_batch(self, batch: ImageBatch) -> Stages:
        return self.first_stage(batch.images, batch.image_sizes)

    def _detect_in_batch(self, batch: ImageBatch) -> dict[str, tf.Tensor]:
        detections = self(batch.images, batch.image_sizes)
        pixels, normalised = _to_original(detections["boxes"], batch)
        return detection_outputs(detections, normalised, pixels, self.category_ids)


def _to_original(boxes: tf.Tensor, batch: ImageBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps boxes (B, N, 4) yxyx of the network's input to the original images: in pixels, and divided by the sizes."""
    sides = tf.cast(tf.tile(batch.image_sizes, (1, 2)), tf.float32)[:, None]
    normalised = tf.clip_by_value(tf.cast(boxes, tf.float32) / sides, 0.0, 1.0)
    return normalised * tf.cast(tf.tile(batch.original_sizes, (1, 2)), tf.float32)[:, None], normalised
