"""Fits the sizes of anchors to objects as the network will see them, and tells how well anchors overlap objects."""

from collections.abc import Sequence

import numpy as np

LEAST_STRIDES, MOST_STRIDES = 2.0, 10.0
"""Limits of an anchor's side, in strides of its level. The paper's are 8 (32 pixels on P2, whose stride is 4); those of the preset
`shapes` 2 to 2.5. A smaller one lies between the cells' centres, a larger one sees more than the level's cells do."""
RISE = 1.2
"""Least factor from an anchor's side to the next level's. Nearer ones overlap each other by more than .69 and add little."""
ROUNDS = 50
"""Most rounds of the fit; it ends when nothing moves any more."""


def fit_anchor_sizes(sides: np.ndarray, strides: Sequence[float]) -> tuple[float, ...]:
    """Returns a size of anchors for each level: k-means over the logarithms of the objects' sides, within limits of each level.

    Args:
        sides: (M,) float, roots of the objects' areas in pixels of the network's input, M at least 1.
        strides: of the levels, rising, one for each size; where all are equal (a pyramid of one level), only the smallest size is
            limited.

    Returns:
        As many rising floats as there are strides, rounded to whole pixels.
    """
    held = np.log(np.maximum(np.asarray(sides, np.float64), 1.0))
    low, high = _limits(strides)
    centres = np.quantile(held, (np.arange(len(strides)) + 0.5) / len(strides))
    centres = _risen(np.clip(centres, low, high))
    for _ in range(ROUNDS):
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2.0, held)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.bincount(nearest, held, minlength=len(centres))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        # The limits hold in each round: so the other sizes share what a limited one can't reach.
        moved = _risen(np.clip(means, low, high))
        if np.allclose(moved, centres, atol=1e-4):
            break
        centres = moved
    return tuple(float(size) for size in np.round(np.exp(centres)))


def _limits(strides: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    held = np.asarray(strides, np.float64)
    if len(held) > 1 and held[0] == held[-1]:
        return np.full(len(held), np.log(LEAST_STRIDES * held[0])), np.full(len(held), np.inf)
    return np.log(LEAST_STRIDES * held), np.log(MOST_STRIDES * held)


def _risen(centres: np.ndarray) -> np.ndarray:
    """Returns sizes of which each is at least `RISE` times the one before."""
    steps = np.arange(len(centres)) * np.log(RISE)
    return np.maximum.accumulate(centres - steps) + steps


def best_overlaps(
    boxes: np.ndarray,
    image_sizes: np.ndarray,
    sizes: Sequence[float],
    strides: Sequence[float],
    aspect_ratios: Sequence[float],
) -> np.ndarray:
    """Returns each object's IoU with its best anchor, where the anchors lie on their levels' grids.

    Args:
        boxes: (M, 4) yxyx pixels of the network's input.
        image_sizes: (M, 2) height and width of each box's image, in the same pixels.
        sizes: sides of the square anchors in pixels.
        strides: the distance of the anchors of each size.
        aspect_ratios: height / width of the anchors.

    Returns:
        (M,) float64.
    """
    boxes = np.asarray(boxes, np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2.0
    best = np.zeros(len(boxes))
    for size, stride in zip(sizes, strides, strict=True):
        last = np.maximum(np.ceil(np.asarray(image_sizes, np.float64) / stride) - 1.0, 0.0)
        offsets = np.abs(centres - np.clip(np.round(centres / stride), 0.0, last) * stride)
        for ratio in aspect_ratios:
            anchor = np.array([size * ratio**0.5, size / ratio**0.5])
            shared = np.minimum(anchor / 2.0, offsets + sides / 2.0) - np.maximum(-anchor / 2.0, offsets - sides / 2.0)
            common = np.maximum(shared, 0.0).prod(axis=1)
            best = np.maximum(best, common / (anchor.prod() + sides.prod(axis=1) - common))
    return best
