"""Runs the Keras model on images as a SavedModel gets them, for `--verify`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.data.augment import prepare_image
from kfpn.evaluation.detect import to_original
from kfpn.evaluation.segment_recall import original_segments
from kfpn.export.raw_detector import RawDetector, candidate_rows
from kfpn.export.saved_model.graph_resize import resize
from kfpn.export.segment_comparison import window_names
from kfpn.export.trained import TrainedDetector, TrainedSegmenter
from kfpn.export.verify import EXPORT_LIMITS
from kfpn.modeling.detector import inference_model
from kfpn.modeling.segmenter import segments_model
from kfpn.ops.padding import padded_up

_INPUTS = {
    "images": tf.TensorSpec((None, None, None, 3), tf.float32),
    "image_sizes": tf.TensorSpec((None, 2), tf.int32),
}


class PaddedImages:
    """Resizes and pads images, and keeps how far TensorFlow's resizing was from Pillow's.

    Args:
        config: of the run.

    Attributes:
        level: int, largest difference of TensorFlow's resizing from Pillow's so far, of 255 levels.
        share: float, the largest share of an image's values that differ.
    """

    def __init__(self, config: Config):
        self.config = config
        self.level, self.share = 0, 0.0

    def padded_batch(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns images resized and padded, (B, H, W, 3) float32, and their sizes, (B, 2) int32."""
        # TensorFlow resizes here too, so that a pixel which Pillow rounds the other way does not count as the model's
        # difference.
        resized = [self._resized(image) for image in images]
        sizes = np.array([pixels.shape[:2] for pixels in resized], np.int32)
        sides = padded_up(sizes.max(0), self.config.input.divisor)
        padded = np.zeros((len(images), *sides, 3), np.float32)
        for row, pixels in zip(padded, resized, strict=True):
            row[: len(pixels), : pixels.shape[1]] = pixels
        return padded, sizes

    def _resized(self, image: np.ndarray) -> np.ndarray:
        pillow, size = prepare_image(image, self.config.input)
        resized = resize(tf.constant(image[None]), tf.constant(size))[0].numpy()
        levels = np.abs(resized.astype(int) - pillow)
        self.level, self.share = max(self.level, int(levels.max())), max(self.share, float(np.mean(levels > 0)))
        return resized


class Reference(PaddedImages):
    """The detector as it was trained, with its norms, as a function of images of any sizes.

    Args:
        trained: the detector. Its `unfolded` submodels are used, with the NMS that every backend has.
    """

    def __init__(self, trained: TrainedDetector):
        super().__init__(trained.config)
        self.score_limit = EXPORT_LIMITS[trained.precision].score
        self.category_ids = np.array(trained.category_ids)
        self.raw = RawDetector(trained.unfolded, trained.config.model)
        model = inference_model(trained.unfolded, trained.config.model, padded=True)
        proposals = model.get_layer("proposals").output
        both = keras.Model(model.inputs, (model.output, proposals))
        self.run = tf.function(both, input_signature=[_INPUTS], autograph=False)

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns size, boxes (in its pixels), scores, labels, proposal_boxes, proposal_scores and, where there are any, masks of each image."""
        padded, sizes = self.padded_batch(images)
        detections, (rois, logits) = self.run({"images": padded, "image_sizes": sizes})
        results = []
        for i, image in enumerate(images):
            count, kept = int(detections["num_detections"][i]), np.array(logits[i]) > -np.inf
            shape = np.array(image.shape[:2])
            results.append(
                {
                    "size": sizes[i],
                    "boxes": to_original(np.array(detections["boxes"][i, :count]), sizes[i], shape),
                    "scores": np.array(detections["scores"][i, :count]),
                    "labels": np.array(detections["labels"][i, :count]),
                    "proposal_boxes": to_original(np.array(rois[i])[kept], sizes[i], shape),
                    "proposal_scores": 1.0 / (1.0 + np.exp(-np.array(logits[i], np.float64)[kept])),
                }
            )
            if "masks" in detections:
                results[-1]["masks"] = np.array(detections["masks"][i, :count])
        return results

    def with_candidates(self, images: Sequence[np.ndarray], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns results with the entry `candidates`: the rows before NMS, boxes in pixels of the network's input."""
        padded, sizes = self.padded_batch(images)
        raw = {name: np.array(value) for name, value in self.raw(tf.constant(padded), tf.constant(sizes)).items()}
        least, rows = self.config.model.score_threshold - self.score_limit, []
        for i in range(len(images)):
            boxes, scores, labels = candidate_rows(raw, i, least)
            rows.append((boxes, scores, self.category_ids[labels]))
        return [{**result, "candidates": own} for result, own in zip(results, rows, strict=True)]


class SegmentReference(PaddedImages):
    """The segmenter as it was trained, with its norms, as a function of images of any sizes.

    Args:
        trained: the segmenter. Its `unfolded` submodels are used.
    """

    def __init__(self, trained: TrainedSegmenter):
        super().__init__(trained.config)
        model = segments_model(trained.unfolded, trained.config.model, padded=True)
        self.run = tf.function(model, input_signature=[_INPUTS], autograph=False)

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns size, boxes (in the image's pixels), scores, masks and labels, names of windows, of each image."""
        padded, sizes = self.padded_batch(images)
        outputs = {name: np.array(value) for name, value in self.run({"images": padded, "image_sizes": sizes}).items()}
        results = []
        for i, image in enumerate(images):
            row = {name: value[i] for name, value in outputs.items()}
            row |= {"image_sizes": sizes[i], "original_sizes": np.array(image.shape[:2])}
            segments = original_segments(row)
            labels = window_names(segments["levels"], segments["windows"])
            results.append({**segments, "size": sizes[i], "labels": labels})
        return results

    def with_candidates(self, images: Sequence[np.ndarray], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the results: without NMS there are no candidates that it left out."""
        return results
