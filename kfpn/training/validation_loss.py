"""Measures the training losses on the validation data, without augmentation and without a change of any statistic."""

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels

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
        self.config, self.source = config, source
        if keras.backend.backend() == "jax":
            from kfpn.training.backends.jax_validation import JaxValidation as Validation
        else:
            from kfpn.training.backends.tensorflow_validation import TensorFlowValidation as Validation  # type: ignore[assignment]
        self._validation = Validation(submodels, config, source, proposals)

    def measure(self) -> dict[str, float]:
        """Returns `val_loss` and its parts, `val_rpn_class` and so on: means over all images."""
        sums: dict[str, float] = {}
        config = self.config
        # As many images as one part of a training step has on one device, which are known to fit.
        size = max(1, config.batch_size // (config.accumulate * (config.cpu_devices or 1)))
        for batch in self._validation.batches(size):
            rows = np.asarray(batch["record_index"]) >= 0
            for name, value in self._validation.losses(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value.astype(np.float64)[rows].sum())
        means = {name: value / len(self.source) for name, value in sums.items()}
        return {f"{PREFIX}loss": sum(means.values()), **{f"{PREFIX}{name}": value for name, value in means.items()}}
