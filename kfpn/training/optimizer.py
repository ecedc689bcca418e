"""What is done with summed gradients: decay, clipping, SGD with momentum, averaging of the weights.

Keras' own `optimizer.apply` would sum the gradients over replicas once more, and clips and decays on each replica
before that sum. So the sum is made first (`step.py`), and here `update_step`, Keras' public hook for one variable,
is called inside `StrategyExtended.update`, which runs it once on each device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.training.schedule import make_schedule

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
"""Finite steps after which the loss scale doubles (Micikevicius et al. 2018; the numbers are Keras' own)."""


class Optimizer:
    """SGD with momentum, L2 decay, clipping, EMA and, for mixed_float16, a dynamic loss scale.

    Make it inside `strategy.scope()`.

    Args:
        config: the run's configuration.
        trainable_variables: `weights_model.trainable_variables`.
    """

    def __init__(self, config: Config, trainable_variables: Sequence[keras.Variable]):
        self.config = config.optimizer
        self.trainable_variables = list(trainable_variables)
        schedule = make_schedule(self.config, config.steps, config.batch_size)
        self.sgd = keras.optimizers.SGD(schedule, momentum=self.config.momentum)
        self.sgd.build(self.trainable_variables)
        self.average: list[keras.Variable] = []
        if self.config.ema_decay:
            self.average = [_state(v.numpy(), f"ema_{i}") for i, v in enumerate(self.trainable_variables)]
        self.scale: list[keras.Variable] = []
        if config.precision == "mixed_float16":
            self.scale = [_state(INITIAL_SCALE, "loss_scale"), _state(0.0, "finite_steps")]
        # Not among `variables`: nothing is trained, nor saved, between a fault and what the host does about it.
        self._halts, self._halted = _state(0.0, "halts"), _state(0.0, "halted")

    @property
    def variables(self) -> list[keras.Variable]:
        """Everything a restart needs, in a fixed order: step counter, momenta, average, loss scale."""
        return [*self.sgd.variables, *self.average, *self.scale]

    @property
    def loss_scale(self) -> tf.Tensor:
        """Factor of the loss whose gradient `apply` expects, scalar float32; 1 unless mixed_float16."""
        return self.scale[0].value + 0.0 if self.scale else tf.constant(1.0)

    def halt_at_fault(self, halt: bool) -> None:
        """Says what the next fault does: halt, after which every step is refused and nothing at all changes until this
        is called again, so that the host finds the state from before it; or cost that step alone.
        """
        self._halts.assign(float(halt))
        self._halted.assign(0.0)

    def apply(self, gradients: Sequence[tf.Tensor], loss: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Takes one step, or refuses it: where loss or gradients are not finite, weights and momenta stay.

        Infinite gradients of a finite loss are no fault while the loss scale can still fall: the step is skipped and the
        scale halved. Call it in replica context, outside any nested `tf.function`.

        Args:
            gradients: of `loss_scale` times the loss, summed over all replicas, one a trainable variable.
            loss: scalar without `loss_scale`, summed over all replicas as well; None: only gradients count.

        Returns:
            `grad_norm` (global norm with the L2 term, before clipping), `lr` and `skipped`, 1 for a fault, else 0,
            scalars; and `applied`, bool.
        """
        rate = tf.cast(self.sgd.learning_rate, tf.float32)
        gradients = [tf.convert_to_tensor(gradient) / self.loss_scale for gradient in gradients]
        gradients = [
            gradient + self.config.weight_decay * variable.value if decays(variable) else gradient
            for gradient, variable in zip(gradients, self.trainable_variables, strict=True)
        ]
        norm = tf.linalg.global_norm(gradients)
        if self.config.clip_norm is not None:
            factor = tf.minimum(1.0, self.config.clip_norm / tf.maximum(norm, 1e-12))
            gradients = [gradient * factor for gradient in gradients]
        # Gradients and loss are summed: they, the norm and so the decision to refuse are the same on every replica.
        finite = tf.math.is_finite(norm)
        fault = ~finite & (self.loss_scale <= 1.0)
        if loss is not None:
            fault |= ~tf.math.is_finite(loss)
        frozen = (self._halted.value > 0.0) | (fault & (self._halts.value > 0.0))
        applied = finite & ~fault & ~frozen
        tf.distribute.get_replica_context().merge_call(self._update, args=(gradients, rate, applied, frozen))
        return {"grad_norm": norm, "lr": rate, "skipped": tf.cast(fault, tf.float32), "applied": applied}

    def _update(
        self, strategy: tf.distribute.Strategy, gradients: list, rate: tf.Tensor, applied: tf.Tensor, frozen: tf.Tensor
    ) -> None:
        update = strategy.extended.update
        for variable, gradient in zip(self.trainable_variables, gradients, strict=True):
            update(variable.value, self._update_one, args=(gradient, rate, applied), group=False)
        update(self._halted.value, _halt, args=(frozen,), group=False)
        update(self.sgd.iterations.value, _count, args=(frozen,), group=False)
        if self.average:
            step = tf.cast(self.sgd.iterations.value, tf.float32)
            # A young average would remember the random start: it takes in new weights faster at first.
            keep = tf.minimum(self.config.ema_decay, (1.0 + step) / (10.0 + step))
            for average, variable in zip(self.average, self.trainable_variables, strict=True):
                update(average.value, _move_towards, args=(variable.value, 1.0 - keep, frozen), group=False)
        if self.scale:
            scale, count = (variable.value for variable in self.scale)
            grown = tf.identity(count) + 1.0 >= GROWTH_STEPS
            update(scale, _rescale, args=(grown, applied, frozen), group=False)
            update(count, _recount, args=(grown, applied, frozen), group=False)

    def _update_one(self, variable: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor, applied: tf.Tensor) -> None:
        def step() -> tf.Tensor:
            self.sgd.update_step(gradient, variable, rate)
            return tf.constant(True)

        tf.cond(applied, step, lambda: tf.constant(False))

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the average in the model's place for a `with` block, and the trained weights back after it.

        BatchNorm's moving statistics are averages already and stay as they are. Without EMA this does nothing.
        """
        if not self.average:
            yield
            return
        trained = [variable.numpy() for variable in self.trainable_variables]
        try:
            for variable, average in zip(self.trainable_variables, self.average, strict=True):
                variable.assign(average.numpy())
            yield
        finally:
            for variable, value in zip(self.trainable_variables, trained, strict=True):
                variable.assign(value)


def decays(variable: keras.Variable) -> bool:
    """Tells whether L2 decay acts on a variable: on kernels, not on biases nor on a norm's gamma and beta."""
    return len(variable.shape) > 1


def _state(value: object, name: str) -> keras.Variable:
    return keras.Variable(value, trainable=False, dtype="float32", name=name)


def _halt(halted: tf.Variable, frozen: tf.Tensor) -> None:
    halted.assign(tf.maximum(halted, tf.cast(frozen, halted.dtype)))


def _count(iterations: tf.Variable, frozen: tf.Tensor) -> None:
    iterations.assign_add(tf.cast(~frozen, iterations.dtype))


def _move_towards(average: tf.Variable, value: tf.Tensor, share: tf.Tensor, frozen: tf.Tensor) -> None:
    average.assign_add(tf.where(frozen, 0.0, share) * (value - average))


def _rescale(scale: tf.Variable, grown: tf.Tensor, applied: tf.Tensor, frozen: tf.Tensor) -> None:
    moved = tf.where(applied, tf.where(grown, scale * 2.0, scale), tf.maximum(scale / 2.0, 1.0))
    scale.assign(tf.where(frozen, scale, moved))


def _recount(count: tf.Variable, grown: tf.Tensor, applied: tf.Tensor, frozen: tf.Tensor) -> None:
    count.assign(tf.where(frozen, count, tf.where(applied & ~grown, count + 1.0, 0.0)))
