"""Makes batches of planned samples without TensorFlow: samples are made by threads, some batches ahead."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from kfpn.data.sample_arrays import EvaluationSamples, PlannedSamples, TrainingSamples

BATCHES_AHEAD = 2
MOST_THREADS = 16


def stacked(samples: TrainingSamples | EvaluationSamples, planned: PlannedSamples) -> dict[str, np.ndarray]:
    """Returns one batch: name -> (B, ...), with `record_index` and `sample_index` (B,) int64.

    Args:
        samples: makes the arrays.
        planned: which samples.

    Raises:
        ValueError: naming an image that can't be read.
    """
    pairs = zip(planned.records, planned.samples, strict=True)
    return _batch_of(samples, planned, [samples.make(record, sample, planned.canvas) for record, sample in pairs])


def stacked_batches(
    samples: TrainingSamples | EvaluationSamples, planned: Iterable[PlannedSamples]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches, as `stacked` makes them; their samples are made at the same time.

    Args:
        samples: makes the arrays.
        planned: the batches, in order.

    Raises:
        ValueError: naming an image that can't be read, when its batch is asked for.
    """
    waiting: deque[tuple[PlannedSamples, list[Future]]] = deque()
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        try:
            for batch in planned:
                pairs = zip(batch.records, batch.samples, strict=True)
                waiting.append((batch, [pool.submit(samples.make, *pair, batch.canvas) for pair in pairs]))
                if len(waiting) > BATCHES_AHEAD:
                    yield _finished(samples, *waiting.popleft())
            while waiting:
                yield _finished(samples, *waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(
    samples: TrainingSamples | EvaluationSamples, planned: PlannedSamples, made: list[Future]
) -> dict[str, np.ndarray]:
    return _batch_of(samples, planned, [one.result() for one in made])


def _batch_of(
    samples: TrainingSamples | EvaluationSamples, planned: PlannedSamples, made: list[tuple[np.ndarray, ...]]
) -> dict[str, np.ndarray]:
    arrays = {name: np.stack(parts) for name, parts in zip(samples.arrays, zip(*made, strict=True), strict=True)}
    return arrays | {"record_index": planned.records, "sample_index": planned.samples}
