"""Defines the optimizer's options: a frozen dataclass, checked when made, the section `optimizer` of the configuration."""

import dataclasses
from typing import Literal

from kfpn.config.checks import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    check,
    one_of,
    positive,
    whole,
)
from kfpn.config.field_types import require_types

OptimizerName = Literal["sgd", "adamw"]
Schedule = Literal["step", "cosine"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The rule that moves the weights, its learning rate over time, and what is done to gradients and weights."""

    learning_rate: float = 0.02
    """Learning rate for a global batch of `reference_batch` images."""
    reference_batch: int = 16
    """The linear rule: the rate used is learning_rate x batch_size / reference_batch."""
    momentum: float = 0.9
    """Momentum of SGD; with adamw the decay of the mean of the gradients, beta 1."""
    weight_decay: float = 1e-4
    """L2 penalty added to the gradient, not on norms, and on biases only with `decay_biases`. adamw: the share, times the rate, that
    a step takes off these weights."""
    decay_biases: bool = False
    """Biases decay like weights (detectron2, torchvision); the scale and the offset of a norm never do."""
    warmup_steps: int = 1000
    """Steps over which the rate rises linearly at the beginning."""
    warmup_factor: float = 0.001
    """The share of the rate with which it begins."""
    schedule: Schedule = "step"
    """After the warm-up: drops by `decay_factor` at the milestones, or a cosine down to 0."""
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """Where the rate drops, as shares of all steps (the 1x recipe: 60k and 80k of 90k)."""
    decay_factor: float = 0.1
    """Factor by which the rate drops at each milestone."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm, after they are summed over replicas; None: never."""
    ema_decay: float = 0.0
    """Decay a step of an exponential moving average of the weights, used to evaluate and saved; 0: none."""
    name: OptimizerName = "sgd"
    """The rule that moves the weights: SGD with momentum, or AdamW (Loshchilov and Hutter 2019), whose rates are smaller (about 0.001)."""

    def __post_init__(self) -> None:
        require_types(self, "optimizer.")
        check(self, "optimizer.", "learning_rate", POSITIVE)
        check(self, "optimizer.", "reference_batch", whole(1))
        check(self, "optimizer.", "momentum ema_decay", SHARE_BELOW_1)
        check(self, "optimizer.", "weight_decay", NOT_NEGATIVE)
        check(self, "optimizer.", "warmup_steps", whole(0))
        check(self, "optimizer.", "warmup_factor", SHARE)
        check(self, "optimizer.", "name", one_of(OptimizerName))
        check(self, "optimizer.", "schedule", one_of(Schedule))
        rising = lambda v: all(0.0 < m < 1.0 for m in v) and list(v) == sorted(v)  # noqa: E731
        check(self, "optimizer.", "milestones", ("be rising shares of all steps, between 0 and 1", rising))
        check(self, "optimizer.", "decay_factor", SHARE_ABOVE_0)
        check(self, "optimizer.", "clip_norm", ("be positive or None", lambda v: v is None or positive(v)))
