"""Keeps proposals in a file and gives batches theirs: what Fast R-CNN trains on (FPN, section 4.2 and table 2)."""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.data.augment import draw, flip_boxes, resize_boxes
from kfpn.data.record import Source

FORMAT = "kfpn proposals 1"
_FIELDS = ("image_ids", "sizes", "starts", "boxes", "scores")


@dataclasses.dataclass(frozen=True)
class ProposalTable:
    """Holds the proposals of the images of one data set.

    Attributes:
        name: str, of the data set.
        image_ids: (N,) int64.
        sizes: (N, 2) int32, height and width of the original images, pixels.
        starts: (N + 1,) int64: image i has rows starts[i] to starts[i + 1].
        boxes: (M, 4) float32 yxyx, pixels of the original images, best first in each image.
        scores: (M,) float32 in 0..1.
    """

    name: str
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.image_ids)
        shapes = {"sizes": (count, 2), "starts": (count + 1,), "boxes": (len(self.scores), 4)}
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong or not np.isfinite(self.boxes).all():
            raise ValueError(f"{', '.join(wrong) or 'boxes'} of {self.name} don't fit")
        if self.starts[0] != 0 or self.starts[-1] != len(self.boxes) or (np.diff(self.starts) < 0).any():
            raise ValueError(f"starts of {self.name} don't fit")

    def rows(self, index: int) -> slice:
        """Returns the rows of boxes and scores that image `index` has."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def of_source(self, source: Source, path: str | os.PathLike) -> "ProposalTable":
        """Returns the proposals in the order of a source's records.

        Args:
            source: the data set; all its images must be here, of the same sizes.
            path: of the file, for messages.

        Raises:
            ValueError: naming the first image that is not in the file, or had another size.
        """
        place = {int(image_id): index for index, image_id in enumerate(self.image_ids)}
        order = np.zeros(len(source), np.int64)
        for index in range(len(source)):
            record = source[index]
            row = place.get(int(record.image_id))
            if row is None:
                raise ValueError(
                    f"proposals must be there for every image of {source.name}, got none in {path} for "
                    f"{record.name or record.image_id}; write them again with `kfpn proposals`"
                )
            if tuple(self.sizes[row]) != (record.height, record.width):
                height, width = self.sizes[row]
                raise ValueError(
                    f"proposals must be of the same images, got {path} with {height} x {width} pixels for "
                    f"{record.name or record.image_id}, which has {record.height} x {record.width}"
                )
            order[index] = row
        counts = np.diff(self.starts)[order]
        picked = [np.arange(*self.rows(int(index)).indices(len(self.boxes))[:2]) for index in order]
        rows = np.concatenate([np.zeros(0, np.int64), *picked])
        starts = np.concatenate([[0], np.cumsum(counts)])
        return ProposalTable(
            self.name, self.image_ids[order], self.sizes[order], starts, self.boxes[rows], self.scores[rows]
        )


def collect_proposals(source: Source, proposals: Sequence[Mapping[str, Any]]) -> ProposalTable:
    """Returns the proposals of a source as one table.

    Args:
        source: the data set.
        proposals: one mapping for each of its images, in any order: `image_id`, `boxes` (n, 4) float32 yxyx in original
            pixels, `scores` (n,) float32, best first.
    """
    by_id = {row["image_id"]: row for row in proposals}
    image_ids = [int(source[index].image_id) for index in range(len(source))]
    rows = [by_id[image_id] for image_id in image_ids]
    return ProposalTable(
        source.name,
        np.array(image_ids, np.int64),
        np.asarray(source.sizes, np.int32),
        np.concatenate([[0], np.cumsum([len(row["boxes"]) for row in rows])]).astype(np.int64),
        np.concatenate([np.zeros((0, 4), np.float32), *(row["boxes"] for row in rows)]).astype(np.float32),
        np.concatenate([np.zeros(0, np.float32), *(row["scores"] for row in rows)]).astype(np.float32),
    )


def write_proposals(path: str | os.PathLike, tables: Sequence[ProposalTable]) -> None:
    """Writes the proposals of data sets aside, and renames the file.

    Args:
        path: of the file, an npz without pickle.
        tables: of data sets of different names.

    Raises:
        ValueError: if two data sets have one name.
    """
    require_local("output", path)
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"data sets must have different names, got {', '.join(names)}")
    arrays: dict[str, Any] = {"format": np.array(FORMAT), "data_sets": np.array(names)}
    for number, table in enumerate(tables):
        arrays |= {f"{number}/{field}": getattr(table, field) for field in _FIELDS}
    aside = Path(f"{os.fspath(path)}.tmp")
    with open(aside, "wb") as file:
        np.savez(file, **arrays)
    os.replace(aside, path)


def read_proposals(path: str | os.PathLike) -> dict[str, ProposalTable]:
    """Reads what `write_proposals` wrote.

    Returns:
        {name of the data set: its proposals}.

    Raises:
        ValueError: if the file is missing, damaged or another one.
    """
    require_local("proposals", path)
    if not Path(path).is_file():
        raise ValueError(f"proposals must be a file of `kfpn proposals`, got {str(path)!r}, which is not there")
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file.files or str(file["format"]) != FORMAT:
                raise ValueError(f"no {FORMAT!r} in it")
            return {
                str(name): ProposalTable(str(name), *(file[f"{number}/{field}"] for field in _FIELDS))
                for number, name in enumerate(file["data_sets"])
            }
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"proposals must be a file of `kfpn proposals`, got {str(path)!r}, which is damaged or another one ({error})"
        ) from error


def proposals_of(path: str | os.PathLike, source: Source) -> ProposalTable:
    """Reads the proposals of a source, in the order of its records.

    Raises:
        ValueError: if the file cannot be read, is for other data, or lacks an image.
    """
    tables = read_proposals(path)
    if source.name not in tables:
        raise ValueError(f"proposals must be of {source.name}, got {str(path)!r} with those of {', '.join(tables)}")
    return tables[source.name].of_source(source, path)


def rows_of_proposals(
    proposals: ProposalTable, config: Config, count: int, augmented: bool
) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Returns the function that gives a batch its proposals: (B, P, 4) float32 yxyx, pixels of the resized image, zeros in rows without one.

    Args:
        proposals: of the batches' source, in its order.
        config: the one of the batches: images that it mirrors have their proposals mirrored.
        count: int, P: the best of an image.
        augmented: bool, whether the batches are for training.

    Call:
        A batch with record_index (B,), image_sizes (B, 2) and, for training, sample_index (B,).
    """

    def rows_of(batch: dict[str, np.ndarray]) -> np.ndarray:
        records = batch["record_index"]
        # The same draws as the images': they are a function of the seed and the sample's number.
        samples = batch["sample_index"] if augmented else ()
        flips = [draw(config.input, config.seed, sample).flip for sample in samples] or [False] * len(records)
        rows = np.zeros((len(records), count, 4), np.float32)
        for row, (index, size, mirrored) in enumerate(zip(records, batch["image_sizes"], flips, strict=True)):
            if index >= 0:
                boxes = proposals.boxes[proposals.rows(index)][:count]
                boxes = resize_boxes(boxes, tuple(proposals.sizes[index]), tuple(size))
                rows[row, : len(boxes)] = flip_boxes(boxes, size[1]) if mirrored else boxes
        return rows

    return rows_of
