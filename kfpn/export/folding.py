"""Folds batch norms into the convolutions before them: the same numbers with fewer operations."""

from collections.abc import Sequence

import keras
import numpy as np

from kfpn.config.backbone_names import is_keras_model
from kfpn.config.model import ModelConfig
from kfpn.modeling.heads import find_head
from kfpn.modeling.layers import SharedLayers
from kfpn.modeling.segment_submodels import SegmentSubmodels, assemble_segments
from kfpn.modeling.submodels import Submodels, assemble, features_model
from kfpn.modeling.units import Units


class FoldedUnits(Units):
    """Units whose convolutions have the bias that a norm would add. Group norms cannot be folded, and stay."""

    biases = True

    def norm(self, x, name, stride, zero=False):
        """Returns x unchanged: the convolution before has the norm's scale and shift."""
        return x


def fold_norms(submodels: Submodels, config: ModelConfig) -> Submodels:
    """Returns submodels that compute the same without batch norms. The given submodels stay as they are.

    A convolution and the norm y = (x - mean) / sqrt(variance + epsilon) * gamma + beta behind it are one convolution with
    the kernel kernel * scale and the bias beta - mean * scale, where scale = gamma / sqrt(variance + epsilon).

    Args:
        submodels: with their trained weights.
        config: the one they were built with. With norm "gn", and with a Keras model as backbone, the given submodels are returned.
    """
    if stays(config):
        return submodels
    layers = SharedLayers()
    features, padded_features = (features_model(config, layers, padded, FoldedUnits) for padded in (False, True))
    heads = {
        name: find_head(name).build(config, head.input_shape[-1], layers, FoldedUnits)
        for name, head in submodels.heads.items()
    }
    _assign_folded([features, *heads.values()], [submodels.features, *submodels.heads.values()])
    return assemble(features, padded_features, submodels.rpn, heads)


def fold_segment_norms(submodels: SegmentSubmodels, config: ModelConfig) -> SegmentSubmodels:
    """Does what `fold_norms` does for what proposes segments. The layers on windows have no batch norms, and stay."""
    if stays(config):
        return submodels
    layers = SharedLayers()
    features, padded_features = (features_model(config, layers, padded, FoldedUnits) for padded in (False, True))
    _assign_folded([features], [submodels.features])
    return assemble_segments(features, padded_features, submodels.windows)


def stays(config: ModelConfig) -> bool:
    """Tells whether no norms are folded: group norms cannot be, and those of a Keras model as backbone are not."""
    return config.norm == "gn" or is_keras_model(config.backbone)


def _assign_folded(models: Sequence[keras.Model], trained: Sequence[keras.Model]) -> None:
    """Gives the layers of models without norms the weights of the layers of the same names in the trained models."""
    old = {layer.name: layer for model in trained for layer in model.layers}
    for layer in (layer for model in models for layer in model.layers):
        if not layer.weights:
            continue
        weights = [np.array(weight) for weight in old[layer.name].weights]
        norm = old.get(layer.name.removesuffix("_conv") + "_norm")
        if layer.name.endswith("_conv") and norm is not None:
            gamma, beta, mean, variance = (
                np.array(value, np.float64) for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
            )
            scale = gamma / np.sqrt(variance + norm.epsilon)
            weights = [weights[0] * scale, beta - mean * scale]
        for variable, value in zip(layer.weights, weights, strict=True):
            variable.assign(value.astype(np.float32))
