"""Updates the weights with summed gradients: decay, clipping, the optimizer's rule, averaging of the weights.

Keras' own `optimizer.apply` sums the gradients over replicas, after it clipped and decayed them on each replica. Here they
are summed before (`step.py`, or `backends/jax_step.py`), and `update_step`, Keras' public method for one variable, is called once on
each device. TensorFlow is imported only where `tf.distribute` is spoken to.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from kfpn.config.optimizer_config import OptimizerConfig
from kfpn.config.run import Config
from kfpn.training.guarded_update import assigning_only_where, global_norm
from kfpn.training.schedule import PlannedSchedule, WarmupSchedule, make_schedule

INITIAL_SCALE = 2.0**15
"""Loss scale of the first step (Micikevicius et al. 2018; this number and the next are Keras' own)."""
GROWTH_STEPS = 2000
"""Number of finite steps after which the loss scale doubles."""


def sgd(config: OptimizerConfig, schedule: WarmupSchedule) -> keras.optimizers.Optimizer:
    """Makes SGD with momentum."""
    return keras.optimizers.SGD(schedule, momentum=config.momentum)


def adamw(config: OptimizerConfig, schedule: WarmupSchedule) -> keras.optimizers.Optimizer:
    """Makes Adam; `Optimizer` decays the weights beside it, because Keras does so outside of `update_step`."""
    return keras.optimizers.Adam(schedule, beta_1=config.momentum)


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, WarmupSchedule], keras.optimizers.Optimizer]] = {
    "sgd": sgd,
    "adamw": adamw,
}
"""Value of `optimizer.name` -> function that makes the Keras optimizer whose `update_step` moves one variable."""
STOP = "stop"
"""Name of the scalar that is above 0 where a worker asks all to stop. It travels with the gradients."""
DECOUPLED_DECAY = ("adamw",)
"""Values of `optimizer.name` whose weights decay beside the gradient: the rule divides gradients by their size, and a decay
in them would be divided too."""


class Optimizer:
    """Updates the weights: L2 decay, clipping, a Keras optimizer, an average of the weights, and a loss scale.

    The loss scale is dynamic and used with mixed_float16 alone. Make the optimizer inside `strategy.scope()`.

    Args:
        config: the run's configuration.
        trainable_variables: `weights_model.trainable_variables`.

    Attributes:
        asks_to_stop: what `stop_requested` holds, known to the host without a look at a device.
    """

    def __init__(self, config: Config, trainable_variables: Sequence[keras.Variable]):
        self.config = config.optimizer
        self.trainable_variables = list(trainable_variables)
        steps = config.steps if config.minutes is None else None
        self.schedule = make_schedule(self.config, steps, config.batch_size)
        self.rule = OPTIMIZERS[self.config.name](self.config, self.schedule)
        self.rule.build(self.trainable_variables)
        self._decoupled = self.config.name in DECOUPLED_DECAY
        self.average: list[keras.Variable] = []
        if self.config.ema_decay:
            self.average = [_state(v.numpy(), f"ema_{i}") for i, v in enumerate(self.trainable_variables)]
        self.scale: list[keras.Variable] = []
        if config.precision == "mixed_float16":
            self.scale = [_state(INITIAL_SCALE, "loss_scale"), _state(0.0, "finite_steps")]
        # These are not among `variables`: nothing is trained or saved while the run halts, and no checkpoint asks to stop.
        self._halts, self._halted, self._stop = (_state(0.0, name) for name in ("halts", "halted", "stop"))
        self.asks_to_stop = False

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables that a restart needs, in a fixed order: those of the Keras optimizer (step counter first), average, loss scale."""
        return [*self.rule.variables, *self.average, *self.scale]

    @property
    def state(self) -> list[keras.Variable]:
        """All variables that `update` reads or moves, beside the weights: `variables`, those of a halt, and those of the schedule."""
        schedule = self.schedule
        planned = [*schedule.done, *schedule.warm] if isinstance(schedule, PlannedSchedule) else []
        return [*self.variables, self._halts, self._halted, *planned]

    @property
    def loss_scale(self) -> Any:
        """The factor of the loss whose gradients `apply` takes, scalar float32; 1 without mixed_float16."""
        return self.scale[0].value + 0.0 if self.scale else ops.convert_to_tensor(1.0, "float32")

    @property
    def stop_requested(self) -> Any:
        """1 where this worker asks all to stop, else 0; scalar float32."""
        return self._stop.value + 0.0

    def halt_at_nonfinite(self, halt: bool) -> None:
        """Sets what happens at the next step without a finite loss, and ends a halt.

        Args:
            halt: True: that step and all later ones change nothing until this is called again, so that the host finds the
                state from before that step. False: that step alone is skipped.
        """
        self._halts.assign(float(halt))
        self._halted.assign(0.0)

    def request_stop(self) -> None:
        """Asks all workers to stop: from the next step on every worker's results say so."""
        self.asks_to_stop = True
        self._stop.assign(1.0)

    def apply(self, gradients: Sequence[Any], loss: Any | None = None) -> dict[str, Any]:
        """Takes one step with `update` on each device; call it in replica context. Arguments and results are those of `update`."""
        return self.on_each_device(self.update, gradients, loss)

    def on_each_device(self, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Calls a function once on each device, where it may assign this device's copy of any variable.

        Call this in replica context.

        Args:
            function: (*args) -> name -> tensor. All devices have to return the same.
            args: of this replica.
        """

        def call(strategy: Any, *args: Any) -> dict[str, tuple[Any, ...]]:
            # Any variable would do: it only tells which devices there are.
            place = self.rule.iterations.value
            return strategy.extended.update(place, lambda _, *own: function(*own), args=args, group=False)

        import tensorflow as tf

        results = tf.distribute.get_replica_context().merge_call(call, args=args)
        return {name: values[0] for name, values in results.items()}

    def update(self, gradients: Sequence[Any], loss: Any | None = None) -> dict[str, Any]:
        """Takes one step, or refuses it: weights and momenta stay as they are when loss or gradients are not finite.

        Infinite gradients of a finite loss do not count as a fault while the loss scale can still fall: the step is not
        taken and the scale is halved. Call this in `on_each_device`; it may be compiled.

        Args:
            gradients: of `loss_scale` times the loss, summed over all replicas, one for each trainable variable.
            loss: scalar without `loss_scale`, summed over all replicas as well; None: only the gradients are looked at.

        Returns:
            Scalars: `grad_norm` (global norm with the L2 term, if it has one, before clipping), `lr`, `skipped` (1 for a fault, else 0),
            and `applied` (bool).
        """
        rate = ops.cast(self.rule.learning_rate, "float32")
        gradients, norm = self._decayed_and_clipped(gradients)
        # Gradients and loss are sums over all replicas, so every replica makes the same decision.
        finite = ops.isfinite(norm)
        fault = ~finite & (self.loss_scale <= 1.0)
        if loss is not None:
            fault |= ~ops.isfinite(loss)
        frozen = (self._halted.value > 0.0) | (fault & (self._halts.value > 0.0))
        applied = finite & ~fault & ~frozen
        # TensorFlow would join the factors of clipping and learning rate to one, which rounds otherwise. Not across a choice.
        gradients = [ops.where(applied, gradient, ops.zeros_like(gradient)) for gradient in gradients]
        with assigning_only_where(applied, self.rule):
            for variable, gradient in zip(self.trainable_variables, gradients, strict=True):
                if self._decoupled and decays(variable, self.config.decay_biases):
                    kept = 1.0 - rate * self.config.weight_decay
                    variable.assign(variable.value * ops.where(applied, kept, 1.0))
                self.rule.update_step(gradient, variable, rate)
        self._halted.assign(ops.maximum(self._halted.value, ops.cast(frozen, "float32")))
        self.rule.iterations.assign_add(ops.cast(~frozen, self.rule.iterations.dtype))
        self._move_average(frozen)
        self._rescale(applied, frozen)
        return {"grad_norm": norm, "lr": rate, "skipped": ops.cast(fault, "float32"), "applied": applied}

    def _decayed_and_clipped(self, gradients: Sequence[Any]) -> tuple[list[Any], Any]:
        """Returns the gradients without the loss scale, decayed and clipped, and their norm before they are clipped."""
        gradients = [ops.convert_to_tensor(gradient) / self.loss_scale for gradient in gradients]
        gradients = [
            gradient + self.config.weight_decay * variable.value
            if decays(variable, self.config.decay_biases) and not self._decoupled
            else gradient
            for gradient, variable in zip(gradients, self.trainable_variables, strict=True)
        ]
        norm = global_norm(gradients)
        if self.config.clip_norm is not None:
            factor = ops.minimum(1.0, self.config.clip_norm / ops.maximum(norm, 1e-12))
            gradients = [gradient * factor for gradient in gradients]
        return gradients, norm

    def _move_average(self, frozen: Any) -> None:
        if not self.average:
            return
        step = ops.cast(self.rule.iterations.value, "float32")
        # The average takes in new weights faster at first, because it would remember the random start for long.
        keep = ops.minimum(self.config.ema_decay, (1.0 + step) / (10.0 + step))
        share = ops.where(frozen, 0.0, 1.0 - keep)
        for average, variable in zip(self.average, self.trainable_variables, strict=True):
            average.assign_add(share * (variable.value - average.value))

    def _rescale(self, applied: Any, frozen: Any) -> None:
        if not self.scale:
            return
        scale, count = (ops.copy(variable.value) for variable in self.scale)
        grown = count + 1.0 >= GROWTH_STEPS
        moved = ops.where(applied, ops.where(grown, scale * 2.0, scale), ops.maximum(scale / 2.0, 1.0))
        counted = ops.where(applied & ~grown, count + 1.0, 0.0)
        for variable, old, new in zip(self.scale, (scale, count), (moved, counted), strict=True):
            variable.assign(ops.where(frozen, old, new))

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Gives the model the averaged weights in a `with` block, and the trained weights again after it.

        The moving statistics of batch norms are averages already and stay as they are. Without an average this does nothing.
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


def decays(variable: keras.Variable, biases: bool = False) -> bool:
    """Tells whether L2 decay acts on a variable: it acts on kernels, not on gamma and beta of a norm.

    Args:
        variable: that is trained.
        biases: whether it acts on biases too.
    """
    return len(variable.shape) > 1 or (biases and variable.name == "bias")


def _state(value: object, name: str) -> keras.Variable:
    return keras.Variable(value, trainable=False, dtype="float32", name=name)
