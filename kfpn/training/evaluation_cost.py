"""Estimates what an evaluation takes from the detection of a few images."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIGURES = 1.15
"""An evaluation takes this multiple of its detection: COCO's figures, samples and curves come on top."""
BATCHES = 3
"""So many batches tell how long an image takes, if there is time for them."""


@dataclass(frozen=True)
class EvaluationCost:
    """Holds seconds, as far as a few images tell.

    Attributes:
        tracing: the making of the graphs, of all canvases.
        detecting: the detection of all images, once the graphs are made.
        losses: the losses on the validation data, where they are measured.
    """

    tracing: float
    detecting: float
    losses: float = 0.0

    @property
    def evaluation(self) -> float:
        """Seconds of one evaluation with its figures, without the making of graphs."""
        return FIGURES * self.detecting + self.losses + 0.5


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
        limit: seconds after which it stops; two batches are always detected: the first one waits for the graph and the data.
        clock: gives seconds.
    """
    begun = clock()

    def over(now: float, count: int) -> bool:
        return count >= batch * (1 + BATCHES) or (count > batch and now - begun > limit)

    stamps = _stamps(detect(), batch, over, clock)
    first = stamps[batch - 1 : batch] or stamps[-1:]
    rest = len(stamps) - batch
    each = (stamps[-1] - first[0]) / rest if rest > 0 else 0.0
    if rest <= 0:
        again = clock()
        stamps = _stamps(detect(), batch, lambda now, count: True, clock)
        each = (stamps[-1] - again) / len(stamps)
    tracing = max(0.0, first[0] - begun - each * min(batch, images))
    return EvaluationCost(tracing * canvases, each * images)


def _stamps(
    items: Iterable[object], batch: int, over: Callable[[float, int], bool], clock: Callable[[], float]
) -> list[float]:
    """Returns the times at which items came, batch after batch until (time, number of items) tell that it is over."""
    stamps = []
    for _ in items:
        stamps.append(clock())
        if len(stamps) % batch == 0 and over(stamps[-1], len(stamps)):
            break
    return stamps
