"""Plans in which order images are evaluated, and the canvas of each: both are the same however many images are taken at once."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import resized_sizes
from kfpn.data.plan import group_by_aspect
from kfpn.ops.padding import padded_up


class EvalOrder(NamedTuple):
    """Holds the records in the order of evaluation; those of one canvas follow each other.

    Attributes:
        records: (N,) int64 indices into the source, each once.
        canvases: (N, 2) int32, height and width to which the image of the same row is padded.
    """

    records: np.ndarray
    canvases: np.ndarray

    @property
    def largest(self) -> tuple[int, int]:
        """Returns height and width of the canvas with the most pixels."""
        height, width = self.canvases[self.canvases.prod(axis=1, dtype=np.int64).argmax()]
        return int(height), int(width)

    @property
    def distinct(self) -> int:
        """Returns how many canvases there are: each is traced or compiled once."""
        return len(np.unique(self.canvases, axis=0))

    def batches(self, rows: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cuts the records into batches of one canvas each.

        Args:
            rows: of a batch.
            start: how many records are left out at the beginning, because they are evaluated already.

        Yields:
            (rows,) int64 records, filled up with -1, and their canvas (2,) int32.
        """
        records, canvases = self.records[start:], self.canvases[start:]
        ends = np.flatnonzero((canvases[1:] != canvases[:-1]).any(axis=1)) + 1
        for first, end in zip([0, *ends], [*ends, len(records)], strict=True):
            for begin in range(first, end, rows):
                chosen = records[begin : min(begin + rows, end)]
                filled = np.full(rows, -1, np.int64)
                filled[: len(chosen)] = chosen
                yield filled, canvases[begin]


def eval_order(sizes: np.ndarray, config: Config, batch_size: int | None = None) -> EvalOrder:
    """Plans the evaluation of images.

    With `model.padding` "foreign" the canvas acts on the result. There the images are taken by `batch_size`, group after
    group, and are padded to the largest of them, as torchvision and detectron2 do. How many of them a device then takes
    at once changes no canvas.

    Args:
        sizes: (N, 2) int, heights and widths of the images, N at least 1.
        config: of the run.
        batch_size: images that are padded together. None: `config.batch_size`.
    """
    batch_size = config.batch_size if batch_size is None else batch_size
    groups = group_by_aspect(sizes, config.input, batch_size)
    records = np.argsort(groups.members, kind="stable")
    canvases = groups.canvases[groups.members[records]]
    if config.model.padding == "zero":
        return EvalOrder(records, canvases)
    ends = np.flatnonzero(np.diff(groups.members[records])) + 1
    for group in np.split(np.arange(len(records)), ends):
        for begin in range(0, len(group), batch_size):
            part = group[begin : begin + batch_size]
            canvases[part] = _canvas_of(sizes[records[part]], config.input)
    by_canvas = np.lexsort((canvases[:, 1], canvases[:, 0]))
    return EvalOrder(records[by_canvas], canvases[by_canvas])


def _canvas_of(sizes: np.ndarray, config: InputConfig) -> np.ndarray:
    """Returns height and width (2,) of the canvas that images of some sizes (N, 2) need once they are resized."""
    return padded_up(resized_sizes(sizes, config).max(axis=0), config.divisor)
