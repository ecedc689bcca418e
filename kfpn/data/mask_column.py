"""Keeps the compressed masks of all objects of a data set in one array of bytes."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class MaskColumn:
    """Holds the masks of M objects, one behind the other.

    Attributes:
        content: (N,) uint8.
        offsets: (M + 1,) int64; object m has the bytes offsets[m] .. offsets[m + 1] - 1, none where it has no mask.
    """

    content: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[bytes]) -> "MaskColumn":
        """Returns the column of M masks, as `ObjectMasks.serialized` or `pack_outline` gives them."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        content = np.frombuffer(b"".join(rows), np.uint8)
        return cls(content, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        """Returns the number of objects."""
        return len(self.offsets) - 1

    @property
    def exists(self) -> np.ndarray:
        """Says which objects have a mask, (M,) bool."""
        return np.diff(self.offsets) > 0

    def rows(self, begin: int, end: int) -> list[bytes]:
        """Returns the masks of the objects begin .. end - 1."""
        ends = self.offsets[begin : end + 1].tolist()
        return [self.content[first:last].tobytes() for first, last in itertools.pairwise(ends)]

    def take(self, objects: np.ndarray) -> "MaskColumn":
        """Returns the masks of some objects, by their indices, in this order."""
        lengths = np.diff(self.offsets)[objects]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][objects] - offsets[:-1], lengths)
        return MaskColumn(self.content[places], offsets)
