"""Verifies that a SavedModel with thresholds leaves out the detections below them, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfpn.export.class_thresholds import verify_thresholds
from kfpn.export.edge_rows import Rows
from kfpn.export.saved_model.verify_saved_model import call_signature, image_batches
from kfpn.export.trained import TrainedDetector


def verify_served_thresholds(trained: TrainedDetector, plain: Path, path: Path) -> None:
    """Compares a SavedModel that leaves out detections below thresholds with the same one that gives all.

    Args:
        trained: the detector, with its thresholds.
        plain: the SavedModel that gives all detections.
        path: the one that is verified.

    Raises:
        ExportMismatch: as `kfpn.export.class_thresholds.verify_thresholds`.
    """
    both = [tf.saved_model.load(str(one)).signatures for one in (plain, path)]
    pairs = []
    for images in image_batches(trained.config):
        for name in both[1]:
            outputs = [call_signature(signatures[name], images) for signatures in both]
            if outputs[0] is not None and "detection_scores" in outputs[0]:
                pairs += [tuple(_served_rows(one, i) for one in outputs) for i in range(len(images))]
    verify_thresholds(pairs, dict(zip(trained.category_ids, trained.thresholds or (), strict=True)))


def _served_rows(outputs: Any, image: int) -> Rows:
    rows = np.arange(outputs["detection_scores"].shape[1]) < outputs["num_detections"][image]
    names = ("detection_boxes_pixels", "detection_scores", "detection_classes")
    return tuple(outputs[name][image][rows] for name in names)
