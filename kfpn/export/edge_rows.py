"""Finds the rows that may come or go between two runtimes, because the last bits of a number decide about them."""

from typing import NamedTuple

import numpy as np

Rows = tuple[np.ndarray, ...]
"""Boxes (N, 4) yxyx pixels, scores (N,) and labels (N,) of one image, and behind them masks (N, M, M) where there are any.

Labels are numbers of classes; those of segments are names such as "P3 5x5"."""

RIVAL = "NMS may keep it or one that it overlaps"
MOST_LINES = 10
"""Rows of a runtime that are printed; the others are counted."""


class EdgeRow(NamedTuple):
    """A row that one of two results has, and the other need not have.

    Attributes:
        label: int, the class; of a segment str, the level and the kind of its window.
        score: float.
        box: four floats, yxyx pixels of the network's input.
        missing: bool, whether Keras has the row and the export does not; else it is the other way round.
        why: what it is near.
    """

    label: int | str
    score: float
    box: tuple[float, ...]
    missing: bool
    why: str

    def __str__(self) -> str:
        box = " ".join(f"{side:.1f}" for side in self.box)
        label = self.label if isinstance(self.label, str) else f"class {self.label}"
        return f"{label}, score {self.score:.4f}, box {box}: {'only' if self.missing else 'not'} in Keras; {self.why}"


class Selection(NamedTuple):
    """How the rows of a result were selected.

    Attributes:
        threshold: float; rows with this score or a lower one were dropped.
        most: int, rows that were kept at most; None: all.
        nms_iou: float; a row that overlapped a better one of its class by more was dropped.
        candidates: what Keras selected from, before NMS, all scores near the threshold included; None: not known, then
            no row is said to be near a rival.
    """

    threshold: float = 0.0
    most: int | None = None
    nms_iou: float = 1.0
    candidates: Rows | None = None

    def cut(self, rows: Rows) -> tuple[float, str]:
        """Returns the score below which these rows end, and what it is."""
        scores = rows[1]
        if self.most is not None and len(scores) >= self.most > 0:
            lowest = float(scores.min())
            if lowest > self.threshold:
                return lowest, f"its score is at that of row {self.most}, the last"
        return self.threshold, f"its score is at the threshold {self.threshold:g}"


EVERYTHING = Selection()
"""The selection that keeps all rows."""


class Limits(NamedTuple):
    """How far numbers may lie apart: `box` is a side's difference in pixels, `score` that of a score."""

    box: float
    score: float


def edge_rows(
    results: tuple[Rows, Rows], unpaired: tuple[np.ndarray, np.ndarray], selection: Selection, limits: Limits
) -> list[EdgeRow]:
    """Returns those rows without counterpart that one selection may keep and another one drop.

    If scores move by `limits.score` and sides by `limits.box`, a row may come or go in three cases: its score is near the
    threshold; the list is full, and its score is near the last one's; or a rival, a candidate of its class that it
    overlaps by more than `nms_iou`, has a score so near that either may suppress the other, or overlaps it by so nearly
    `nms_iou` that neither need. A row that only the export has must be one of Keras' candidates: a box that was shifted is none.

    Args:
        results: the rows of Keras and of the export.
        unpaired: of each of them, (N,) bool: which rows have no counterpart.
        selection: how rows were selected.
        limits: how far numbers may lie apart.
    """
    known = _known_rows(results[1], unpaired[1], selection.candidates, limits)
    return [
        *_missing_rows(results, unpaired[0], known, (selection, limits)),
        *_extra_rows(results, unpaired, known, (selection, limits)),
    ]


def _missing_rows(
    results: tuple[Rows, Rows], unpaired: np.ndarray, known: np.ndarray, rule: tuple[Selection, Limits]
) -> list[EdgeRow]:
    """Returns those of Keras' rows that the export may lack."""
    (ours, theirs), (selection, limits) = results, rule
    # Keras' list may end at another row than the export's: what the export lacks is near one end or the other.
    cut, end = max((selection.cut(rows) for rows in results), key=lambda own: own[0])
    edges = []
    for i in np.flatnonzero(unpaired):
        box, score, label = (values[i] for values in ours)
        why = end
        if score > cut + limits.score:
            beside = known & (theirs[2] == label) & (theirs[1] >= score - limits.score)
            if not (beside & (_overlap_of_pairs(box, theirs[0], limits.box)[1] > selection.nms_iou)).any():
                continue
            why = RIVAL
        edges.append(EdgeRow(_named(label), float(score), tuple(map(float, box)), True, why))
    return edges


def _extra_rows(
    results: tuple[Rows, Rows],
    unpaired: tuple[np.ndarray, np.ndarray],
    known: np.ndarray,
    rule: tuple[Selection, Limits],
) -> list[EdgeRow]:
    """Returns those of the export's rows that Keras may lack."""
    (ours, theirs), (selection, limits) = results, rule
    # Such a row must be near Keras' own end: a list that is full of false rows explains nothing.
    cut, end = selection.cut(ours)
    edges = []
    for i in np.flatnonzero(unpaired[1]):
        box, score, label = (values[i] for values in theirs)
        why = end
        if score > cut + limits.score:
            # A row of Keras' must have suppressed it. One that both have, that is clearly better and that clearly overlaps
            # would have suppressed it in the export as well.
            least, greatest = (overlap > selection.nms_iou for overlap in _overlap_of_pairs(box, ours[0], limits.box))
            rivals = (ours[2] == label) & (ours[1] >= score - limits.score) & greatest
            clear = rivals & least & ~unpaired[0] & (ours[1] > score + limits.score)
            if not known[i] or not rivals.any() or clear.any():
                continue
            why = RIVAL
        edges.append(EdgeRow(_named(label), float(score), tuple(map(float, box)), False, why))
    return edges


def _known_rows(rows: Rows, unpaired: np.ndarray, candidates: Rows | None, limits: Limits) -> np.ndarray:
    """Returns which rows of an export Keras knows, as rows or as candidates: (N,) bool."""
    known = ~unpaired
    if candidates is None:
        return known
    for i in np.flatnonzero(unpaired):
        box, score, label = (values[i] for values in rows)
        near = (candidates[2] == label) & (np.abs(candidates[1] - score) <= limits.score)
        known[i] = bool((near & (np.abs(candidates[0] - box).max(-1, initial=0.0) <= limits.box)).any())
    return known


def _overlap_of_pairs(box: np.ndarray, boxes: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest IoU of a box (4,) with boxes (N, 4) whose sides may be `shift` pixels off: (N,) each."""

    def iou(change: float) -> np.ndarray:
        # The overlap's sides change by twice the shift at most. With the boxes' areas as they are, that bounds the IoU.
        least, greatest = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
        shared = np.maximum(greatest - least + change, 0.0).prod(-1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (box[2:] - box[:2]).prod()
        return shared / np.maximum(areas - shared, 1e-9)

    return iou(-2 * shift), iou(2 * shift)


def _named(label: np.generic) -> int | str:
    return str(label) if isinstance(label, str) else int(label)


def edge_lines(name: str, rows: tuple[EdgeRow, ...]) -> list[str]:
    """Returns the lines that name the rows at the edge: how many there are, and the first `MOST_LINES` of them."""
    if not rows:
        return []
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    lines = [f"verify {name}: {count} at the edge of the selection, which may come or go:"]
    lines += [f"  {row}" for row in rows[:MOST_LINES]]
    if len(rows) > MOST_LINES:
        lines.append(f"  and {len(rows) - MOST_LINES} more")
    return lines
