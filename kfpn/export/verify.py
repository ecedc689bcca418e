"""Compares what an export finds with what the Keras model finds: the parts that all products share."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.data.toy_scenes import scene
from kfpn.export.edge_rows import EVERYTHING, EdgeRow, Limits, Rows, Selection, edge_rows

BOX_LIMIT = 0.05
"""Largest difference of a box's side, in pixels of the network's input."""
SCORE_LIMIT = 1e-3
"""Largest difference of a score."""
MASK_LIMIT = 1e-2
"""Largest difference of a cell, 0..1, of the masks of two detections whose boxes and scores agree."""


class ExportLimits(NamedTuple):
    """How far an export may be from the float32 Keras model.

    Attributes:
        box: float, largest difference of a box's side, in pixels of the network's input.
        score: float, largest difference of a score.
        mask: float, largest difference of a cell, 0..1, of two masks that belong together.
        unmatched: float, share of the detections that may have no counterpart within `box` and `score`.
        unmatched_proposals: float, the same of the proposals.
    """

    box: float = BOX_LIMIT
    score: float = SCORE_LIMIT
    mask: float = MASK_LIMIT
    unmatched: float = 0.0
    unmatched_proposals: float = 0.01


EXPORT_LIMITS = {"float32": ExportLimits(), "bfloat16": ExportLimits(0.5, 0.02, 0.1, 0.05, 0.1)}
"""`ExportPrecision` -> limits of a SavedModel.

In float32 there are hundreds of proposals, and some overlap by nearly the NMS threshold: there the last bit of a number decides which
one stays. bfloat16 has 8 bits, so that it decides more often."""

MASKS_AT = 3
"""Place of the masks in `Rows`, behind boxes, scores and labels, where a detector has a mask head."""


class ExportMismatch(ValueError):
    """Says that an export does not give what the Keras model gives."""


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Computes matrix products and convolutions in full float32 in a `with` block, on GPUs as well.

    NVIDIA's GPUs since Ampere round the factors to 10 bits (TF32), unless TensorFlow is told otherwise. That alone moves
    scores by nearly as much as `SCORE_LIMIT` allows.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def print_mismatch(error: ExportMismatch) -> int:
    """Prints a mismatch on stderr as the command line prints errors, and returns the exit code, 1."""
    print(f"kfpn: error: {error}", file=sys.stderr)
    return 1


class Difference(NamedTuple):
    """The difference between two sets of rows, where a row is a detection, a proposal or a RoI.

    Attributes:
        box: float, largest difference of a side of two boxes that belong together, pixels of the network's input.
        score: float, largest difference of their scores.
        unmatched: int, rows of either set that have no counterpart within the limits, those at an edge not counted.
        rows: int, rows of the first set.
        proposals: bool, whether the rows are proposals.
        edge: the rows of either set that have no counterpart and need none, see `edge_rows`.
        mask: float, largest difference of a cell, 0..1, of the masks of two rows that belong together.
        mask_pairs: int, pairs of masks that were compared.
        pasted: int, pixels of full masks that differ from the pasted masks; None: there are no full masks.
    """

    box: float = 0.0
    score: float = 0.0
    unmatched: int = 0
    rows: int = 0
    proposals: bool = False
    edge: tuple[EdgeRow, ...] = ()
    mask: float = 0.0
    mask_pairs: int = 0
    pasted: int | None = None

    def plus(self, other: "Difference") -> "Difference":
        """Returns the difference over both comparisons: the larger distances, the sums of the counts."""
        return Difference(
            max(self.box, other.box),
            max(self.score, other.score),
            self.unmatched + other.unmatched,
            self.rows + other.rows,
            self.proposals or other.proposals,
            self.edge + other.edge,
            max(self.mask, other.mask),
            self.mask_pairs + other.mask_pairs,
            other.pasted if self.pasted is None else self.pasted + (other.pasted or 0),
        )

    @property
    def of_masks(self) -> str:
        """Returns what a line says of the masks, behind boxes and scores: empty where none were compared."""
        pasted = "" if self.pasted is None else f", pixels of all full masks {self.pasted}"
        return f", cell of a mask {self.mask:.2g} (of {self.mask_pairs} masks){pasted}" if self.mask_pairs else ""

    def require_equal_masks(self, name: str, limit: float = MASK_LIMIT) -> None:
        """Raises ExportMismatch if masks differ by more than a limit; `name` is what gave them."""
        if self.mask > limit:
            raise ExportMismatch(
                f"{name} must give masks within {limit} of the Keras model, got a cell that differs by {self.mask:.2g}"
            )


def compare_as_sets(
    expected: Rows,
    actual: Rows,
    selection: Selection = EVERYTHING,
    score_limit: float = SCORE_LIMIT,
    box_limit: float = BOX_LIMIT,
) -> Difference:
    """Compares detections as sets: rows with equal scores may change places, and a row at an edge may be missing.

    Args:
        expected: boxes (N, 4), scores (N,), classes (N,) of Keras, and perhaps masks (N, M, M).
        actual: the same of the export, of any number of rows, with masks where `expected` has them.
        selection: how the rows of both were selected; it tells which rows may come or go, see `edge_rows`.
        score_limit, box_limit: float; rows whose scores or sides (in pixels) differ by more are unmatched.
    """
    paired = np.zeros(len(expected[1]), bool), np.zeros(len(actual[1]), bool)
    box_difference, score_difference, mask_difference = 0.0, 0.0, 0.0
    with_masks = len(expected) > MASKS_AT
    for i, (box, score, label) in enumerate(zip(*expected[:MASKS_AT], strict=True)):
        sides = np.abs(actual[0] - box).max(-1, initial=0.0)
        scores = np.abs(actual[1] - score)
        usable = ~paired[1] & (actual[2] == label) & (sides <= box_limit) & (scores <= score_limit)
        if usable.any():
            best = int(np.argmin(np.where(usable, sides / box_limit + scores / score_limit, np.inf)))
            paired[0][i] = paired[1][best] = True
            box_difference = max(box_difference, float(sides[best]))
            score_difference = max(score_difference, float(scores[best]))
            if with_masks:
                mask_difference = max(
                    mask_difference, _largest_difference(expected[MASKS_AT][i], actual[MASKS_AT][best])
                )
    limits = Limits(box_limit, score_limit)
    results = expected[:MASKS_AT], actual[:MASKS_AT]
    edge = tuple(edge_rows(results, (~paired[0], ~paired[1]), selection, limits))
    unmatched = int(sum((~own).sum() for own in paired)) - len(edge)
    return Difference(
        box_difference,
        score_difference,
        unmatched,
        len(expected[1]),
        edge=edge,
        mask=mask_difference,
        mask_pairs=int(paired[0].sum()) if with_masks else 0,
    )


def _largest_difference(mask: np.ndarray, other: np.ndarray) -> float:
    # A value that is not a number counts as infinitely far, so that the limit refuses it.
    return float(np.nan_to_num(np.abs(mask - other), nan=np.inf).max(initial=0.0))


def drawn_picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a scene of the built-in shapes to compare on: (height, width, 3) uint8 RGB."""
    return np.array(Image.fromarray(scene(rng).image).resize((width, height), Image.Resampling.BICUBIC))
