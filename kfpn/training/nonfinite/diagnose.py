"""Finds the first value of a step that is not finite: computes the step once more and looks at every layer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.losses.training_losses import noise_shapes, training_losses
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.nonfinite.computed_step import ComputedStep


@dataclasses.dataclass(frozen=True)
class Finding:
    """Holds the result of a step that was computed once more, on one device.

    Attributes:
        losses: name -> mean over the batch.
        grad_norm: global norm of the gradients before decay and clipping.
        first: the first value that was not finite, in words; None: every value was finite.
    """

    losses: dict[str, float]
    grad_norm: float
    first: str | None

    @property
    def line(self) -> str:
        """The finding as part of a sentence."""
        if self.first is None:
            return "computed once more, layer by layer and on one device, all of it is finite"
        return f"first to go was {self.first}"


def diagnose(
    submodels: Submodels | SegmentSubmodels,
    config: Config,
    batch: Mapping[str, Any],
    scale: Any,
    losses: Callable = training_losses,
    shapes: Callable = noise_shapes,
) -> Finding:
    """Computes the losses and gradients of a step and finds the first value that is not finite.

    The order is: outputs of layers as they are computed, losses, gradients of the outputs from the last layer to the
    first, gradients of the variables. The weights stay as they are; under TensorFlow the statistics of batch norms move.

    Args:
        submodels: of `kfpn.modeling.networks.build_network`.
        config: the run's.
        batch: of the run, with static shapes.
        scale: the loss scale, scalar float32; `grad_norm` is divided by it.
        losses, shapes: see `kfpn.training.step.build_train_step`.

    Returns:
        The losses, the norm of the gradients, and the first value that is not finite.
    """
    if keras.backend.backend() == "jax":
        from kfpn.training.nonfinite.jax_step_by_layers import compute_by_jax as compute
    else:
        from kfpn.training.nonfinite.tensorflow_step_by_layers import compute_by_tensorflow as compute  # type: ignore[no-redef]
    _, height, width, _ = batch["images"].shape
    needed = shapes(config, height, width, batch["gt_boxes"].shape[1])
    step: ComputedStep = compute(submodels, config, batch, needed, scale, losses)
    first = next((_describe_values(place, value) for place, value in step.places() if not _is_finite(value)), None)
    return Finding({name: float(value) for name, value in step.losses.items()}, step.grad_norm, first)


def _is_finite(value: Any) -> bool:
    return value is None or bool(np.isfinite(np.asarray(value)).all())


def _describe_values(place: str, value: Any) -> str:
    values = np.asarray(value).astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    finite = np.abs(values[np.isfinite(values)])
    rest = f"; the largest of the others is {finite.max():.3g}" if finite.size else ""
    return f"{place} ({bad} of {values.size} values{rest})"
