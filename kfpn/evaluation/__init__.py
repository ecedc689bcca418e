"""Measures detectors on whole data sets: detections, COCO's average precision and recall, recall of proposals."""

from kfpn.evaluation.coco_figures import FIGURES, evaluate_coco, evaluate_coco_json
from kfpn.evaluation.coco_rows import detections_to_coco
from kfpn.evaluation.detect import detect_image, detect_source, evaluate_source
from kfpn.evaluation.source_pass import SourcePass, detect_function

__all__ = [
    "FIGURES",
    "SourcePass",
    "detect_function",
    "detect_image",
    "detect_source",
    "detections_to_coco",
    "evaluate_coco",
    "evaluate_coco_json",
    "evaluate_source",
]
