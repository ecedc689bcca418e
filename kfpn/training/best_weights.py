"""Decides which evaluation's weights a run keeps for inference."""

import math
from collections.abc import Mapping
from typing import Any


def measured_score(figures: Mapping[str, Any]) -> float | None:
    """Returns the AP of an evaluation; None where it could not be measured.

    Args:
        figures: of the evaluation. AP is missing without validation data, None without a box that counts, and NaN where a
            program of someone else could not divide.
    """
    score = figures.get("AP")
    return None if score is None or math.isnan(score) else float(score)


def is_better(figures: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Tells whether the weights of the newest evaluation replace those that are kept.

    A higher AP wins, and of equal AP the later weights, which have seen more images. Where nothing could be measured yet
    there is no best: the last weights are kept, as without validation data. A measured AP is not given up for an evaluation
    without one.

    Args:
        figures: of the newest evaluation; {} without validation data.
        best: figures of the weights that are kept; {} where none are, or where they were not evaluated.
    """
    if not figures:
        return True
    new, old = measured_score(figures), measured_score(best)
    return old is None or (new is not None and new >= old)
