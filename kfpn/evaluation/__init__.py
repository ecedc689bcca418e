"""Average precision and recall (COCO), and running a detector over a whole source."""

from kfpn.evaluation.coco_figures import FIGURES, detections_to_coco, evaluate_coco, evaluate_coco_json
from kfpn.evaluation.detect import detect_function, detect_image, detect_source, evaluate_source

__all__ = [
    "FIGURES",
    "detect_function",
    "detect_image",
    "detect_source",
    "detections_to_coco",
    "evaluate_coco",
    "evaluate_coco_json",
    "evaluate_source",
]
