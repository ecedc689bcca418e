"""Matches detections with objects by hotcoco, which gives the figures of pycocotools and says more about errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfpn.evaluation.coco_figures import COCO_LIMITS, Kind

ALL_AREAS = (0.0, 1e10)
"""The range of areas that leaves nothing out, as pycocotools has it."""


def matched_evaluation(
    truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    kind: Kind = "bbox",
    limit: int = COCO_LIMITS[-1],
    image_ids: Sequence[int] | None = None,
    ranges: Sequence[Sequence[float]] = (),
) -> Any:
    """Returns hotcoco's COCOeval after its `evaluate()` and `accumulate()`.

    Args:
        truth: of `ground_truth`, for masks of `masked`.
        results: of `detections_to_coco`, for masks with `segmentation`. An `area` that a row has stays.
        kind: "bbox", of boxes, or "segm", of masks.
        limit: the most detections of an image and a class that count; at least COCO's 100.
        image_ids: of the images that count; None: all.
        ranges: (lowest, highest) `area` of objects, each measured apart, behind all areas. Empty: COCO's small, medium and large.
    """
    # Imported here, because `kfpn --help` does not need it.
    import hotcoco

    annotations = [
        {**result, "id": number, "area": result["area"] if "area" in result else _area_of(result, kind), "iscrowd": 0}
        for number, result in enumerate(results, start=1)
    ]
    evaluation = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO({**truth, "annotations": annotations}), kind)
    params = evaluation.params
    params.max_dets = [*COCO_LIMITS[:-1], max(limit, COCO_LIMITS[-1])]
    if image_ids is not None:
        params.img_ids = [int(number) for number in image_ids]
    if ranges:
        params.area_rng = [[float(low), float(high)] for low, high in (ALL_AREAS, *ranges)]
        params.area_rng_lbl = ["all", *(str(number) for number in range(len(ranges)))]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def precision_of(evaluation: Any, area_range: int = 0) -> np.ndarray:
    """Returns the precision of an evaluation at its highest limit: (IoU thresholds, 101 recalls, classes), -1 without objects.

    Args:
        evaluation: of `matched_evaluation`.
        area_range: 0: of all objects; n: of those in the range n - 1 of `ranges`.
    """
    return np.asarray(evaluation.eval["precision"])[..., area_range, -1]


def _area_of(result: dict[str, Any], kind: Kind) -> float:
    if kind == "bbox":
        return float(result["bbox"][2] * result["bbox"][3])
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(result["segmentation"]))
