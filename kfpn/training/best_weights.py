"""Decides which evaluation's weights a run keeps for inference."""

import math
from collections.abc import Mapping
from typing import Any

BEST_BY = "best_by"
"""Key of the name of the figure that decides, where that is not AP."""


def measured_score(figures: Mapping[str, Any], name: str | None = None) -> float | None:
    """Returns the AP of an evaluation, or the figure that decides in its place; None where it could not be measured.

    Args:
        figures: of the evaluation. AP is missing without validation data, None without a box that counts, and NaN where a
            program of someone else could not divide. `best_by` names another figure.
        name: of the figure; None: the one that decides.
    """
    score = figures.get(name or figures.get(BEST_BY, "AP"))
    return None if score is None or math.isnan(score) else float(score)


def is_better(figures: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Tells whether the weights of the newest evaluation replace those that are kept.

    The weights with the higher AP win; where `best_by` names another figure, those where that is higher. Of equal ones the
    later win, which have seen more images. Where nothing could be measured yet there is no best: the last weights are kept,
    as without validation data. A measured AP is not given up for an evaluation without one.

    Args:
        figures: of the newest evaluation; {} without validation data.
        best: figures of the weights that are kept; {} where none are, or where they were not evaluated.
    """
    if not figures:
        return True
    # Figures of before a change of model.max_detections may lack the figure that decides now; both have AP.
    name = figures.get(BEST_BY, "AP")
    name = name if name in best else "AP"
    new, old = measured_score(figures, name), measured_score(best, name)
    return old is None or (new is not None and new >= old)
