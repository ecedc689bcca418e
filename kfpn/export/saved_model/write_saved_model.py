"""A SavedModel for TensorFlow Serving, and for every program that loads SavedModels without Keras."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.export.archive import detection_outputs, write_archive, write_classes
from kfpn.export.saved_model.graph_images import Batch, batch_of_files, batch_of_pixels
from kfpn.export.saved_model.serving_files import check_batch_sizes, read_images, write_batching, write_warmup
from kfpn.export.saved_model.sparse_roi_align import SparseRoIAlign
from kfpn.export.trained import Trained, next_version, open_trained, written_aside
from kfpn.export.verify import verify_trained
from kfpn.modeling.detector import inference_model

SIGNATURES = {"image_bytes": "serving_default", "image_tensor": "image_tensor", "proposals": "proposals"}
"""What can be exported, and under which name servers find it."""

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
    verify: bool = False,
) -> Path:
    """Writes a trained detector as the next version of a served model.

    Args:
        workdir: of `kfpn train` or `kfpn import-weights`.
        directory: the model's folder; the export becomes its subfolder 1, 2, ...
        signatures: which of `SIGNATURES` it has.
        warmup: image files that a server answers requests with before it opens, in every signature.
        warmup_batch_sizes: images in these requests; one request for each image and each size.
        batching: also write `directory`/batching.config, unless it is there.
        xla: compile the convolutions and the box head with XLA, anew for each padded size and batch size.
        verify: compare with the Keras model before the version appears, see `kfpn.export.verify`.

    Returns:
        The new version's folder.

    Raises:
        ValueError: for a work directory without weights, a place that can't be written, an unknown signature, an image
            that can't be read, or an export that differs. No version appears then.
    """
    names = _checked(signatures)
    check_batch_sizes(warmup_batch_sizes)
    images = read_images(warmup)
    target = next_version(directory)
    trained = open_trained(workdir)
    with written_aside(target) as aside:
        write_signatures(trained, aside, names, xla)
        if images:
            write_warmup(aside, images, [SIGNATURES[name] for name in names], warmup_batch_sizes, target.parent.name)
        if verify:
            verify_trained(trained, aside)
    if batching:
        write_batching(target.parent)
    return target


def _checked(signatures: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in signatures if name not in SIGNATURES]
    if unknown or not signatures:
        raise ValueError(f"signatures must be some of {', '.join(SIGNATURES)}, got {', '.join(unknown) or 'none'}")
    return tuple(dict.fromkeys(signatures))


def write_signatures(trained: Trained, path: Path, names: Sequence[str] = tuple(SIGNATURES), xla: bool = False) -> None:
    """Writes the SavedModel itself.

    Args:
        trained: the detector.
        path: folder to make.
        names: keys of `SIGNATURES`.
        xla: see `export_saved_model`.
    """
    detector = Detector(trained, xla)
    endpoints = {
        "image_bytes": (detector.detect_files, [_FILES]),
        "image_tensor": (detector.detect_pixels, [_PIXELS]),
        "proposals": (detector.propose, [_PIXELS]),
    }
    write_archive(path, {SIGNATURES[name]: endpoints[name] for name in names})
    write_classes(path, trained)


class Detector:
    """The signatures' functions over one trained detector.

    Args:
        trained: the detector; its submodels with folded norms are used.
        xla: compile features and RPN, and RoIAlign and the box head, with XLA.
    """

    def __init__(self, trained: Trained, xla: bool = False):
        self.config: Config = trained.config
        self.submodels = trained.submodels
        self.category_ids = trained.category_ids
        model = inference_model(
            trained.submodels, trained.config.model, padded=True, proposals_nms="kernel", detections_nms="kernel"
        )
        self._proposals, align, self._select = map(model.get_layer, ("proposals", "roi_align", "detections"))
        # XLA fuses the gathers and knows no sparse matrices.
        self._align = align if xla else SparseRoIAlign.from_config(align.get_config())
        # In training the box head's first layer is a matrix product: faster, but where XLA fuses RoIAlign into it. Nothing
        # else in it changes.
        self._head = functools.partial(trained.submodels.box_head, training=not xla)
        # As functions of their own they are traced and stored once for all signatures.
        self._features = tf.function(self._run_features, autograph=False, jit_compile=xla or None)
        self._heads = tf.function(self._run_heads, autograph=False, jit_compile=xla or None)
        self._propose = tf.function(self._run_proposals, autograph=False)
        self._detect = tf.function(self._run_all, autograph=False)

    def detect_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in image files: (B,) string."""
        return self._detect(batch_of_files(image_bytes, self.config.input))

    def detect_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images of one size: (B, H, W, 3) uint8 RGB."""
        return self._detect(batch_of_pixels(images, self.config.input))

    def propose(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives the RPN's proposals for images of one size: (B, H, W, 3) uint8 RGB; empty rows are zeros."""
        batch = batch_of_pixels(images, self.config.input)
        _, boxes, scores = self._propose(batch)
        pixels, normalised = _to_original(boxes, batch)
        return {
            "proposal_boxes": normalised,
            "proposal_boxes_pixels": pixels,
            "proposal_scores": tf.sigmoid(scores),  # of -inf it is 0
        }

    def _run_all(self, batch: Batch) -> dict[str, tf.Tensor]:
        levels, rois, roi_scores = self._propose(batch)
        outputs = self._heads(levels, rois, batch.image_sizes)
        found = self._select(outputs["logits"], outputs["deltas"], rois, roi_scores, batch.image_sizes)
        pixels, normalised = _to_original(found["boxes"], batch)
        return detection_outputs(found, normalised, pixels, self.category_ids)

    def _run_proposals(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        levels, outputs = self._features(batch.images, batch.image_sizes)
        rois, scores = self._proposals(levels, outputs, batch.image_sizes)
        return levels, rois, scores

    def _run_features(self, images: tf.Tensor, image_sizes: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict]:
        levels = self.submodels.padded_features({"images": images, "image_sizes": image_sizes})
        return levels, self.submodels.rpn(levels)

    def _run_heads(self, levels: dict[str, tf.Tensor], rois: tf.Tensor, image_sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        pooled = self._align(levels, rois, image_sizes)
        return self._head(tf.reshape(pooled, (-1, *pooled.shape[2:])))


def _to_original(boxes: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps boxes (B, N, 4) yxyx of the network's input to the original images: in pixels, and divided by the sizes."""
    sides = tf.cast(tf.tile(batch.image_sizes, (1, 2)), tf.float32)[:, None]
    normalised = tf.clip_by_value(tf.cast(boxes, tf.float32) / sides, 0.0, 1.0)
    return normalised * tf.cast(tf.tile(batch.original_sizes, (1, 2)), tf.float32)[:, None], normalised
