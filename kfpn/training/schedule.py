"""Computes the learning rate of each step of a run."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kfpn.config.optimizer_config import OptimizerConfig
from kfpn.training.step_plan import Decision, warmup_end


@keras.saving.register_keras_serializable("kfpn")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Raises the rate linearly in a warm-up and multiplies it by what a schedule of `SCHEDULES` says.

    At step s of a warm-up of w steps the rate is `peak * (f + (1 - f) * s / w)` with f the warm-up factor, times the factor
    of the schedule at s. Both count from step 0, as in detectron2's WarmupMultiStepLR.

    Args:
        peak: rate after the warm-up.
        steps: number of steps of the run.
        warmup_steps: length of the warm-up; 0: none.
        warmup_factor: share of `peak` at step 0.
        kind: name of a schedule, a key of `SCHEDULES`.
        milestones: steps at which the schedule `step` multiplies the rate by `decay_factor`.
        decay_factor: see `milestones`.

    Call:
        step: scalar, number of steps taken. Returns the rate of the next step, scalar float32.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup_steps: int = 0,
        warmup_factor: float = 0.0,
        kind: str = "step",
        milestones: tuple[int, ...] = (),
        decay_factor: float = 0.1,
    ):
        super().__init__()
        if kind not in SCHEDULES:
            raise ValueError(f"kind must be {' or '.join(map(repr, SCHEDULES))}, got {kind!r}")
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor
        self.kind = kind
        self.milestones = tuple(milestones)
        self.decay_factor = decay_factor

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`."""
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.peak, "float32")
        if self.warmup_steps:
            done = ops.minimum(self.warmed(step), 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * done)
        return SCHEDULES[self.kind](self, rate, self.place(step))

    def warmed(self, step: Any) -> Any:
        """Returns the share of the warm-up that is done at `step`, scalar float32; it may be above 1."""
        return step / self.warmup_steps

    def place(self, step: Any) -> Any:
        """Returns where the run is at `step`, on a scale from 0 to `steps`, scalar float32."""
        return step

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "kind": self.kind,
            "milestones": self.milestones,
            "decay_factor": self.decay_factor,
        }


@keras.saving.register_keras_serializable("kfpn")
class PlannedSchedule(WarmupSchedule):
    """The same for a run whose number of steps is planned while it trains: the rate is a function of the share that is done.

    Until the first plan nothing but the warm-up moves the rate. Each plan goes on from where the one before has led, so the
    rate does not jump. Make it inside `strategy.scope()`: it has variables.

    Args:
        peak, warmup_steps, warmup_factor, kind, decay_factor: see `WarmupSchedule`.
        steps: the scale of `milestones`.
        milestones: see `WarmupSchedule`.

    Attributes:
        done: three scalars: a step, the share of the run that is done there, and what each step from there on adds to it.
        warm: the same for the warm-up.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.done = [_scalar(value, f"done_{i}") for i, value in enumerate((0.0, 0.0, 0.0))]
        each = 1.0 / max(1, self.warmup_steps)
        self.warm = [_scalar(value, f"warm_{i}") for i, value in enumerate((0.0, 0.0, each))]

    def follow(self, decision: Decision, first: Decision) -> None:
        """Takes a plan.

        Args:
            decision: the plan that holds from now on.
            first: the first one of the run, which may have cut the warm-up.
        """
        each = (1.0 - decision.share) / (decision.last - decision.step)
        _assign(self.done, (decision.step, decision.share, each))
        if first.step < self.warmup_steps:
            warm = first.step / self.warmup_steps
            end = warmup_end(first, self.warmup_steps)
            _assign(self.warm, (first.step, warm, (1.0 - warm) / (end - first.step)))

    def warmed(self, step: Any) -> Any:
        """Returns the share of the warm-up that is done at `step`."""
        return _line(self.warm, step)

    def place(self, step: Any) -> Any:
        """Returns where the run is at `step`, on a scale from 0 to `steps`."""
        return ops.minimum(_line(self.done, step), 1.0) * self.steps


def _scalar(value: float, name: str) -> keras.Variable:
    return keras.Variable(value, trainable=False, dtype="float32", name=name)


def _assign(variables: list[keras.Variable], values: tuple[float, float, float]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _line(variables: list[keras.Variable], step: Any) -> Any:
    since, share, each = (ops.convert_to_tensor(variable) for variable in variables)
    return share + each * (step - since)


def step_decay(schedule: WarmupSchedule, rate: Any, step: Any) -> Any:
    """Multiplies a rate by `decay_factor` for each milestone that is reached.

    Args:
        schedule: holds the settings.
        rate: scalar float32, the rate before decay.
        step: scalar float32, number of steps taken.
    """
    for milestone in schedule.milestones:
        rate = ops.where(step >= milestone, rate * schedule.decay_factor, rate)
    return rate


def cosine_decay(schedule: WarmupSchedule, rate: Any, step: Any) -> Any:
    """Multiplies a rate by half a cosine that falls from 1 to 0 over the steps of the run; arguments as in `step_decay`."""
    return rate * 0.5 * (1.0 + ops.cos(math.pi * ops.minimum(step / schedule.steps, 1.0)))


SCHEDULES: dict[str, Callable[[WarmupSchedule, Any, Any], Any]] = {"step": step_decay, "cosine": cosine_decay}
"""Value of `optimizer.schedule` -> (schedule, rate, step) -> rate."""


PLACES = 100_000
"""The scale on which a planned run counts what is done."""


def make_schedule(config: OptimizerConfig, steps: int | None, batch_size: int) -> WarmupSchedule:
    """Makes the schedule of a run, with the peak that the linear rule gives (Goyal et al. 2017).

    Args:
        config: the run's.
        steps: number of steps of the run; None: they are planned while it trains.
        batch_size: images of one step.
    """
    kind = WarmupSchedule if steps is not None else PlannedSchedule
    steps = PLACES if steps is None else steps
    return kind(
        peak=config.learning_rate * batch_size / config.reference_batch,
        steps=steps,
        warmup_steps=config.warmup_steps,
        warmup_factor=config.warmup_factor,
        kind=config.schedule,
        milestones=tuple(round(share * steps) for share in config.milestones),
        decay_factor=config.decay_factor,
    )
