"""Builds the training step: forward and backward pass on each replica, one sum over replicas, one update."""

import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.training.distribution.strategy import replica_batch_size
from kfpn.training.optimizer import Optimizer
from kfpn.training.progress import say

LossesFunction = Callable[..., Any]
"""(submodels, config, batch, noise) -> dict of (B,) losses, see `kfpn.losses.training_losses.training_losses`."""
NoiseShapesFunction = Callable[..., Any]
"""(config, height, width, max_boxes) -> name -> shape, see `kfpn.losses.training_losses.noise_shapes`."""


def build_train_step(
    submodels: Any,
    config: Config,
    optimizer: Optimizer,
    strategy: tf.distribute.Strategy,
    losses: LossesFunction | None = None,
    noise_shapes: NoiseShapesFunction | None = None,
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """Builds the function that trains on one batch.

    `config.batch_size` is the batch of one optimizer step. Each replica computes its share of the batch in
    `config.accumulate` equal parts, one after the other. The sum equals the result of the whole share, except with batch
    norms (`bn`, `sync_bn`), whose statistics are then those of a part.

    Args:
        submodels: of the detector, made in `strategy.scope()`; `.weights_model` holds every variable.
        config: the run's configuration.
        optimizer: made in `strategy.scope()` for `submodels.weights_model.trainable_variables`.
        strategy: from `make_strategy`.
        losses: (submodels, config, batch, noise) -> losses of each image; None: `kfpn.losses.training_losses.training_losses`.
        noise_shapes: (config, height, width, max_boxes) -> shapes of the samplers' noise of an image; None: `kfpn.losses.training_losses.noise_shapes`.

    Returns:
        The function `step(batch)`. The batch comes from an iterator of a distributed data set, and all shapes in it are
        static: each new canvas is traced (and compiled) once. The function returns scalar float32 tensors without waiting
        for the device: each loss and their sum `loss` (means over the global batch), `grad_norm`, `lr`, and `skipped`,
        which is 1 where the step was refused because loss or gradients were not finite.

    Raises:
        ValueError: if the replicas can't share the global batch; at the first call, if a variable acts on no loss.
    """
    if losses is None or noise_shapes is None:
        from kfpn.losses import training_losses as defaults

        losses = losses or defaults.training_losses
        noise_shapes = noise_shapes or defaults.noise_shapes
    replica_batch_size(strategy, config.batch_size, config.accumulate)
    if config.model.norm == "bn" and strategy.num_replicas_in_sync > 1:
        warnings.warn(
            "model.norm bn takes its statistics on each replica alone, so results depend on the number of replicas, "
            "and the first replica's are evaluated and saved; sync_bn takes them over all",
            stacklevel=2,
        )
    backward = _compiled(_build_backward(submodels, config, losses), config, strategy)
    moving = [v for v in submodels.weights_model.non_trainable_variables if v.name.startswith("moving_")]

    def replica_step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _, height, width, _ = batch["images"].shape
        shapes = noise_shapes(config, height, width, batch["gt_boxes"].shape[1])
        noise = sampler_noise(config.seed, batch["sample_index"], shapes)
        before = [tf.identity(variable.value) for variable in moving]
        values, gradients = accumulate(backward, config.accumulate, dict(batch), noise, optimizer.loss_scale)
        context = tf.distribute.get_replica_context()
        values, gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, (values, gradients))
        update = optimizer.apply(gradients, values["loss"])
        applied = update.pop("applied")
        for variable, old in zip(moving, before, strict=True):
            # The forward pass moved the statistics of batch norms. A refused step may have moved them to NaN.
            variable.assign(tf.where(applied, variable.value, old))
        return {**values, **update}

    @tf.function(autograph=False)
    def step(batch: Any) -> dict[str, tf.Tensor]:
        results = strategy.run(replica_step, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


def sampler_noise(seed: int, sample_index: tf.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
    """Draws the samplers' noise for each image from its index, so that neither replicas nor restarts change it.

    Args:
        seed: seed of the run.
        sample_index: (B,) int64, numbers of the samples since the start of training; B is static.
        shapes: name of a sampler -> shape of the noise of one image.

    Returns:
        Name -> (B, *shape) float32 in [0, 1).
    """
    noise = {}
    for name, shape in shapes.items():
        salted = tf.constant(seed ^ zlib.crc32(name.encode()), tf.int64)
        rows = [
            # TensorFlow's default algorithm differs between devices, and XLA's Philox gives other numbers than
            # TensorFlow's. So the algorithm is named, and the noise is drawn outside of the compiled part.
            tf.random.stateless_uniform(shape, seed=tf.stack([salted, tf.cast(index, tf.int64)]), alg="philox")
            for index in tf.unstack(sample_index)
        ]
        noise[name] = tf.stack(rows)
    return noise


def accumulate(
    backward: Callable, parts: int, batch: dict[str, tf.Tensor], noise: dict[str, tf.Tensor], scale: tf.Tensor
) -> tuple[dict, list]:
    """Sums the results of `backward` over equal parts of a batch, computed one after the other.

    Args:
        backward: (batch, noise, scale) -> dict and list of tensors.
        parts: number of parts, a divisor of the batch size.
        batch, noise: name -> (B, ...), B static.
        scale: the loss scale, scalar float32.
    """
    if parts == 1:
        return backward(batch, noise, scale)
    values: Any = None
    gradients: Any = None
    for first in range(parts):
        # Each part waits for the one before it, so that it can reuse its memory.
        with tf.control_dependencies(gradients or []):
            # A part takes every parts-th image, not neighbours. Over all replicas a part then holds the same images
            # for any number of replicas, and sync_bn has the same statistics.
            part = [{name: tf.identity(value[first::parts]) for name, value in d.items()} for d in (batch, noise)]
            more, further = backward(*part, scale)
            values = more if values is None else {name: values[name] + more[name] for name in values}
            gradients = further if gradients is None else [a + b for a, b in zip(gradients, further, strict=True)]
    return values, gradients


def announce_shapes(step: Callable, config: Config, strategy: tf.distribute.Strategy) -> Callable:
    """Returns a step that prints a line when it takes long because of a new canvas.

    Args:
        step: from `build_train_step`.
        config: the run's.
        strategy: of the step.
    """
    seen: set[tuple[int, ...]] = set()

    def announced_step(batch: Any) -> dict[str, tf.Tensor]:
        shape = tuple(strategy.experimental_local_results(batch["images"])[0].shape)
        if shape not in seen:
            seen.add(shape)
            verb = "compiles" if config.jit_compile else "traces"
            say(f"{verb} the step for images of {shape[1]} x {shape[2]}; this takes a while, once")
        return step(batch)

    return announced_step


def _build_backward(submodels: Any, config: Config, losses: LossesFunction) -> Callable:
    """Returns the function that XLA compiles: (batch, noise, loss scale) -> losses and gradients of this replica's share."""
    variables = submodels.weights_model.trainable_variables

    def backward(batch: dict[str, tf.Tensor], noise: dict[str, tf.Tensor], scale: tf.Tensor) -> tuple[dict, list]:
        with tf.GradientTape() as tape:
            values = {
                name: tf.reduce_sum(tf.cast(value, tf.float32)) / config.batch_size
                for name, value in losses(submodels, config, batch, noise).items()
            }
            values["loss"] = tf.add_n(list(values.values()))
            scaled = values["loss"] * scale
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        unused = [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]
        if unused:
            raise ValueError(f"every trainable variable must act on a loss, got none from {', '.join(unused)}")
        return values, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return backward


def _compiled(backward: Callable, config: Config, strategy: tf.distribute.Strategy) -> Callable:
    if not config.jit_compile:
        return backward
    if config.model.norm == "sync_bn" and not isinstance(strategy, tf.distribute.OneDeviceStrategy):
        # sync_bn sums statistics over replicas inside the graph, which TensorFlow can't do in a compiled function.
        warnings.warn(
            "jit_compile is off: sync_bn and XLA don't go together under strategies mirrored and multi_worker",
            stacklevel=3,
        )
        return backward
    return tf.function(backward, jit_compile=True, autograph=False)
