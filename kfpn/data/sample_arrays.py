"""Plans batches of a source and makes the arrays of their samples with NumPy: endless ones for training, each record once for evaluation.

`kfpn.data.plan` plans the order ahead, `kfpn.data.augment` draws what chance decides, and `kfpn.data.training_sample` makes the
arrays. `kfpn.data.pipeline` makes data sets of TensorFlow of them, `kfpn.data.numpy_batches` batches without it.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import (
    draw,
    draw_short_side,
    largest_training_input,
    prepare_image,
    resize_boxes,
    size_rule,
)
from kfpn.data.eval_order import eval_order
from kfpn.data.image import decode_record
from kfpn.data.mask_moves import batch_masks, batch_outlines, resize_masks
from kfpn.data.object_masks import GRID_SIDE
from kfpn.data.plan import WHOLE_BATCH, BatchShare, TrainPlan, group_by_aspect
from kfpn.data.record import Source
from kfpn.data.repeat_factors import repeat_factors
from kfpn.data.trained_records import trained_records
from kfpn.data.training_sample import box_rows, padded, training_sample
from kfpn.data.views import training_sizes

IMAGE = {"images": ((None, None, 3), np.uint8), "image_sizes": ((2,), np.int32)}
"""Name -> shape and dtype of what each sample has; the sides of a canvas are not known before."""

Arrays = dict[str, tuple[tuple[int | None, ...], Any]]


class PlannedSamples(NamedTuple):
    """Names the samples of one batch.

    Attributes:
        records: (P,) int64 indices into the source, -1 for a black image.
        samples: (P,) int64, their numbers since the start of training; in evaluation the records again.
        canvas: (2,) int32, height and width to which they are padded.
    """

    records: np.ndarray
    samples: np.ndarray
    canvas: np.ndarray


class TrainingSamples:
    """Plans the endless training batches of a source, and makes their samples: a pure function of (config, source, step).

    Args:
        source: to train on.
        config: of the run.
        share: of each batch, where a process trains with others.

    Attributes:
        arrays: name -> shape and dtype of each array of a sample, in the order in which they are made.
        steps_per_epoch: batches that an epoch completes, about; at least 1.

    Raises:
        ValueError: if the source is empty, or `augment` no function.
    """

    def __init__(self, source: Source, config: Config, share: BatchShare = WHOLE_BATCH):
        require_records(source)
        self.config = config
        size = config.batch_size
        self.rows = share.rows(size)
        self._kept = trained_records(source, config.input)
        largest = largest_training_input(config.input)
        seen = training_sizes(source.sizes[self._kept], config.input)
        self._groups = group_by_aspect(seen, largest, size, factor=config.input.scale_jitter[1])
        factors = repeat_factors(source, self._kept, config.input.repeat_threshold)
        self._plan = TrainPlan(self._groups.members, size, config.seed, factors)
        taken = len(self._kept) if factors is None else float(factors.sum())
        self.steps_per_epoch = max(1, int(taken) // size)
        self.arrays: Arrays = {**IMAGE, **truth_arrays(box_rows(source, config), config)}
        self._load = training_sample(source, config)

    def planned(self, start_step: int) -> Iterator[PlannedSamples]:
        """Yields the samples of the batches from `start_step` on, for ever."""
        size = self.config.batch_size
        for batch in self._plan.batches(start_step):
            samples = np.arange(batch.step * size, (batch.step + 1) * size, dtype=np.int64)
            yield PlannedSamples(
                self._kept[batch.records[self.rows]], samples[self.rows], self._groups.canvases[batch.group]
            )

    def make(self, record_index: int, sample_index: int, canvas: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the arrays of one sample, in the order of `arrays`.

        Raises:
            ValueError: naming an image that can't be read.
        """
        options, seed = self.config.input, self.config.seed
        chance = draw(options, seed, sample_index)
        short_side = draw_short_side(options, seed, sample_index)
        return self._load(record_index, sample_index, chance.flip, chance.factor, short_side, canvas)


class EvaluationSamples:
    """Plans the evaluation of a source, and makes its samples: each record once, without augmentation.

    Args:
        source: the data set.
        config: of the run.
        batch_size: images that are padded together, see `kfpn.data.eval_order.eval_order`.
        largest: the resize rule of the largest image, see `kfpn.data.pipeline.eval_batches`.
        truth: whether the samples have their ground truth, as those of training have it.

    Attributes:
        arrays: name -> shape and dtype of each array of a sample, in the order in which they are made.

    Raises:
        ValueError: if the source is empty, or `batch_size` below 1.
    """

    def __init__(
        self, source: Source, config: Config, batch_size: int, largest: InputConfig | None = None, truth: bool = False
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        require_records(source)
        self.source = source
        self.config = config
        self.truth = truth
        self.arrays: Arrays = {**IMAGE, "original_sizes": ((2,), np.int32)}
        if truth:
            self.arrays |= truth_arrays(max(1, source.max_boxes), config)
        self._order = eval_order(source.sizes, config, batch_size)
        self._needed = size_rule(largest or config.input)

    def planned(self, rows: int, start: int = 0) -> Iterator[PlannedSamples]:
        """Yields the samples of the batches of `rows` images, without the first `start` records."""
        for records, canvas in self._order.batches(rows, start):
            yield PlannedSamples(records, records, canvas)

    def make(self, record_index: int, sample_index: int, canvas: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the arrays of one sample, in the order of `arrays`; of record -1 a black image without a box.

        Raises:
            ValueError: naming an image that can't be read.
        """
        if record_index < 0:
            arrays = np.zeros((*canvas, 3), np.uint8), canvas, canvas
        else:
            image = decode_record(self.source[int(record_index)], self._needed)
            resized, size = prepare_image(image, self.config.input)
            arrays = padded(resized, canvas), np.array(size, np.int32), np.array(image.size, np.int32)
        return (*arrays, *self._truth(record_index, *arrays[1:])) if self.truth else arrays

    def _truth(self, record: int, size: np.ndarray, original: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(part[0] for part in truth_rows(self.source, self.config, [record], [original], [size]))


def truth_arrays(rows: int, config: Config) -> Arrays:
    """Returns name -> shape and dtype of the ground truth of one image, with so many rows of boxes, in the order in which it is made."""
    arrays: Arrays = {
        "gt_boxes": ((rows, 4), np.float32),
        "gt_labels": ((rows,), np.int32),
        "gt_crowd": ((rows,), np.bool_),
    }
    if config.model.learns_masks:
        # An exact rule draws the outlines for each RoI; the grid would be made for nothing.
        grid = ((rows, GRID_SIDE, GRID_SIDE), np.uint8)
        arrays |= {"gt_outlines": ((rows,), np.bytes_)} if config.masks_on_host else {"gt_masks": grid}
        arrays["gt_has_mask"] = ((rows,), np.bool_)
    return arrays


def truth_rows(source: Source, config: Config, records: Any, originals: Any, sizes: Any) -> tuple[np.ndarray, ...]:
    """Returns the ground truth of images as they are evaluated: the arrays of `truth_arrays`, with a row for each image.

    Args:
        source: the data set.
        config: of the run.
        records: (B,) int, -1 for an image without a box.
        originals, sizes: (B, 2) int, height and width before and after resizing.
    """
    shape = len(records), max(1, source.max_boxes)
    boxes, labels = np.zeros((*shape, 4), np.float32), np.full(shape, -1, np.int32)
    crowd = np.zeros(shape, np.bool_)
    masks = []
    for row, index in enumerate(records):
        drawn = None
        if index >= 0:
            record = source[int(index)]
            count = len(record.boxes)
            boxes[row, :count] = resize_boxes(record.boxes, tuple(originals[row]), tuple(sizes[row]))
            labels[row, :count], crowd[row, :count] = record.labels, record.crowd
            drawn = resize_masks(record.masks, tuple(np.asarray(sizes[row]).tolist()))
        if config.model.learns_masks:
            rows = shape[1]
            masks.append(batch_outlines(drawn, rows) if config.masks_on_host else batch_masks(drawn, boxes[row], rows))
    return boxes, labels, crowd, *(np.stack(part) for part in zip(*masks, strict=True))


def require_records(source: Source) -> None:
    """Raises ValueError where a data set has no record."""
    if not len(source):
        raise ValueError(f"data set must have at least one record, got none in {source.name}")


def named_cause(error: BaseException) -> str | None:
    """Returns what a ValueError in the making of a sample said, which TensorFlow's errors quote; None where there was none.

    Args:
        error: of TensorFlow.
    """
    cause = re.search(r"ValueError: (.+)", str(error))
    return None if cause is None else cause[1].strip()
