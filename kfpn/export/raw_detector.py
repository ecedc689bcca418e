"""Detects without the last NMS, and gives the rows that a selection starts from."""

import numpy as np

from kfpn.export.edge_rows import Rows
from kfpn.modeling.detector import Detector
from kfpn.modeling.heads.box import scored_boxes


class RawDetector(Detector):
    """The detector without its last NMS: boxes (B, R, K, 4) and scores (B, R, K) of each RoI."""

    def select(self, outputs, rois, image_sizes):
        """Returns boxes and scores of all RoIs in all classes."""
        outputs, rois = self.joined(outputs, rois)
        boxes, scores = scored_boxes(
            outputs["box"]["logits"], outputs["box"]["deltas"], rois.boxes, rois.scores, image_sizes,
            self.config.min_detection_size,
        )  # fmt: skip
        return {"boxes": boxes, "scores": scores}

    def finish(self, stages, image_sizes):
        """Ends with that selection: there are no detections that other heads could look at."""
        return self.select(stages.outputs, stages.rois, image_sizes)


def candidate_rows(raw: dict[str, np.ndarray], image: int, least_score: float) -> Rows:
    """Returns boxes, scores and labels of one image's rows before NMS that have a score of at least `least_score`.

    Args:
        raw: outputs of `RawDetector`.
        image: its index in the batch.
        least_score: float; empty rows, whose score is 0, are left out in any case.
    """
    scores = raw["scores"][image]
    roi, label = np.nonzero((scores >= least_score) & (scores > 0.0))
    return raw["boxes"][image][roi, label], scores[roi, label], label
