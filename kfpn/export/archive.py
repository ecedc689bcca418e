"""Writes SavedModels, and the classes that belong to them; names their outputs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfpn.export.asset_files import CLASSES, SEGMENTS
from kfpn.export.trained import TrainedDetector, TrainedSegmenter
from kfpn.runs.atomic_files import write_json


def detection_outputs(
    detections: Mapping[str, tf.Tensor], normalised: tf.Tensor, pixels: tf.Tensor, category_ids: Sequence[int]
) -> dict[str, tf.Tensor]:
    """Names detections as clients of the TensorFlow Object Detection API expect them, all float32.

    Args:
        detections: of the detector: scores (B, D), labels (B, D) int32, -1 in empty rows, num_detections (B,), and with a
            mask head masks (B, D, M, M).
        normalised: (B, D, 4) float32 yxyx, the boxes divided by the image's sides.
        pixels: (B, D, 4) float32 yxyx, the boxes in pixels.
        category_ids: the data set's own ids of labels 0, 1, and so on.
    """
    # Empty rows have the label -1. They get the id behind the last class, which is 0.
    ids = tf.constant((*category_ids, 0), tf.float32)
    labels = tf.where(detections["labels"] < 0, len(category_ids), detections["labels"])
    masks = {"detection_masks": tf.cast(detections["masks"], tf.float32)} if "masks" in detections else {}
    return {
        **masks,
        "detection_boxes": normalised,
        "detection_boxes_pixels": pixels,
        "detection_scores": tf.cast(detections["scores"], tf.float32),
        "detection_classes": tf.gather(ids, labels),
        "num_detections": tf.cast(detections["num_detections"], tf.float32),
    }


def segment_outputs(
    segments: Mapping[str, tf.Tensor], normalised: tf.Tensor, pixels: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Names segments in the style of `detection_outputs`, all float32.

    Args:
        segments: of the segmenter: scores (B, N), masks (B, N, M, M), levels and windows (B, N) int32, 0 in empty rows.
        normalised: (B, N, 4) float32 yxyx, the windows divided by the image's sides. They may reach beyond 0 and 1: a mask lies in the
            whole window.
        pixels: (B, N, 4) float32 yxyx, the windows in pixels.
    """
    exists = tf.cast(segments["levels"] > 0, tf.float32)
    return {
        "segment_masks": tf.cast(segments["masks"], tf.float32),
        "segment_boxes": normalised,
        "segment_boxes_pixels": pixels,
        "segment_scores": tf.cast(segments["scores"], tf.float32) * exists,
        "segment_levels": tf.cast(segments["levels"], tf.float32),
        "segment_windows": tf.cast(segments["windows"], tf.float32),
        "num_segments": tf.reduce_sum(exists, axis=-1),
    }


def write_archive(path: Path, endpoints: Mapping[str, tuple[Callable[..., Any], Sequence[tf.TensorSpec]]]) -> None:
    """Writes functions as the signatures of a SavedModel, with the variables that they use.

    Args:
        path: folder to make.
        endpoints: each signature's function and the specs of its arguments.

    Raises:
        ValueError: if the disk is full or fails.
    """
    # tf.saved_model.save would leave out variables, which C++ loaders could not find then. Keras' archive adds all
    # variables that its endpoints use. A model must not be tracked besides: it would be stored a second time.
    archive = keras.export.ExportArchive()
    for name, (function, specs) in endpoints.items():
        archive.add_endpoint(name, function, list(specs))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:
        # The parts before the last one name a function and a temporary file, which tell the user nothing.
        reason = error.message.rpartition("; ")[2]
        raise ValueError(f"{path.parent.parent} must have room for a SavedModel, got {reason}") from error


def write_facts(path: Path, trained: TrainedDetector | TrainedSegmenter) -> None:
    """Writes what a client has to know beside the outputs into a SavedModel's assets.

    They are class names and category ids, and thresholds and the rule of pasting masks where it has them; of segments this rule.
    An export that does not compute in float32 also says its precision.

    Args:
        path: the SavedModel's folder.
        trained: the detector, or what proposes segments.
    """
    file = path / CLASSES
    file.parent.mkdir(exist_ok=True)
    precision = {} if trained.precision == "float32" else {"precision": trained.precision}
    if isinstance(trained, TrainedSegmenter):
        write_json(path / SEGMENTS, {"pasting": trained.config.model.pasting, **precision})
        return
    own: dict[str, Any] = {} if trained.thresholds is None else {"thresholds": list(trained.thresholds)}
    if trained.config.model.mask:
        own["pasting"] = trained.config.model.pasting
    write_json(
        file, {"class_names": list(trained.class_names), "category_ids": list(trained.category_ids), **own, **precision}
    )
