"""Measures the training losses on the validation data, without augmentation and without a change of any statistic."""

from typing import Any

import numpy as np
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.data.pipeline import eval_batches, named_errors, truth_specs, with_proposals
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.data.sample_arrays import truth_rows
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.training.exact_masks import run_functions
from kfpn.training.sampler_noise import noise_of, with_noise

PREFIX = "val_"
"""What stands before the names of these losses."""


class ValidationLoss:
    """Measures the losses of the current weights.

    The noise of the samplers is that of the image, so equal weights have equal losses. Batch norms use their statistics, as
    in inference.

    Args:
        submodels: of the detector that is trained; make this outside of the strategy's scope.
        config: the run's.
        source: of the validation images.
        proposals: of the same images, for a detector whose RPN is not trained; None: the RPN's.
    """

    def __init__(
        self,
        submodels: Submodels | SegmentSubmodels,
        config: Config,
        source: Source,
        proposals: ProposalTable | None = None,
    ) -> None:
        self.config, self.source, self.proposals = config, source, proposals
        losses, self._noise_shapes = run_functions(config)

        def measure(batch: dict[str, tf.Tensor], noise: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return losses(submodels, config, batch, noise, training=False)

        self._losses = tf.function(measure, autograph=False)

    def measure(self) -> dict[str, float]:
        """Returns `val_loss` and its parts, `val_rpn_class` and so on: means over all images."""
        sums: dict[str, float] = {}
        for batch in named_errors(self._batches()):
            inputs, noise = noise_of(batch, self.config, self._noise_shapes)
            rows = inputs["record_index"].numpy() >= 0
            for name, value in self._losses(inputs, noise).items():
                sums[name] = sums.get(name, 0.0) + float(value.numpy().astype(np.float64)[rows].sum())
        means = {name: value / len(self.source) for name, value in sums.items()}
        return {f"{PREFIX}loss": sum(means.values()), **{f"{PREFIX}{name}": value for name, value in means.items()}}

    def _batches(self) -> tf.data.Dataset:
        config = self.config
        # As many images as one part of a training step has on one device, which are known to fit.
        rows = max(1, config.batch_size // (config.accumulate * (config.cpu_devices or 1)))
        batches = eval_batches(self.source, config, config.batch_size, rows).map(self._with_truth)
        if self.proposals is not None:
            batches = with_proposals(batches, self.proposals, config, config.model.post_nms_train, augmented=False)
        return with_noise(batches, config, self._noise_shapes)

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
