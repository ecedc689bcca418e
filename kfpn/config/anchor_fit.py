"""Fits the sizes of anchors to objects as the network will see them, and tells how well anchors overlap objects."""

from collections.abc import Sequence

import numpy as np

from kfpn.config.spread import evenly_spread

LEAST_STRIDES, MOST_STRIDES = 2.0, 10.0
"""Limits of an anchor's side, in strides of its level. The paper's are 8 (32 pixels on P2, whose stride is 4); those of the preset
`shapes` 2 to 2.5. A smaller one lies between the cells' centres, a larger one sees more than the level's cells do."""
RISE = 1.2
"""Least factor from an anchor's side to the next level's. Nearer ones overlap each other by more than .69 and add little."""
ROUNDS = 50
"""Most rounds of k-means; it ends when nothing moves any more."""
MOVES = (0.25, 0.1, 0.04)
"""Shares by which a size moves after that, one after the other."""
LEAST_GAIN = 1e-4
"""Mean IoU that a move must win."""
LOOKED_AT = 2000
"""Objects that are looked at: of more, some that are evenly spread. The mean IoU of so many is known to half a hundredth."""


def fit_anchor_sizes(
    boxes: np.ndarray, image_sizes: np.ndarray, strides: Sequence[float], aspect_ratios: Sequence[float]
) -> tuple[float, ...]:
    """Returns a size of anchors for each level, by which objects are overlapped best.

    K-means over the logarithms of the objects' sides, within limits of each level, is the start. Then each size moves by shares of
    itself as long as the mean IoU of objects with their best anchors rises.

    Args:
        boxes: (M, 4) yxyx pixels of the network's input, M at least 1.
        image_sizes: (M, 2) height and width of each box's image, in the same pixels.
        strides: of the levels, rising, one for each size; where all are equal (a pyramid of one level), only the smallest size is
            limited.
        aspect_ratios: height / width of the anchors.

    Returns:
        As many rising floats as there are strides, rounded to whole pixels.
    """
    chosen = evenly_spread(len(boxes), LOOKED_AT)
    boxes, image_sizes = np.asarray(boxes, np.float64)[chosen], np.asarray(image_sizes, np.float64)[chosen]
    low, high = _limits(strides)
    sizes = _clustered(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), low, high)

    def overlaps(level: int, size: float) -> np.ndarray:
        return best_overlaps(boxes, image_sizes, [np.exp(size)], [strides[level]], aspect_ratios)

    held = np.stack([overlaps(level, size) for level, size in enumerate(sizes)])
    for step in MOVES:
        moved = True
        while moved:
            moved = False
            for level, sign in ((level, sign) for level in range(len(sizes)) for sign in (-1.0, 1.0)):
                size = sizes[level] + sign * np.log1p(step)
                trial = sizes.copy()
                trial[level] = size
                if not low[level] <= size <= high[level] or (np.diff(trial) < np.log(RISE) - 1e-9).any():
                    continue
                of_level = overlaps(level, size)
                others = np.delete(held, level, axis=0).max(axis=0, initial=0.0)
                if np.maximum(others, of_level).mean() > held.max(axis=0).mean() + LEAST_GAIN:
                    sizes, held[level], moved = trial, of_level, True
    return tuple(float(size) for size in np.round(np.exp(sizes)))


def _clustered(sides: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the logarithms of sizes, rising and within limits: k-means in one dimension, from quantiles."""
    held = np.log(np.maximum(sides, 1.0))
    centres = _risen(np.clip(np.quantile(held, (np.arange(len(low)) + 0.5) / len(low)), low, high))
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
    return centres


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
