"""Computes the losses of validation images by JAX."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np

from kfpn.data.numpy_batches import stacked_batches
from kfpn.data.proposal_table import rows_of_proposals
from kfpn.data.sample_arrays import EvaluationSamples
from kfpn.training.backends.jax_batches import split_noise, trained_arrays, with_run_noise
from kfpn.training.backends.validated_images import ValidatedImages
from kfpn.training.exact_masks import run_functions


@dataclass(eq=False)
class JaxValidation(ValidatedImages):
    """Makes batches of validation images with their ground truth without TensorFlow, and computes their losses on one device."""

    def __post_init__(self) -> None:
        submodels, config = self.submodels, self.config
        losses, self._noise_shapes = run_functions(config)
        self._variables = list(submodels.weights_model.variables)

        def measure(values: list[Any], batch: dict[str, Any]) -> dict[str, Any]:
            with keras.StatelessScope(list(zip(self._variables, values, strict=True))):
                return losses(submodels, config, *split_noise(batch), training=False)

        self._losses = jax.jit(measure)

    def batches(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of `rows` images."""
        config = self.config
        samples = EvaluationSamples(self.source, config, config.batch_size, truth=True)
        rows_of = None
        if self.proposals is not None:
            rows_of = rows_of_proposals(self.proposals, config, config.model.post_nms_train, augmented=False)
        for batch in stacked_batches(samples, samples.planned(rows)):
            whole = batch if rows_of is None else {**batch, "proposals": rows_of(batch)}
            yield with_run_noise(whole, config, self._noise_shapes)

    def losses(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the losses of each image of a batch, (B,) each."""
        device = jax.local_devices(backend="cpu" if self.config.cpu_devices else None)[0]
        values = jax.device_put([variable.value for variable in self._variables], device)
        placed = jax.device_put(trained_arrays(batch), device)
        return {name: np.asarray(value) for name, value in self._losses(values, placed).items()}
