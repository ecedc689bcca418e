"""Takes a built detector apart: the settings and the submodels that it was made of, over the same weights."""

from typing import Any

import keras

from kfpn.config.input_config import InputConfig
from kfpn.config.model import ModelConfig
from kfpn.modeling.detector_model import FACTS
from kfpn.modeling.layers import SharedLayers
from kfpn.modeling.submodels import Submodels, assemble, features_model


class BuiltLayers(SharedLayers):
    """Gives the layers of a model that is built, so that another graph over them shares its weights.

    Args:
        model: whose layers are taken, by name.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self._layers.update({layer.name: layer for layer in model.layers})


def settings_of(detector: Any) -> ModelConfig:
    """Returns the settings that a detector was built with.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`, or loaded from a file that one of these was saved in.

    Raises:
        ValueError: if it is another object, proposes segments, comes from a file that holds no settings, or was given names, ids or
            thresholds that are not one for each label.
    """
    settings = getattr(detector, "model_config", None)
    if isinstance(settings, ModelConfig):
        if settings.task == "segments":
            raise ValueError(
                f"detector must be a model of kfpn.build_detector, got {detector.name}, which proposes segments: only kfpn train --task "
                "segments trains it, and only its own outputs can be used (docs/segments.md)"
            )
        _require_one_a_label(detector, settings.num_classes)
        return settings
    made = "a model of kfpn.build_detector or kfpn.load_detector"
    if isinstance(detector, keras.Model) and {"rpn", "box_head"} <= {layer.name for layer in detector.layers}:
        raise ValueError(
            f"detector must be {made}, got {detector.name}, whose file does not say how it was built: files of kfpn 0.1.0 "
            "do not; build the detector anew, and load_weights of the file"
        )
    hint = ": give its attribute `detector`" if hasattr(detector, "detector") else ""  # A model of kfpn.trainable.
    raise ValueError(f"detector must be {made}, got {getattr(detector, 'name', None) or type(detector).__name__}{hint}")


def _require_one_a_label(detector: keras.Model, count: int) -> None:
    for name in FACTS:
        values = getattr(detector, name, None)
        if values is not None and (isinstance(values, str) or len(values) != count):
            got = repr(values) if isinstance(values, str) else len(values)
            raise ValueError(f"detector.{name} must be {count}, one for each label, got {got}")


def input_rule_of(detector: keras.Model) -> InputConfig:
    """Returns the rule by which a detector's images are resized.

    Raises:
        ValueError: if the detector has none, or another object in its place.
    """
    rule = getattr(detector, "input_config", None)
    if rule is None:
        raise ValueError(
            f"detector must have an input_config, the rule by which images are resized, got {detector.name} without one: set "
            "detector.input_config = kfpn.InputConfig(short_side=..., long_side=...)"
        )
    if not isinstance(rule, InputConfig):
        raise ValueError(
            f"detector.input_config must be a kfpn.InputConfig, got a {type(rule).__name__}: set it to kfpn.InputConfig(short_side=..., "
            "long_side=...)"
        )
    return rule


def submodels_of(detector: keras.Model) -> Submodels:
    """Returns the submodels of a detector, over its own weights.

    A detector holds the features either with or without the input `image_sizes`. The other graph is built over the same layers.

    Args:
        detector: as for `settings_of`.

    Raises:
        ValueError: as `settings_of`; or if the detector has no RPN, as one on given proposals.
    """
    config = settings_of(detector)
    models = {layer.name: layer for layer in detector.layers if isinstance(layer, keras.Model)}
    features = {name: models[name] for name in ("features", "padded_features") if name in models}
    if not features or "rpn" not in models:
        raise ValueError(
            f"detector must have features and an RPN, got {detector.name} with {', '.join(models) or 'none'}"
        )
    layers = BuiltLayers(next(iter(features.values())))
    for name in {"features", "padded_features"} - features.keys():
        features[name] = features_model(config, layers, padded=name == "padded_features")
    heads = {name: models[f"{name}_head"] for name in config.heads}
    return assemble(features["features"], features["padded_features"], models["rpn"], heads)
