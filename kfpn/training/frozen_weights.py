"""Warns of layers that are frozen with random weights."""

import warnings

from kfpn.config.backbone_names import is_keras_file, is_keras_model
from kfpn.config.run import Config


def warn_of_frozen_weights(config: Config) -> None:
    """Warns when stages or norms are frozen, because a fresh detector would keep its random weights there."""
    if is_keras_file(config.model.backbone):  # It holds weights, and who made it knows them.
        return
    frozen = []
    if config.model.freeze_stages:
        frozen.append(f"model.freeze_stages {config.model.freeze_stages}")
    if config.model.norm == "frozen_bn":
        frozen.append("model.norm frozen_bn")
    if frozen:
        norm = "bn" if is_keras_model(config.model.backbone) else "gn"
        warnings.warn(
            f"{' and '.join(frozen)} keep what is random in a fresh detector: they are meant for pretrained weights. To train "
            f"from scratch use --model.norm {norm} --model.norm-heads --model.freeze-stages 0",
            stacklevel=3,
        )
