"""Measures AP of objects by their size, by their aspect ratio, and by how many there are in their image."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kfpn.evaluation.coco_figures import Kind, measured_mean
from kfpn.evaluation.fast_matching import ALL_AREAS, matched_evaluation, precision_of

SIDES = (0, 16, 32, 64, 96, 192, 384)
"""Bounds of the root of an object's area in pixels; COCO's small and medium end at 32 and 96."""
RATIOS = (0.0, 1 / 3, 2 / 3, 1.5, 3.0)
"""Bounds of width by height."""
RATIO_NAMES = ("taller than 3 : 1", "tall", "about square, up to 3 : 2", "wide", "wider than 3 : 1")
"""Names of the ranges between `RATIOS`."""
CROWDS = (1, 2, 5, 10, 20, 50)
"""Least objects of an image, for each range."""


class PropertyFigures(NamedTuple):
    """Holds the figures of the objects in a range: its name, their number, AP and AP50, None where nothing is measured."""

    name: str
    objects: int
    ap: float | None
    ap50: float | None


def ap_by_properties(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Kind, limit: int
) -> dict[str, tuple[PropertyFigures, ...]]:
    """Returns AP by size, by aspect ratio and by crowding: title -> the ranges that have objects.

    A range counts as COCO's small, medium and large do: objects outside of it are ignored, and so are detections outside of it that
    match no object.

    Args:
        truth, results, kind, limit: as `matched_evaluation` takes them.
    """

    def in_ranges(names: Sequence[str], bounds: Sequence[float], value: Callable | None) -> tuple[PropertyFigures, ...]:
        ranges = list(zip(bounds, [*bounds[1:], ALL_AREAS[1]], strict=True))
        changed = truth, results
        if value is not None:  # the matching knows areas only, so the property takes the area's place
            annotations = [{**one, "area": value(one)} for one in truth["annotations"]]
            changed = {**truth, "annotations": annotations}, [{**one, "area": value(one)} for one in results]
        evaluation = matched_evaluation(*changed, kind, limit, ranges=ranges)
        values = [one["area"] for one in changed[0]["annotations"] if not one["iscrowd"]]
        counts = [sum(low <= one < high for one in values) for low, high in ranges]
        return tuple(
            _of_precision(name, objects, precision_of(evaluation, place))
            for place, (name, objects) in enumerate(zip(names, counts, strict=True), start=1)
            if objects
        )

    return {
        "size (root of the area, pixels)": in_ranges(_names_of(SIDES), [side**2 for side in SIDES], None),
        "aspect ratio (width : height)": in_ranges(RATIO_NAMES, RATIOS, _ratio),
        "crowding (objects of an image)": _by_crowding(truth, results, kind, limit),
    }


def _by_crowding(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Kind, limit: int
) -> tuple[PropertyFigures, ...]:
    counts = Counter(one["image_id"] for one in truth["annotations"] if not one["iscrowd"])
    rows = []
    for name, low, high in zip(_names_of(CROWDS, 1), CROWDS, [*CROWDS[1:], np.inf], strict=True):
        images = [image for image, count in counts.items() if low <= count < high]
        if images:
            evaluation = matched_evaluation(truth, results, kind, limit, image_ids=images)
            rows.append(_of_precision(name, sum(counts[image] for image in images), precision_of(evaluation)))
    return tuple(rows)


def _of_precision(name: str, objects: int, precision: np.ndarray) -> PropertyFigures:
    return PropertyFigures(name, objects, measured_mean(precision), measured_mean(precision[0]))


def _ratio(row: Mapping[str, Any]) -> float:
    width, height = row["bbox"][2:]
    return float(width) / max(float(height), 1e-6)


def _names_of(bounds: Sequence[int], step: int = 0) -> list[str]:
    """Returns the names of ranges of numbers; with a step of 1, of whole ones."""
    return [
        f"{low}" if step and high - step == low else f"{low} to {high - step}"
        for low, high in itertools.pairwise(bounds)
    ] + [f"{bounds[-1]} and more"]
