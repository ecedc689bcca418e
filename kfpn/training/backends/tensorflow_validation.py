"""Computes the losses of validation images by TensorFlow."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kfpn.data.pipeline import eval_batches, named_errors, truth_specs, with_proposals
from kfpn.data.sample_arrays import truth_rows
from kfpn.training.backends.validated_images import ValidatedImages
from kfpn.training.exact_masks import run_functions
from kfpn.training.sampler_noise import noise_of, with_noise


@dataclass(eq=False)
class TensorFlowValidation(ValidatedImages):
    """Makes batches of validation images with their ground truth by tf.data, and computes their losses."""

    def __post_init__(self) -> None:
        submodels, config = self.submodels, self.config
        losses, self._noise_shapes = run_functions(config)

        def measure(batch: dict[str, tf.Tensor], noise: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return losses(submodels, config, batch, noise, training=False)

        self._losses = tf.function(measure, autograph=False)

    def batches(self, rows: int) -> Iterator[dict[str, tf.Tensor]]:
        """Returns the batches of `rows` images."""
        config = self.config
        batches = eval_batches(self.source, config, config.batch_size, rows).map(self._with_truth)
        if self.proposals is not None:
            batches = with_proposals(batches, self.proposals, config, config.model.post_nms_train, augmented=False)
        return named_errors(with_noise(batches, config, self._noise_shapes))

    def losses(self, batch: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the losses of each image of a batch, (B,) each."""
        inputs, noise = noise_of(batch, self.config, self._noise_shapes)
        return {name: value.numpy() for name, value in self._losses(inputs, noise).items()}

    def _with_truth(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Adds the ground truth to a batch, as training has it, and the numbers of the samples: those of the images."""
        size = batch["record_index"].shape[0]
        specs = truth_specs(max(1, self.source.max_boxes), self.config)
        truth = tf.numpy_function(
            self._truth,
            [batch["record_index"], batch["original_sizes"], batch["image_sizes"]],
            [spec.dtype for spec in specs.values()],
        )
        shaped = {
            name: tf.ensure_shape(value, (size, *spec.shape))
            for (name, spec), value in zip(specs.items(), truth, strict=True)
        }
        return {**batch, **shaped, "sample_index": batch["record_index"]}

    def _truth(self, records: np.ndarray, originals: np.ndarray, sizes: np.ndarray) -> tuple[Any, ...]:
        return truth_rows(self.source, self.config, records, originals, sizes)
