"""Warns of layers that are frozen with random weights."""

import warnings

from kfpn.config.run import Config


def warn_of_frozen_weights(config: Config) -> None:
    """Warns when stages or norms are frozen, because a fresh detector would keep its random weights there."""
    frozen = []
    if config.model.freeze_stages:
        frozen.append(f"model.freeze_stages {config.model.freeze_stages}")
    if config.model.norm == "frozen_bn":
        frozen.append("model.norm frozen_bn")
    if frozen:
        warnings.warn(
            f"{' and '.join(frozen)} keep what is random in a fresh detector: they are meant for pretrained weights. To train "
            "from scratch use --model.norm gn --model.norm-heads --model.freeze-stages 0",
            stacklevel=3,
        )
