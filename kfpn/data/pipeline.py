"""Makes padded batches of records in tf.data: endless ones for training, each record once for evaluation.

`kfpn.data.sample_arrays` plans the batches and makes their samples; here that is done in parallel. Sides of a canvas are None in the
element spec (they differ by aspect group); the batch size and the number of box rows are fixed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import prepare_image  # programs written for 0.1.0 import it from here
from kfpn.data.plan import WHOLE_BATCH, BatchShare
from kfpn.data.proposal_table import ProposalTable, rows_of_proposals
from kfpn.data.record import Source
from kfpn.data.sample_arrays import (
    Arrays,
    EvaluationSamples,
    PlannedSamples,
    TrainingSamples,
    named_cause,
    truth_arrays,
)

__all__ = [
    "eval_batches", "finite_batches", "made_batches", "named_errors", "prepare_image", "train_batches", "truth_specs", "with_proposals",
]  # fmt: skip

_BATCHES_AHEAD = 2


def train_batches(
    source: Source, config: Config, start_step: int = 0, share: BatchShare = WHOLE_BATCH
) -> tf.data.Dataset:
    """Returns the endless training batches from `start_step` on, a pure function of (config, source, step).

    A process that trains with others loads its own images alone: with a `share` the elements are what its replicas get,
    one behind the other, B the images of one replica. All shares together are the batches of the whole.

    A batch is a dict of `images` (B, Hc, Wc, 3) uint8, zeros below and right of each image; `image_sizes` (B, 2)
    int32, its true height and width; `gt_boxes` (B, G, 4) float32 yxyx pixels of the resized image; `gt_labels`
    (B, G) int32, -1 in rows without a box; `gt_crowd` (B, G) bool; `sample_index` (B,) int64, step x B + position;
    `record_index` (B,) int64. G is source.max_boxes, at least 1, twice as many with `augment` or copy-paste. Images of a batch
    share an aspect group, thus Hc, Wc.

    With a mask head also `gt_has_mask` (B, G) bool, and `gt_masks` (B, G, 112, 112) uint8, 1 where the object is, over its own box;
    where `config.masks_on_host`, `gt_outlines` (B, G) bytes in their stead, see `ObjectMasks.serialized`.

    Raises:
        ValueError: when the source is empty, `start_step` negative or `augment` no function. An unreadable image surfaces from the iterator
            as a tf.errors.OpError whose message names it; `named_errors` makes a ValueError of that.
    """
    if start_step < 0:
        raise ValueError(f"start_step must be at least 0, got {start_step}")
    samples = TrainingSamples(source, config, share)
    batches = made_batches(samples, lambda: samples.planned(start_step), share.replicas)
    # Data whose end is not known costs a sum over all workers, and a wait for it, before each batch.
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def made_batches(
    samples: TrainingSamples, planned: Callable[[], Iterator[PlannedSamples]], replicas: int = 1
) -> tf.data.Dataset:
    """Returns planned training batches, as `train_batches` describes them.

    Args:
        samples: makes them.
        planned: returns the batches to make; each iterator calls it.
        replicas: the batch of all processes is shared by so many.
    """
    count = samples.rows.stop - samples.rows.start
    return _batched(samples, planned, count, samples.config.batch_size // replicas)


def truth_specs(rows: int, config: Config) -> dict[str, tf.TensorSpec]:
    """Returns name -> spec of the ground truth of one image, with so many rows of boxes, in the order in which it is made."""
    return _specs(truth_arrays(rows, config))


def _specs(arrays: Arrays) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec(shape, tf.as_dtype(dtype)) for name, (shape, dtype) in arrays.items()}


def eval_batches(
    source: Source,
    config: Config,
    batch_size: int,
    rows: int | None = None,
    start: int = 0,
    largest: InputConfig | None = None,
) -> tf.data.Dataset:
    """Returns every record exactly once, in the order of `eval_order`, without augmentation or ground truth.

    A batch is a dict of `images` (B, Hc, Wc, 3) uint8, `image_sizes` (B, 2) int32, `record_index` (B,) int64 and
    `original_sizes` (B, 2) int32, height and width before resizing. The last batch of a canvas is filled up with black
    images with record_index -1, both of whose sizes are the canvas's.

    Args:
        source: the data set.
        config: of the run.
        batch_size: images that are padded together, see `eval_order`.
        rows: B, images of a batch; None: `batch_size`. It changes neither the order nor a canvas.
        start: how many records are left out at the beginning.
        largest: the resize rule that makes the largest image, where images are looked at in several sizes: it says at which
            fraction a large JPEG is decoded. None: that of `config`.

    Raises:
        ValueError: when the source is empty or `batch_size` below 1.
    """
    rows = batch_size if rows is None else rows
    samples = EvaluationSamples(source, config, batch_size, largest)
    return finite_batches(samples, rows, start)


def finite_batches(samples: EvaluationSamples, rows: int, start: int = 0) -> tf.data.Dataset:
    """Returns the batches of an evaluation, as `eval_batches` describes them, with ground truth where the samples have it.

    Args:
        samples: makes them.
        rows: images of a batch.
        start: how many records are left out at the beginning.
    """
    batches = _batched(samples, lambda: samples.planned(rows, start), rows, rows)
    return batches.map(lambda batch: {name: value for name, value in batch.items() if name != "sample_index"})


def named_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """Yields batches; an image that cannot be read raises an error of one line.

    Args:
        batches: a data set of this module, or what a strategy made of it.

    Raises:
        ValueError: naming the image and what is wrong with it. (TensorFlow's own error is pages of tracebacks.)
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            cause = named_cause(error)
            if cause is None:
                raise
            raise ValueError(cause) from error
        yield batch


def with_proposals(
    batches: tf.data.Dataset, proposals: ProposalTable, config: Config, count: int, augmented: bool
) -> tf.data.Dataset:
    """Adds `proposals` to batches: (B, P, 4) float32 yxyx, pixels of the resized image, zeros in rows without one.

    Args:
        batches: of `train_batches` or `eval_batches`.
        proposals, config, count, augmented: see `kfpn.data.proposal_table.rows_of_proposals`.
    """
    rows_of = rows_of_proposals(proposals, config, count, augmented)
    names = ["record_index", "image_sizes", *(["sample_index"] if augmented else [])]

    def add(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        def rows(*arrays: Any) -> Any:
            return rows_of(dict(zip(names, arrays, strict=True)))

        boxes = tf.numpy_function(rows, [batch[name] for name in names], tf.float32)
        return {**batch, "proposals": tf.ensure_shape(boxes, (batch["record_index"].shape[0], count, 4))}

    return batches.map(add, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)


def _batched(
    samples: TrainingSamples | EvaluationSamples,
    planned: Callable[[], Iterator[PlannedSamples]],
    planned_size: int,
    batch_size: int,
) -> tf.data.Dataset:
    """Makes the samples of plans of P records in parallel, in batches of a divisor of P."""
    specs = _specs(samples.arrays)

    def sample(record_index: tf.Tensor, sample_index: tf.Tensor, canvas: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(
            samples.make, [record_index, sample_index, canvas], [spec.dtype for spec in specs.values()]
        )
        made = {name: tf.ensure_shape(array, specs[name].shape) for name, array in zip(specs, arrays, strict=True)}
        return made | {"sample_index": sample_index, "record_index": record_index}

    indices = tf.TensorSpec((planned_size,), tf.int64)
    batches = tf.data.Dataset.from_generator(
        planned, output_signature=(indices, indices, tf.TensorSpec((2,), tf.int32))
    )
    singles = batches.map(lambda records, numbers, canvas: (records, numbers, tf.repeat(canvas[None], planned_size, 0)))
    dataset = singles.unbatch().map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(_BATCHES_AHEAD * planned_size // batch_size)
    options = tf.data.Options()
    # There are no files to share out: each worker would take its slice of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
