"""What the SavedModels of all exports have in common: their outputs' names, how they are written, and the classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfpn.export.trained import TrainedDetector
from kfpn.runs.atomic_files import write_json

CLASSES = Path("assets") / "classes.json"
"""Where class names and category ids lie in a SavedModel."""


def detection_outputs(
    found: Mapping[str, tf.Tensor], normalised: tf.Tensor, pixels: tf.Tensor, category_ids: Sequence[int]
) -> dict[str, tf.Tensor]:
    """Names detections as clients of the TensorFlow Object Detection API expect them, all float32.

    Args:
        found: scores (B, D), labels (B, D) int32, -1 in empty rows, and num_detections (B,), of the detector.
        normalised: (B, D, 4) float32 yxyx, its boxes divided by the image's sides.
        pixels: (B, D, 4) float32 yxyx, the same in pixels.
        category_ids: the data set's own ids of labels 0, 1, ...
    """
    # Label -1, of empty rows, gets the id behind the last.
    ids = tf.constant((*category_ids, 0), tf.float32)
    labels = tf.where(found["labels"] < 0, len(category_ids), found["labels"])
    return {
        "detection_boxes": normalised,
        "detection_boxes_pixels": pixels,
        "detection_scores": tf.cast(found["scores"], tf.float32),
        "detection_classes": tf.gather(ids, labels),
        "num_detections": tf.cast(found["num_detections"], tf.float32),
    }


def write_archive(path: Path, endpoints: Mapping[str, tuple[Callable[..., Any], Sequence[tf.TensorSpec]]]) -> None:
    """Writes functions as the signatures of a SavedModel, with the variables that they use.

    Args:
        path: folder to make.
        endpoints: each signature's function and the specs of its arguments.

    Raises:
        ValueError: if the disk is full or fails.
    """
    # tf.saved_model.save would leave out variables that C++ loaders then can't find. Keras' archive adds all that its
    # endpoints use; a model that is tracked besides would be stored a second time.
    archive = keras.export.ExportArchive()
    for name, (function, specs) in endpoints.items():
        archive.add_endpoint(name, function, list(specs))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:
        # Before the last part stand the names of a function and of a file that is gone by now.
        reason = error.message.rpartition("; ")[2]
        raise ValueError(f"{path.parent.parent} must have room for a SavedModel, got {reason}") from error


def write_classes(path: Path, trained: TrainedDetector) -> None:
    """Writes class names and category ids into the assets of a SavedModel, the folder `path`."""
    file = path / CLASSES
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"class_names": list(trained.class_names), "category_ids": list(trained.category_ids)})
