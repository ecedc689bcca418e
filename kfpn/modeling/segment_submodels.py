"""Builds the functional models that carry the weights of a network that proposes segments."""

from typing import NamedTuple

import keras

from kfpn.config.model import ModelConfig
from kfpn.modeling.forms import AS_WRITTEN, Forms
from kfpn.modeling.submodels import image_inputs, shared_features
from kfpn.modeling.window_heads import WindowHead, window_head
from kfpn.ops.segment_windows import window_kinds


class SegmentSubmodels(NamedTuple):
    """The functional models that carry all weights of a network that proposes segments.

    Attributes:
        features, padded_features: as those of `kfpn.modeling.submodels.Submodels`.
        windows: kind of window, "5x5" or "7x7", -> its head.
        weights_model: a model that holds every variable once, for optimizers, saving and loading.
        forms: as that of `Submodels`.
    """

    features: keras.Model
    padded_features: keras.Model
    windows: dict[str, WindowHead]
    weights_model: keras.Model
    forms: Forms = AS_WRITTEN

    @property
    def parts(self) -> dict[str, list[keras.Model]]:
        """The models by the part that they are, those over the same layers together."""
        heads = {model.name: [model] for head in self.windows.values() for model in head}
        return {"features": [self.features, self.padded_features], **heads}


def build_segment_submodels(config: ModelConfig, backbone: keras.Model | None = None) -> SegmentSubmodels:
    """Builds the submodels of a network that proposes segments, with fresh weights.

    Args:
        config: the model's, with task segments.
        backbone: as `kfpn.modeling.submodels.build_submodels` takes it.

    Raises:
        ValueError: if the task is another one, or a Keras model can't be a backbone.
    """
    if config.task != "segments":
        raise ValueError(f"model.task must be segments for segments, got {config.task}: add --task segments")
    _, features, padded_features = shared_features(config, backbone)
    channels = features.output[config.levels[0]].shape[-1]
    windows = {kind: window_head(config, channels, kind) for kind in window_kinds(config)}
    return assemble_segments(features, padded_features, windows)


def assemble_segments(
    features: keras.Model, padded_features: keras.Model, windows: dict[str, WindowHead]
) -> SegmentSubmodels:
    """Returns submodels together with the model that holds each of their variables once.

    Args:
        features, padded_features, windows: see `SegmentSubmodels`.
    """
    images = image_inputs(padded=False)["images"]
    levels, outputs = features(images), []
    level = levels[min(levels)]
    for head in windows.values():
        hidden = head.hidden(level)
        outputs += [head.score(hidden), head.mask(hidden)]
    return SegmentSubmodels(features, padded_features, windows, keras.Model(images, outputs, name="weights"))
