"""The learning rate over a run's steps."""

import math
from typing import Any

import keras
from keras import ops

from kfpn.config.run import OptimizerConfig


@keras.saving.register_keras_serializable("kfpn")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a constant rate with drops, or a cosine down to 0.

    At step s of the warm-up's w the rate is `peak * (f + (1 - f) * s / w)` with f the warm-up factor, times what the
    decay says at s: both run from step 0, as in detectron2's WarmupMultiStepLR.

    Args:
        peak: rate after the warm-up.
        steps: all steps of the run.
        warmup_steps: length of the warm-up; 0: none.
        warmup_factor: share of `peak` at step 0.
        kind: `step` or `cosine`.
        milestones: steps at which `step` multiplies the rate by `decay_factor`.
        decay_factor: see `milestones`.

    Call:
        step: scalar, steps already taken. Returns the rate of the next one, float32.
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
        if kind not in ("step", "cosine"):
            raise ValueError(f"kind must be 'step' or 'cosine', got {kind!r}")
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
            done = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * done)
        if self.kind == "cosine":
            return rate * 0.5 * (1.0 + ops.cos(math.pi * ops.minimum(step / self.steps, 1.0)))
        for milestone in self.milestones:
            rate = ops.where(step >= milestone, rate * self.decay_factor, rate)
        return rate

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


def make_schedule(config: OptimizerConfig, steps: int, batch_size: int) -> WarmupSchedule:
    """Returns the schedule of a run of `steps` steps, its peak by the linear rule (Goyal et al. 2017)."""
    return WarmupSchedule(
        peak=config.learning_rate * batch_size / config.reference_batch,
        steps=steps,
        warmup_steps=config.warmup_steps,
        warmup_factor=config.warmup_factor,
        kind=config.schedule,
        milestones=tuple(round(share * steps) for share in config.milestones),
        decay_factor=config.decay_factor,
    )
