"""Measures the training losses on the validation data, without augmentation and without a change of any statistic."""

from typing import Any

import numpy as np
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.data.augment import resize_boxes
from kfpn.data.mask_moves import batch_masks, batch_outlines, resize_masks
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.pipeline import eval_batches, named_errors, truth_specs
from kfpn.data.proposal_table import ProposalTable, with_proposals
from kfpn.data.record import Source
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
        self, submodels: Submodels, config: Config, source: Source, proposals: ProposalTable | None = None
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
        shape = len(records), max(1, self.source.max_boxes)
        boxes, labels = np.zeros((*shape, 4), np.float32), np.full(shape, -1, np.int32)
        crowd = np.zeros(shape, np.bool_)
        masks: list[tuple[np.ndarray, np.ndarray]] = []
        for row, index in enumerate(records):
            drawn: ObjectMasks | None = None
            if index >= 0:
                record = self.source[int(index)]
                count = len(record.boxes)
                boxes[row, :count] = resize_boxes(record.boxes, tuple(originals[row]), tuple(sizes[row]))
                labels[row, :count], crowd[row, :count] = record.labels, record.crowd
                drawn = resize_masks(record.masks, tuple(sizes[row].tolist()))
            if self.config.model.mask:
                on_host, rows = self.config.masks_on_host, shape[1]
                masks.append(batch_outlines(drawn, rows) if on_host else batch_masks(drawn, boxes[row], rows))
        return boxes, labels, crowd, *(np.stack(part) for part in zip(*masks, strict=True))
