"""Warns of layers that are frozen with random weights."""

import warnings

import keras
import numpy as np

from kfpn.config.backbone_names import is_keras_file, is_keras_model
from kfpn.config.run import Config
from kfpn.weights.built_detector import layers_of


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


def require_what_trains(detector: keras.Model) -> None:
    """Checks that a detector has weights that train, and warns if its frozen layers were never trained.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`.

    Raises:
        ValueError: if all of it is frozen.
    """
    if not detector.trainable_variables:
        raise ValueError(
            f"detector must have layers that train, got {detector.name}, whose layers are all frozen: set detector.trainable = True, or "
            "that of some layers, and compile again"
        )
    frozen = [layer for layer in layers_of(detector).values() if layer.weights and not layer.trainable_variables]
    norms = [layer for layer in frozen if layer.name.endswith("_norm")]
    if norms and all(_is_as_made(variable) for layer in norms for variable in layer.weights):
        warnings.warn(
            f"{len(frozen)} layers of the backbone are frozen and have random weights, {frozen[0].name} and others: load trained weights "
            '(kfpn.load_weights), or build_detector(..., norm="gn", norm_heads=True, freeze_stages=0) to train from scratch',
            stacklevel=3,
        )


def _is_as_made(variable: keras.Variable) -> bool:
    """Tells whether a variable of a norm has the value that it was made with: 0 or 1 everywhere."""
    values = keras.ops.convert_to_numpy(variable)
    return bool(np.all(values == 0.0) or np.all(values == 1.0))
