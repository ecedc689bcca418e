"""Says what a detector gets wrong in an image: each wrong detection and each missed object, and why."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.data.record import Record
from kfpn.evaluation.coco_rows import to_xywh

KIND_MEANINGS = {
    "missed": "an object that nothing was found of",
    "background": "a detection where no object is",
    "class": "an object taken for one of another class",
    "place": "the right class, but the box overlaps its object by less than .5",
    "duplicate": "a second detection of an object",
    "both": "another class, and the box beside it",
}
"""The kinds of errors, as TIDE counts them, and what each is in words."""
KINDS = tuple(KIND_MEANINGS)
RIGHT_IOU, TOUCHING_IOU = 0.5, 0.1
"""From the first on, a detection is in the right place; below the second it touches no object. Those of TIDE."""


@dataclasses.dataclass(frozen=True)
class DetectionError:
    """Holds one error of an image.

    Attributes:
        kind: one of `KINDS`.
        row: of the detection among those of the image; of a missed object among the objects.
        label: of the detection; of a missed object its own.
        box: (4,) yxyx pixels of the image, of the detection or of the missed object.
        score: of the detection; None for a missed object.
        object_label: of the object that the detection touches: for "class" the one in its place, for "place" and "duplicate" its own,
            for "both" the one that it overlaps most. None for the other kinds.
        iou: with this object, 0..1; 0 without one.
    """

    kind: str
    row: int
    label: int
    box: np.ndarray
    score: float | None = None
    object_label: int | None = None
    iou: float = 0.0

    @property
    def weight(self) -> float:
        """Returns how bad the error is: a missed object counts 1, a wrong detection its score."""
        return 1.0 if self.score is None else self.score


@dataclasses.dataclass(frozen=True)
class ImageErrors:
    """Holds the errors of an image.

    Attributes:
        image_id: of the image.
        errors: the missed objects and the wrong detections.
        right: detections that are right.
    """

    image_id: int
    errors: tuple[DetectionError, ...]
    right: int

    @property
    def weight(self) -> float:
        """Returns how bad the image is: the sum of the weights of its errors."""
        return sum(error.weight for error in self.errors)

    @property
    def main_kind(self) -> str:
        """Returns the kind of error that weighs most; "none" without errors."""
        weights: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        for error in self.errors:
            weights[error.kind] += error.weight
        return max(KINDS, key=lambda kind: weights[kind]) if self.errors else "none"

    @property
    def counts(self) -> Counter[str]:
        """Returns kind -> number of errors."""
        return Counter(error.kind for error in self.errors)


def errors_of_image(record: Record, detections: Mapping[str, Any], min_score: float) -> ImageErrors:
    """Returns the errors of an image.

    Detections are matched as pycocotools does it at an IoU of .5, the one with the higher score first. Those on crowd are neither right
    nor wrong. The kinds are TIDE's, in its order; an object beside which a detection of its class lies, or in whose place one of another
    class lies, does not count as missed.

    Args:
        record: the image.
        detections: `boxes` (n, 4) yxyx pixels, `scores` (n,), `labels` (n,) of the record's labels.
        min_score: detections below it are left out, as if they had not been made.
    """
    from pycocotools import mask as coco_mask

    scores = np.asarray(detections["scores"])
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= min_score]
    boxes = np.asarray(detections["boxes"], np.float64).reshape(-1, 4)[order]
    labels = np.asarray(detections["labels"], np.int64)[order]
    truth = np.asarray(record.labels, np.int64)
    overlaps = np.zeros((len(boxes), len(truth)))
    if overlaps.size:
        overlaps = np.asarray(coco_mask.iou(to_xywh(boxes), to_xywh(record.boxes), record.crowd.astype(int).tolist()))
    state = _Matched(overlaps, labels, truth, np.asarray(record.crowd, bool))
    errors = []
    for row in np.flatnonzero(state.object_of == _WRONG):
        kind, touched = state.explained(int(row))
        errors.append(
            DetectionError(
                kind, int(order[row]), int(labels[row]), boxes[row], float(scores[order[row]]),
                None if touched is None else int(truth[touched]), 0.0 if touched is None else float(overlaps[row, touched]),
            )
        )  # fmt: skip
    missed = [
        DetectionError("missed", int(one), int(truth[one]), np.asarray(record.boxes)[one]) for one in state.missed()
    ]
    return ImageErrors(int(record.image_id), (*missed, *errors), int((state.object_of >= 0).sum()))


_WRONG, _ON_CROWD = -1, -2


class _Matched:
    """Matches the detections of an image, from the highest score to the lowest, and explains those without an object."""

    def __init__(self, overlaps: np.ndarray, labels: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> None:
        self.overlaps, self.crowd = overlaps, crowd
        self.same = labels[:, None] == truth[None]
        self.object_of = np.full(len(labels), _WRONG)
        self.taken = np.zeros(len(truth), bool)
        self.covered = np.zeros(len(truth), bool)
        for row in range(len(labels)):
            self._match(row)

    def _match(self, row: int) -> None:
        fits = self.same[row] & (self.overlaps[row] >= RIGHT_IOU)
        free = fits & ~self.taken & ~self.crowd
        if free.any():
            # Of equal overlaps pycocotools takes the last one.
            best = np.flatnonzero(free & (self.overlaps[row] == self.overlaps[row][free].max()))[-1]
            self.object_of[row], self.taken[best] = best, True
        elif (fits & self.crowd).any():
            self.object_of[row] = _ON_CROWD

    def explained(self, row: int) -> tuple[str, int | None]:
        """Returns the kind of error of a detection, and the object it has to do with."""
        overlaps = np.where(self.crowd, 0.0, self.overlaps[row])
        own, other = np.where(self.same[row], overlaps, 0.0), np.where(self.same[row], 0.0, overlaps)
        if own.size and TOUCHING_IOU <= own.max() <= RIGHT_IOU:
            self.covered[own.argmax()] = True
            return "place", int(own.argmax())
        if other.size and other.max() >= RIGHT_IOU:
            self.covered[other.argmax()] = True
            return "class", int(other.argmax())
        if own.size and own.max() >= RIGHT_IOU:
            return "duplicate", int(own.argmax())
        if not overlaps.size or overlaps.max() <= TOUCHING_IOU:
            return "background", None
        return "both", int(overlaps.argmax())

    def missed(self) -> np.ndarray:
        """Returns the objects that no detection explains; to be asked after all detections are explained."""
        return np.flatnonzero(~self.taken & ~self.covered & ~self.crowd)


def error_sentences(errors: Sequence[DetectionError], class_names: Sequence[str]) -> list[str]:
    """Returns what went wrong in words, a sentence for each kind and class, the kind that weighs most first.

    Args:
        errors: of an image.
        class_names: the names of the labels.
    """
    groups: dict[tuple[str, int, int | None], list[DetectionError]] = {}
    for error in errors:
        other = error.object_label if error.kind in ("class", "both") else None
        groups.setdefault((error.kind, error.label, other), []).append(error)
    weight = {key: sum(one.weight for one in group) for key, group in groups.items()}
    return [_sentence(*key, groups[key], class_names) for key in sorted(groups, key=lambda key: -weight[key])]


def _sentence(
    kind: str, label: int, other: int | None, group: Sequence[DetectionError], class_names: Sequence[str]
) -> str:
    name, times = class_names[label], "" if len(group) == 1 else f"{len(group)} x "
    if kind == "missed":
        sizes = [f"{box[3] - box[1]:.0f} x {box[2] - box[0]:.0f}" for box in (error.box for error in group[:3])]
        return f"{times}missed {name} ({', '.join(sizes)}{' …' if len(group) > 3 else ''} pixels)"
    scores = ", ".join(f"{100 * (error.score or 0):.0f}%" for error in group[:3]) + (" …" if len(group) > 3 else "")
    object_name = "" if other is None else class_names[other]
    iou = f"IoU {max(error.iou for error in group):.2f}"
    return {
        "background": f"{times}{name} where there is none ({scores})",
        "class": f"{times}{object_name} taken for {name} ({scores})",
        "place": f"{times}{name} beside its object ({scores}; {iou})",
        "duplicate": f"{times}{name} found a second time ({scores})",
        "both": f"{times}{name} beside a {object_name} ({scores}; {iou})",
    }[kind]
