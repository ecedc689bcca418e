"""Chooses anchors and the canonical size: fitted to the objects as the network will see them, and compared with what they replace."""

import numpy as np

from kfpn.config import auto_numbers as numbers
from kfpn.config.anchor_fit import best_overlaps, fit_anchor_sizes
from kfpn.config.auto_draft import Draft
from kfpn.config.auto_facts import Facts
from kfpn.config.model import SINGLE_LEVEL

_STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32, "P6": 64, "C4": 16, "C5": 32}


def choose_anchors(draft: Draft, facts: Facts) -> None:
    """Chooses aspect ratios, sizes and the canonical size, and says which share of objects they overlap.

    Args:
        draft: with the input's size and the network.
        facts: of the data and the weights. A whole detector keeps its anchors: its RPN was trained with them.
    """
    if not len(facts.data.boxes):
        return
    size = draft["input.short_side"], draft["input.long_side"]
    before = overlaps_of_held(draft, facts, *size)
    if facts.weights is not None and facts.weights.is_detector:
        draft.note("anchors", f"as the weights bring them: they overlap {_shares(before)}")
        return
    boxes, images = sides_in_network(facts, *size)
    strides = _strides(draft)
    long = _share_of_long(boxes)
    # The RPN of the weights in the package has three anchors a cell.
    if long >= numbers.LONG_SHARE and draft["init"] is None:
        reason = f"{long:.0%} of the objects have one side more than {numbers.LONG_OBJECT:g} times the other"
        draft.put("aspect ratios", {"model.aspect_ratios": numbers.MORE_RATIOS}, reason)
    fitted = fit_anchor_sizes(boxes, images, strides, draft["model.aspect_ratios"])
    after = best_overlaps(boxes, images, fitted, strides, draft["model.aspect_ratios"])
    if float(after.mean()) > float(before.mean()):
        reason = (
            f"fitted to the objects at this size: they overlap {_shares(after)}; the fields' own ones {_shares(before)}"
        )
        draft.put("anchors", {"model.anchor_sizes": fitted}, reason)
    sizes = draft["model.anchor_sizes"]
    if draft["model.pyramid"] not in SINGLE_LEVEL:
        canonical = round(numbers.CANONICAL * sizes[2])
        draft.put(
            "pooling", {"model.canonical_size": float(canonical)}, f"{numbers.CANONICAL:g} times the anchor of P4"
        )


def overlaps_of_held(draft: Draft, facts: Facts, short: float, long: float) -> np.ndarray:
    """Returns each object's IoU with its best anchor, of the anchors that hold now.

    Args:
        draft: with the network.
        facts: of the data, with at least one box.
        short, long: sides of the input, pixels.

    Returns:
        (M,) float64, of the M boxes of the facts.
    """
    boxes, images = sides_in_network(facts, short, long)
    strides = _strides(draft)
    return best_overlaps(boxes, images, _sizes(draft, strides), strides, draft["model.aspect_ratios"])


def sides_in_network(facts: Facts, short: float, long: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes (M, 4) and their images' sizes (M, 2), in pixels of the network's input."""
    sizes = facts.data.box_image_sizes.astype(np.float64)
    scale = np.minimum(short / sizes.min(axis=1), long / sizes.max(axis=1))[:, None]
    return facts.data.boxes.astype(np.float64) * scale, sizes * scale


def _strides(draft: Draft) -> list[int]:
    levels = SINGLE_LEVEL.get(draft["model.pyramid"])
    if levels is None:
        levels = ("P2", "P3", "P4", "P5", "P6")[: 5 if draft["model.p6"] else 4]
    count = len(draft["model.anchor_sizes"]) if len(levels) == 1 else len(levels)
    return [_STRIDES[levels[min(index, len(levels) - 1)]] for index in range(count)]


def _sizes(draft: Draft, strides: list[int]) -> tuple[float, ...]:
    """Returns the anchors that hold without a fit, as many as there are levels."""
    return tuple(draft["model.anchor_sizes"])[: len(strides)]


def _share_of_long(boxes: np.ndarray) -> float:
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    return float((np.abs(np.log(height / width)) > np.log(numbers.LONG_OBJECT)).mean())


def _shares(overlaps: np.ndarray) -> str:
    return f"{(overlaps >= 0.5).mean():.1%} of them by .5 and {(overlaps >= 0.7).mean():.1%} by .7, places included"
