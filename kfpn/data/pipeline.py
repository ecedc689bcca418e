"""Makes padded batches of records in tf.data: endless ones for training, each record once for evaluation.

`kfpn.data.plan` plans the order ahead, and `kfpn.data.augment` draws what chance decides. Here samples are made in parallel, those of
training by `kfpn.data.training_sample`. Sides of a canvas are None in the element spec (they differ by aspect group); the
batch size and the number of box rows are fixed.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import draw, draw_short_side, largest_training_input, resize_image, size_rule
from kfpn.data.eval_order import eval_order
from kfpn.data.image import decode_record
from kfpn.data.jpeg_fraction import AnyImage, as_decoded
from kfpn.data.object_masks import GRID_SIDE
from kfpn.data.plan import WHOLE_BATCH, BatchShare, TrainPlan, group_by_aspect
from kfpn.data.record import Source
from kfpn.data.repeat_factors import repeat_factors
from kfpn.data.trained_records import trained_records
from kfpn.data.training_sample import box_rows, padded, training_sample
from kfpn.data.views import training_sizes

_BATCHES_AHEAD = 2


def prepare_image(image: AnyImage, config: InputConfig) -> tuple[np.ndarray, tuple[int, int]]:
    """Resizes one image for inference, exactly as evaluation does (without padding).

    Args:
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it.
        config: gives the resize rule, see `kfpn.data.augment.resized_sizes`.

    Returns:
        (h, w, 3) uint8 and (h, w).

    Raises:
        ValueError: when `image` is not such an array.
    """
    decoded = as_decoded(image)
    height, width = size_rule(config)(decoded.size)
    return resize_image(decoded.pixels, (height, width), decoded.box), (height, width)


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
    _require_records(source)
    size = config.batch_size
    kept = trained_records(source, config.input)
    largest = largest_training_input(config.input)
    seen = training_sizes(source.sizes[kept], config.input)
    groups = group_by_aspect(seen, largest, size, factor=config.input.scale_jitter[1])
    factors = repeat_factors(source, kept, config.input.repeat_threshold)
    plan = TrainPlan(groups.members, size, config.seed, factors)

    rows = share.rows(size)

    def planned() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for batch in plan.batches(start_step):
            samples = np.arange(batch.step * size, (batch.step + 1) * size, dtype=np.int64)
            yield kept[batch.records[rows]], samples[rows], groups.canvases[batch.group]

    load = training_sample(source, config)
    specs = {
        "images": tf.TensorSpec((None, None, 3), tf.uint8),
        "image_sizes": tf.TensorSpec((2,), tf.int32),
        **truth_specs(box_rows(source, config), config),
    }

    def sample(record_index: tf.Tensor, sample_index: tf.Tensor, canvas: tf.Tensor) -> dict[str, tf.Tensor]:
        chance = draw(config.input, config.seed, sample_index)
        short_side = draw_short_side(config.input, config.seed, sample_index)
        arrays = tf.numpy_function(
            load,
            [record_index, sample_index, chance.flip, chance.factor, short_side, canvas],
            [spec.dtype for spec in specs.values()],
        )
        made = {name: tf.ensure_shape(array, specs[name].shape) for name, array in zip(specs, arrays, strict=True)}
        return made | {"sample_index": sample_index, "record_index": record_index}

    batches = _batched(planned, sample, rows.stop - rows.start, size // share.replicas)
    # Data whose end is not known costs a sum over all workers, and a wait for it, before each batch.
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def truth_specs(rows: int, config: Config) -> dict[str, tf.TensorSpec]:
    """Returns name -> spec of the ground truth of one image, with so many rows of boxes, in the order in which it is made."""
    specs = {
        "gt_boxes": tf.TensorSpec((rows, 4), tf.float32),
        "gt_labels": tf.TensorSpec((rows,), tf.int32),
        "gt_crowd": tf.TensorSpec((rows,), tf.bool),
    }
    if config.model.mask:
        # An exact rule draws the outlines for each RoI; the grid would be made for nothing.
        grid = tf.TensorSpec((rows, GRID_SIDE, GRID_SIDE), tf.uint8)
        specs |= {"gt_outlines": tf.TensorSpec((rows,), tf.string)} if config.masks_on_host else {"gt_masks": grid}
        specs["gt_has_mask"] = tf.TensorSpec((rows,), tf.bool)
    return specs


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
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    _require_records(source)
    rows = batch_size if rows is None else rows
    order = eval_order(source.sizes, config, batch_size)
    needed = size_rule(largest or config.input)

    def planned() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for records, canvas in order.batches(rows, start):
            yield records, records, canvas

    def load(record_index: np.ndarray, canvas: np.ndarray) -> tuple[np.ndarray, ...]:
        if record_index < 0:
            return np.zeros((*canvas, 3), np.uint8), canvas, canvas
        image = decode_record(source[int(record_index)], needed)
        resized, size = prepare_image(image, config.input)
        return padded(resized, canvas), np.array(size, np.int32), np.array(image.size, np.int32)

    def sample(record_index: tf.Tensor, _: tf.Tensor, canvas: tf.Tensor) -> dict[str, tf.Tensor]:
        images, image_sizes, original_sizes = tf.numpy_function(
            load, [record_index, canvas], [tf.uint8, tf.int32, tf.int32]
        )
        return {
            "images": tf.ensure_shape(images, (None, None, 3)),
            "image_sizes": tf.ensure_shape(image_sizes, (2,)),
            "original_sizes": tf.ensure_shape(original_sizes, (2,)),
            "record_index": record_index,
        }

    return _batched(planned, sample, rows, rows)


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
            cause = re.search(r"ValueError: (.+)", error.message)
            if cause is None:
                raise
            raise ValueError(cause[1].strip()) from error
        yield batch


def _require_records(source: Source) -> None:
    if not len(source):
        raise ValueError(f"data set must have at least one record, got none in {source.name}")


def _batched(
    planned: Callable[[], Iterator[tuple[np.ndarray, ...]]],
    sample: Callable[..., dict[str, tf.Tensor]],
    planned_size: int,
    batch_size: int,
) -> tf.data.Dataset:
    """Makes samples of plans (records (P,), samples (P,), canvas (2,)) in parallel, in batches of a divisor of P."""
    indices = tf.TensorSpec((planned_size,), tf.int64)
    batches = tf.data.Dataset.from_generator(
        planned, output_signature=(indices, indices, tf.TensorSpec((2,), tf.int32))
    )
    singles = batches.map(lambda records, samples, canvas: (records, samples, tf.repeat(canvas[None], planned_size, 0)))
    dataset = singles.unbatch().map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(_BATCHES_AHEAD * planned_size // batch_size)
    options = tf.data.Options()
    # There are no files to share out: each worker would take its slice of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
