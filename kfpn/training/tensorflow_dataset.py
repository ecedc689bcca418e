"""Makes a `tf.data.Dataset` of the batches that `fit` and `evaluate` of a trainable detector take."""

import itertools
from collections.abc import Iterator

import tensorflow as tf

from kfpn.data.pipeline import finite_batches, made_batches
from kfpn.data.sample_arrays import EvaluationSamples, PlannedSamples, TrainingSamples
from kfpn.losses.training_losses import noise_shapes
from kfpn.training.drawn_noise import LEFT_OUT
from kfpn.training.opened_data import OpenedData
from kfpn.training.sampler_noise import with_noise


def tensorflow_batches(opened: OpenedData, train: bool, first_epoch: int = 0) -> tf.data.Dataset:
    """Returns the batches of `kfpn.dataset`.

    Args:
        opened: the data.
        train: whether they are to train on: then each iterator gives the next epoch.
        first_epoch: number of the first epoch.
    """
    source, config = opened
    if train:
        samples = TrainingSamples(source, config)
        count, epochs = samples.steps_per_epoch, itertools.count(first_epoch)

        def planned() -> Iterator[PlannedSamples]:
            return itertools.islice(samples.planned(next(epochs) * count), count)

        batches = made_batches(samples, planned)
    else:
        evaluated = EvaluationSamples(source, config, config.batch_size, truth=True)
        count = sum(1 for _ in evaluated.planned(config.batch_size))
        # The noise is that of the image, so equal weights have equal losses.
        batches = finite_batches(evaluated, config.batch_size).map(
            lambda batch: {**batch, "sample_index": batch["record_index"]}
        )
    batches = with_noise(batches, config, noise_shapes).map(_as_losses_take_it)
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    batches.class_names, batches.config = tuple(source.class_names), config
    return batches


def _as_losses_take_it(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    rest = {name: value for name, value in batch.items() if name not in LEFT_OUT}
    return {**rest, "record_index": tf.cast(batch["record_index"], tf.int32)}
