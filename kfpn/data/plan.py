"""Plans which records make up which batch: groups of like aspect ratio, their canvases and the order of training.

The batch of any step is a function of (seed, step), so a resumed run goes on with exactly the batches that it would have
seen, and stores nothing of its past. The records of a group form one endless stream, epoch after epoch of seeded
permutations, and the stream is cut into batches. How many batches an epoch completes follows from the size of the group alone,
and from how often its records are repeated.
"""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kfpn.config.run import InputConfig
from kfpn.data.augment import resized_sizes
from kfpn.ops.padding import padded_up

_TOLERANCE = 1.03
"""Fewer groups are preferred as long as they need at most this many times the least area."""
_BINS = 64
_ROUNDING_SALT = 0x726570
"""Keeps the numbers by which repeats are rounded apart from those of the order, whose second number is an epoch."""


class Groups(NamedTuple):
    """Holds the records by canvas.

    Attributes:
        members: (N,) int64, the group of each record.
        canvases: (K, 2) int32, height and width to which every image of a group is padded.
    """

    members: np.ndarray
    canvases: np.ndarray


class PlannedBatch(NamedTuple):
    """Names the records of one training step.

    Attributes:
        step: int, from 0.
        group: int, index into the canvases.
        records: (B,) int64 indices into the source.
    """

    step: int
    group: int
    records: np.ndarray


def group_by_aspect(sizes: np.ndarray, config: InputConfig, batch_size: int, factor: float = 1.0) -> Groups:
    """Splits records by aspect ratio into few groups of little padding, each with enough records for a batch.

    The records are sorted by height / width and cut where the summed area of the canvases is smallest, by dynamic
    programming over at most 64 quantiles. No group has fewer than `batch_size` records (unless there are no more in
    all), so every record is used within two epochs. A group's canvas is the largest height and the largest width of
    its resized images, each rounded up to a multiple of `config.divisor`.

    Args:
        sizes: (N, 2) int, heights and widths of the images, N at least 1.
        config: gives the resize rule, the divisor and the number of groups at most.
        batch_size: int.
        factor: the largest factor of scale jitter.

    Raises:
        ValueError: when there are no records, or a size is not positive.
    """
    sizes = np.asarray(sizes)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes) or sizes.min() < 1:
        raise ValueError(f"sizes must be (N, 2) positive numbers with N at least 1, got shape {sizes.shape}")
    resized = resized_sizes(sizes, config, factor)
    aspects, bins = np.unique(sizes[:, 0] / sizes[:, 1], return_inverse=True)
    if len(aspects) > _BINS:
        edges = np.unique(np.quantile(sizes[:, 0] / sizes[:, 1], np.linspace(0, 1, _BINS + 1)[1:-1]))
        bins = np.unique(np.searchsorted(edges, sizes[:, 0] / sizes[:, 1]), return_inverse=True)[1]
    count = int(bins.max()) + 1
    largest = np.zeros((count, 2), np.int64)
    np.maximum.at(largest, bins, padded_up(resized, config.divisor))
    cuts = _best_cuts(largest, np.bincount(bins, minlength=count), batch_size, config.max_canvases)
    canvases = [largest[a:b].max(0) for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    return _merge_equal_canvases(np.searchsorted(cuts, bins, side="right"), np.array(canvases, np.int32))


def _best_cuts(largest: np.ndarray, counts: np.ndarray, smallest: int, most: int) -> list[int]:
    """Returns where to cut bins into at most `most` runs of at least `smallest` records so that their canvases' area is least.

    Args:
        largest: (n, 2) canvas each bin needs alone.
        counts: (n,) records of each bin.
        smallest: int, records of a run at least.
        most: int, runs at most.
    """
    n = len(counts)
    cost = np.full((n + 1, n + 1), np.inf)  # of the run [start, end)
    total = np.concatenate([[0], np.cumsum(counts)])
    for start in range(n):
        areas = np.maximum.accumulate(largest[start:], 0).prod(-1)
        records = total[start + 1 :] - total[start]
        cost[start, start + 1 :] = np.where(records >= min(smallest, total[-1]), areas * records, np.inf)
    best = cost[0]
    cuts: list[list[int]] = [[] for _ in range(n + 1)]
    plans = [(float(best[n]), cuts[n])]
    for _ in range(1, most):
        every = best[:, None] + cost
        last = every.argmin(0)
        best = every[last, np.arange(n + 1)]
        cuts = [[*cuts[cut], int(cut)] for cut in last]
        plans.append((float(best[n]), cuts[n]))
    least = min(area for area, _ in plans)
    return next(chosen for area, chosen in plans if area <= least * _TOLERANCE)


def _merge_equal_canvases(members: np.ndarray, canvases: np.ndarray) -> Groups:
    kept, twin = np.unique(canvases, axis=0, return_inverse=True)
    return Groups(twin.reshape(-1)[members].astype(np.int64), kept)


class BatchShare(NamedTuple):
    """Tells which images of each global batch one process loads, and in how many equal parts it hands them on.

    Attributes:
        worker: int, number of the process.
        workers: int, number of processes that share a batch.
        replicas: int, number of replicas of all processes, a multiple of `workers`.
    """

    worker: int = 0
    workers: int = 1
    replicas: int = 1

    def rows(self, batch_size: int) -> slice:
        """Returns the positions of the process's images in a global batch: its replicas' shares, one behind the other."""
        own = batch_size // self.workers
        return slice(self.worker * own, (self.worker + 1) * own)


WHOLE_BATCH = BatchShare()
"""The share of a process that trains alone, on one replica."""


class TrainPlan:
    """The endless sequence of training batches, a pure function of (seed, groups, batch size).

    Each epoch shuffles all records. A batch is complete, and its step comes, when the last of its records turns up;
    what a group has left over at the end of an epoch opens its first batch of the next one.

    Args:
        members: (N,) int, the group of each record.
        batch_size: int, at least 1.
        seed: int, not negative.
        repeats: (N,) float, at least 1: how often an epoch has each record, on average. None: once.
    """

    def __init__(self, members: np.ndarray, batch_size: int, seed: int, repeats: np.ndarray | None = None) -> None:
        self.members = np.asarray(members)
        self.batch_size = batch_size
        self.seed = seed
        self.repeats = repeats
        self.counts = np.bincount(self.members)
        if repeats is not None:
            self.offsets = np.random.default_rng([seed, _ROUNDING_SALT]).random(len(self.members))

    def batches(self, start_step: int) -> Iterator[PlannedBatch]:
        """Yields the batches from `start_step` on, for ever."""
        epoch = self.epoch_of(start_step)
        step = self.first_step(epoch)
        while True:
            for group, records in self._epoch(epoch):
                if step >= start_step:
                    yield PlannedBatch(step, group, records)
                step += 1
            epoch += 1

    def first_step(self, epoch: int) -> int:
        """Returns how many batches are complete before `epoch` begins."""
        return sum(int(taken) // self.batch_size for taken in self._taken_before(epoch))

    def epoch_of(self, step: int) -> int:
        """Returns the epoch in which the batch of `step` becomes complete."""
        # Up to K batches may lie unfinished in the groups, hence the upper bound.
        bound = (step + 1 + len(self.counts)) * self.batch_size // len(self.members) + 2
        return bisect.bisect_right(range(bound + 1), step, key=self.first_step) - 1

    def times_before(self, epoch: int) -> np.ndarray:
        """Returns how often each record was taken in all epochs before `epoch`, (N,) int64.

        A factor of 1.3 is 1 or 2 in an epoch, 2 with probability .3. Chance shifts each record's series once, from the seed: so the
        numbers of any epoch follow without those before it, and are never more than one off the exact ones in sum.
        """
        if self.repeats is None:
            return np.full(len(self.members), epoch, np.int64)
        return np.floor(epoch * self.repeats + self.offsets).astype(np.int64)

    def _taken_before(self, epoch: int) -> np.ndarray:
        """Returns how many records of each group were taken in all epochs before `epoch`."""
        if self.repeats is None:
            return epoch * self.counts
        taken = np.zeros(len(self.counts), np.int64)
        np.add.at(taken, self.members, self.times_before(epoch))
        return taken

    def _permutation(self, epoch: int) -> np.ndarray:
        """Returns the records of an epoch in order; a record stands there as often as it is taken."""
        chance = np.random.default_rng([self.seed, epoch])
        if self.repeats is None:
            return chance.permutation(len(self.members))
        times = self.times_before(epoch + 1) - self.times_before(epoch)
        return chance.permutation(np.repeat(np.arange(len(self.members)), times))

    def _epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Returns (group, records) of every batch that `epoch` completes, in order."""
        order = self._permutation(epoch)
        by_group = self.members[order]
        taken = self._taken_before(epoch)
        batches: list[tuple[int, int, np.ndarray]] = []
        for group, count in enumerate(self.counts):
            if not count:
                continue
            places = np.flatnonzero(by_group == group)
            carried = self._carried(group, epoch, int(taken[group]) % self.batch_size)
            stream = np.concatenate([carried, order[places]])
            ends = np.arange(self.batch_size, len(stream) + 1, self.batch_size)
            batches += [
                (int(places[end - 1 - len(carried)]), group, stream[end - self.batch_size : end]) for end in ends
            ]
        return [(group, records) for _, group, records in sorted(batches, key=lambda batch: batch[0])]

    def _carried(self, group: int, epoch: int, left: int) -> np.ndarray:
        """Returns the last `left` records of `group` before `epoch`, which no batch has had, oldest first."""
        parts: list[np.ndarray] = [np.zeros(0, np.int64)]
        while left > 0:
            epoch -= 1
            order = self._permutation(epoch)
            mine = order[self.members[order] == group][-left:]
            parts.insert(0, mine)
            left -= len(mine)
        return np.concatenate(parts)
