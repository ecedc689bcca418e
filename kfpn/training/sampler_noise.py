"""Draws the noise of the samplers for each image from its number, so that neither replicas nor restarts change it."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.training.drawn_noise import PREFIX, salted_seed

NoiseShapesFunction = Callable[..., Mapping[str, tuple]]
"""(config, height, width, max_boxes) -> name -> shape, see `kfpn.losses.training_losses.noise_shapes`."""


def sampler_noise(seed: int, sample_index: tf.Tensor, shapes: Mapping[str, tuple]) -> dict[str, tf.Tensor]:
    """Draws the samplers' noise for each image.

    Args:
        seed: seed of the run.
        sample_index: (B,) int64, numbers of the samples since the start of training; B is static.
        shapes: name of a sampler -> shape of the noise of one image.

    Returns:
        Name -> (B, *shape) float32 in [0, 1).
    """
    noise = {}
    for name, shape in shapes.items():
        salted = tf.constant(salted_seed(seed, name), tf.int64)
        rows = [
            # TensorFlow's default algorithm differs between devices, and XLA's Philox gives other numbers than
            # TensorFlow's. So the algorithm is named, and the noise is drawn outside of the compiled part.
            tf.random.stateless_uniform(shape, seed=tf.stack([salted, tf.cast(index, tf.int64)]), alg="philox")
            for index in tf.unstack(sample_index)
        ]
        noise[name] = tf.stack(rows)
    return noise


def with_noise(batches: tf.data.Dataset, config: Config, noise_shapes: NoiseShapesFunction) -> tf.data.Dataset:
    """Adds the noise to batches while they are made, on the host.

    In the step a GPU would compute each seed and the host would wait for it, because the op reads its seed there.

    Args:
        batches: of `kfpn.data.pipeline.train_batches`, whole or a share of each.
        config: the run's.
        noise_shapes: of the run's losses.

    Returns:
        The batches with `noise_NAME` (B, ...) float32 for each sampler.
    """

    def add(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        canvas = tf.shape(batch["images"])
        shapes = noise_shapes(config, canvas[1], canvas[2], batch["gt_boxes"].shape[1])
        noise = sampler_noise(config.seed, batch["sample_index"], shapes)
        return {**batch, **{f"{PREFIX}{name}": value for name, value in noise.items()}}

    return batches.map(add, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)


def noise_of(
    batch: Mapping[str, tf.Tensor], config: Config, noise_shapes: NoiseShapesFunction
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns a batch without its noise, and its noise: that of `with_noise`, or else drawn here.

    Args:
        batch: with static shapes.
        config: the run's.
        noise_shapes: of the run's losses.
    """
    noise = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
    rest = {name: value for name, value in batch.items() if not name.startswith(PREFIX)}
    if not noise:
        _, height, width, _ = batch["images"].shape
        shapes = noise_shapes(config, height, width, batch["gt_boxes"].shape[1])
        noise = sampler_noise(config.seed, batch["sample_index"], shapes)
    return rest, noise


def specs_of(
    batch: Mapping[str, tf.Tensor], config: Config, noise_shapes: NoiseShapesFunction
) -> tuple[dict[str, tf.TensorSpec], dict[str, tf.TensorSpec]]:
    """Returns shapes and dtypes of what `noise_of` returns for one of the `accumulate` parts of a replica's batch."""
    images = {name: value for name, value in batch.items() if not name.startswith(PREFIX)}
    count, height, width, _ = batch["images"].shape
    size = count // config.accumulate
    shapes = noise_shapes(config, height, width, batch["gt_boxes"].shape[1])
    return (
        {name: tf.TensorSpec((size, *value.shape[1:]), value.dtype) for name, value in images.items()},
        {name: tf.TensorSpec((size, *shape), tf.float32) for name, shape in shapes.items()},
    )
