"""Compares what an export finds with what the Keras model finds: the parts that all products share."""

import sys
from typing import NamedTuple

import numpy as np
from PIL import Image

from kfpn.data.toy_scenes import scene

BOX_LIMIT = 0.05
"""Largest difference of a box's side, in pixels of the network's input."""
SCORE_LIMIT = 1e-3
"""Largest difference of a score."""


class ExportMismatch(ValueError):
    """Says that an export does not give what the Keras model gives."""


def print_mismatch(error: ExportMismatch) -> int:
    """Prints a mismatch on stderr as the command line prints errors, and returns the exit code, 1."""
    print(f"kfpn: error: {error}", file=sys.stderr)
    return 1


class Difference(NamedTuple):
    """The difference between two sets of rows, where a row is a detection, a proposal or a RoI.

    Attributes:
        box: float, largest difference of a side of two boxes that belong together, pixels of the network's input.
        score: float, largest difference of their scores.
        unmatched: int, rows of either set that have no counterpart within the limits.
        rows: int, rows of the first set.
        proposals: bool, whether the rows are proposals.
    """

    box: float = 0.0
    score: float = 0.0
    unmatched: int = 0
    rows: int = 0
    proposals: bool = False

    def plus(self, other: "Difference") -> "Difference":
        """Returns the difference over both comparisons: the larger distances, the sums of the counts."""
        return Difference(
            max(self.box, other.box),
            max(self.score, other.score),
            self.unmatched + other.unmatched,
            self.rows + other.rows,
            self.proposals or other.proposals,
        )


def compare_as_sets(
    expected: tuple[np.ndarray, ...], actual: tuple[np.ndarray, ...], cut: float = 0.0, score_limit: float = SCORE_LIMIT
) -> Difference:
    """Compares detections as sets: rows with equal scores may change places, and a row at the cut may be missing.

    Args:
        expected: boxes (N, 4), scores (N,), classes (N,).
        actual: the same of the export, of any number of rows.
        cut: float, score below which rows were dropped; rows within `score_limit` of it need no counterpart.
        score_limit: float; rows whose scores differ by more, or whose sides by more than `BOX_LIMIT`, are unmatched.
    """
    free = np.ones(len(actual[1]), bool)
    total = Difference(rows=len(expected[1]))
    for box, score, label in zip(*expected, strict=True):
        sides = np.abs(actual[0] - box).max(-1, initial=0.0)
        scores = np.abs(actual[1] - score)
        usable = free & (actual[2] == label) & (sides <= BOX_LIMIT) & (scores <= score_limit)
        if usable.any():
            best = int(np.argmin(np.where(usable, sides / BOX_LIMIT + scores / score_limit, np.inf)))
            free[best] = False
            total = total.plus(Difference(float(sides[best]), float(scores[best])))
        elif score > cut + score_limit:
            total = total.plus(Difference(unmatched=1))
    return total.plus(Difference(unmatched=int(np.sum(free & (actual[1] > cut + score_limit)))))


def drawn_picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a scene of the built-in shapes to compare on: (height, width, 3) uint8 RGB."""
    return np.array(Image.fromarray(scene(rng).image).resize((width, height), Image.Resampling.BICUBIC))
