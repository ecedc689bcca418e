"""Builds the training step: forward and backward pass on each replica, one sum over replicas, one update."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.kernels.live_form import live_form
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.backward import STOP, Backward, LossesFunction
from kfpn.training.distribution.strategy import replica_batch_size
from kfpn.training.optimizer import Optimizer
from kfpn.training.progress import say
from kfpn.training.sampler_noise import NoiseShapesFunction, noise_of, specs_of
from kfpn.training.step_form import describe_form, step_form, uses_gpu

NetworkParts = (Submodels, SegmentSubmodels)
"""What `live_form` builds anew."""


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
        for the device: each loss and their sum `loss` (means over the global batch), `grad_norm`, `lr`, `skipped`,
        which is 1 where the step was refused because loss or gradients were not finite, and with several workers `stop`,
        which is above 0 where one of them asked to stop.

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
    synchronizes = _synchronizes(submodels.weights_model, config, strategy)
    form = step_form(config, on_gpu=uses_gpu(strategy), synchronizes=synchronizes)
    say(describe_form(form, config))
    computed = live_form(submodels, config.model) if form == "islands" and isinstance(submodels, NetworkParts) else None
    backward = Backward(submodels, config, losses, computed, packed=strategy.num_replicas_in_sync > 1)
    parts = _ReplicaStep(backward, config, optimizer, strategy, noise_shapes)
    if not synchronizes:
        parts.share_trace(form == "whole")
    if form != "off":
        parts.compile_update()

    @tf.function(autograph=False)
    def step(batch: Any) -> dict[str, tf.Tensor]:
        results = strategy.run(parts.run, args=(batch, parts.trace(batch)))
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


class _ReplicaStep:
    """Holds the parts of a replica's step.

    Args:
        backward: computes a replica's share.
        config: the run's.
        optimizer, strategy, noise_shapes: see `build_train_step`.

    Attributes:
        shared: the function whose trace all replicas share; None: each replica traces `backward` for itself.
    """

    def __init__(
        self,
        backward: Backward,
        config: Config,
        optimizer: Optimizer,
        strategy: tf.distribute.Strategy,
        noise_shapes: NoiseShapesFunction,
    ):
        self.backward = backward
        self.config = config
        self.optimizer = optimizer
        self.strategy = strategy
        self.noise_shapes = noise_shapes
        self.shared: Any = None
        self._update: Callable = self.update
        self._of_replicas = [strategy.experimental_local_results(variable.value) for variable in backward.variables]
        self._names_stop = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def share_trace(self, compiles: bool) -> None:
        """Lets one trace of forward and backward pass serve all replicas, which call it with their own variables."""
        self.shared = tf.function(self.backward.__call__, jit_compile=compiles or None, autograph=False)

    def compile_update(self) -> None:
        """Lets XLA compile the update."""
        self._update = tf.function(self.update, jit_compile=True, autograph=False)

    def trace(self, batch: Mapping[str, Any]) -> Callable:
        """Returns what each replica calls for a batch of this shape."""
        if self.shared is None:
            return self.backward
        first = {name: self.strategy.experimental_local_results(value)[0] for name, value in batch.items()}
        images, noise = specs_of(first, self.config, self.noise_shapes)
        controls = tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.float32)
        return self.shared.get_concrete_function([own[0] for own in self._of_replicas], controls, images, noise)

    def run(self, batch: Mapping[str, tf.Tensor], trace: Callable) -> dict[str, tf.Tensor]:
        """Takes a step in replica context, with what `trace` returned."""
        context = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(context.replica_id_in_sync_group))
        variables = [own[number % len(own)] for own in self._of_replicas]
        images, noise = noise_of(batch, self.config, self.noise_shapes)
        controls = self.optimizer.loss_scale, self.optimizer.stop_requested
        results, before = accumulate(partial(trace, variables, controls), self.config.accumulate, images, noise)
        if self.backward.packed:
            results = [context.all_reduce(tf.distribute.ReduceOp.SUM, results[0])]
        return self.optimizer.on_each_device(self._update, results, before)

    def update(self, computed: list[tf.Tensor], before: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Updates the variables of one device with the sum over all replicas."""
        values, gradients = self.backward.split(computed)
        results = self.optimizer.update(gradients, values["loss"])
        applied = results.pop("applied")
        for variable, old in zip(self.backward.moving, before, strict=True):
            # The forward pass moved the statistics of batch norms. A refused step may have moved them to NaN.
            variable.assign(tf.where(applied, variable.value, old))
        if not self._names_stop:
            del values[STOP]
        return {**values, **results}


def accumulate(
    backward: Callable, parts: int, batch: dict[str, tf.Tensor], noise: dict[str, tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Sums the results of `backward` over equal parts of a batch, computed one after the other.

    Args:
        backward: (batch, noise) -> tensors, and what the forward pass moved, as it was before.
        parts: number of parts, a divisor of the batch size.
        batch, noise: name -> (B, ...), B static.

    Returns:
        The sum, and what the forward pass moved, as it was before the first part.
    """
    if parts == 1:
        return backward(batch, noise)
    total: Any = None
    before: Any = None
    for first in range(parts):
        # Each part waits for the one before it, so that it can reuse its memory.
        with tf.control_dependencies(total or []):
            # A part takes every parts-th image, not neighbours. Over all replicas a part then holds the same images
            # for any number of replicas, and sync_bn has the same statistics.
            part = [{name: tf.identity(value[first::parts]) for name, value in d.items()} for d in (batch, noise)]
            results, moved = backward(*part)
            if total is None:
                total, before = results, moved
            else:
                total = [sofar + more for sofar, more in zip(total, results, strict=True)]
    return total, before


def local_shape(batch: Any, strategy: tf.distribute.Strategy) -> tuple[int, ...]:
    """Returns the shape of the images that the first replica of this process gets of a batch."""
    return tuple(strategy.experimental_local_results(batch["images"])[0].shape)


def _synchronizes(model: Any, config: Config, strategy: tf.distribute.Strategy) -> bool:
    """Tells whether replicas exchange statistics in the forward pass, which each then has to trace for itself."""
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return False
    return config.model.norm == "sync_bn" or _has_synchronized(model)


def _has_synchronized(model: Any) -> bool:
    return any(
        getattr(layer, "synchronized", False) or _has_synchronized(layer) for layer in getattr(model, "layers", [])
    )
