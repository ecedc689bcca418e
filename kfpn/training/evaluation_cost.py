"""Estimates what an evaluation takes from the detection of a few images."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIGURES = 1.2
"""An evaluation takes this multiple of its detection, and a second more: COCO's figures, samples and curves need time too."""
BATCHES = 16
"""Number of batches that are detected, if there is time. The later half of them tells how long an image takes: the images of the
first ones were decoded while the graph was made."""
LEAST_BATCHES = 3
"""Number of batches that are detected even if there is no time."""


@dataclass(frozen=True)
class EvaluationCost:
    """Holds what an evaluation costs, in seconds, as estimated from a few images.

    Attributes:
        tracing: the making of the graphs, of all canvases.
        detecting: the detection of all images, once the graphs are made.
        losses: the losses on the validation data, where they are measured.
        to_trace: the making of those graphs that the first evaluation still has to make.
    """

    tracing: float
    detecting: float
    losses: float = 0.0
    to_trace: float = 0.0

    @property
    def evaluation(self) -> float:
        """Seconds of one evaluation with its figures, without the making of graphs."""
        return FIGURES * self.detecting + self.losses + 1.0


def estimate_cost(
    detect: Callable[[], Iterable[object]],
    images: int,
    batch: int,
    canvases: int,
    limit: float,
    clock: Callable[[], float] = time.monotonic,
) -> EvaluationCost:
    """Detects the images of a few batches, twice if the first batch holds them all.

    Args:
        detect: makes an iterator that detects the images, one item an image, a batch at a time.
        images: number of all images.
        batch: images of a batch.
        canvases: number of padded sizes, each of which has a graph of its own.
        limit: seconds after which it stops; `LEAST_BATCHES` are always detected, if there are so many.
        clock: gives seconds.

    Returns:
        The cost, with `losses` 0.
    """
    begun = clock()

    def over(now: float, count: int) -> bool:
        return count >= batch * BATCHES or (count >= batch * LEAST_BATCHES and now - begun > limit)

    stamps = _stamps(detect(), batch, over, clock)
    batches = -(-len(stamps) // batch)
    first = stamps[min(batch, len(stamps)) - 1]
    if batches > 1:
        middle = batch * (batches // 2)
        each = (stamps[-1] - stamps[middle - 1]) / (len(stamps) - middle)
    else:
        again = clock()
        stamps = _stamps(detect(), batch, lambda now, count: True, clock)
        each = (stamps[-1] - again) / len(stamps)
    tracing = max(0.0, first - begun - each * min(batch, images))
    return EvaluationCost(tracing * canvases, each * images, to_trace=tracing * (canvases - 1))


def _stamps(
    items: Iterable[object], batch: int, over: Callable[[float, int], bool], clock: Callable[[], float]
) -> list[float]:
    """Returns the time at which each item came, in seconds; after a whole batch `over(time, number of items)` may end it."""
    stamps = []
    for _ in items:
        stamps.append(clock())
        if len(stamps) % batch == 0 and over(stamps[-1], len(stamps)):
            break
    return stamps
