"""Builds backbone and pyramid anew over the same weights, for graphs that TensorFlow's own kernels run."""

from collections.abc import Callable, Iterable
from typing import Any

import keras

from kfpn.config.model import ModelConfig
from kfpn.kernels.convolutions import FoldedConvolution, PlainMaxPooling, PlainPointwise
from kfpn.kernels.islands import Islands, PlainForms
from kfpn.kernels.norms import IslandNorm
from kfpn.modeling.forms import Forms
from kfpn.modeling.layers import PointwiseConv2D, SharedLayers
from kfpn.modeling.submodels import features_model
from kfpn.modeling.units import ConvUnit, Units


class KnownLayers(SharedLayers):
    """The layers of models that were built before; convolutions of 1x1 in their plain form.

    Args:
        models: over one set of layers.
        forms: what stands between convolutions is computed in these.
    """

    def __init__(self, models: Iterable[keras.Model], forms: Forms):
        super().__init__()
        self.forms = forms
        self.originals = {layer.name: layer for model in models for layer in model.layers}

    def __call__(self, name: str, make: Callable[..., keras.layers.Layer], **options: Any) -> keras.layers.Layer:
        """Returns the layer called `name`, or its plain form."""
        original = self.originals[name]
        if not isinstance(original, PointwiseConv2D):
            return original
        return super().__call__(name, lambda name: PlainPointwise(original))


class PlainUnits(Units):
    """Units whose frozen norms are part of the convolution before them."""

    layers: KnownLayers

    def unit(self, x, unit: ConvUnit):
        """Applies a unit; the norm, its ReLU and the mask of the padding are one function, where the norm is not frozen."""
        norm = self.layers.originals[f"{unit.name}_norm"]
        if self._folds() or getattr(norm, "synchronized", False):
            return super().unit(x, unit)
        x = self.conv(x, f"{unit.name}_conv", unit.filters, unit.kernel, unit.step, unit.layer)
        return self._island_norm(norm, x, unit.stride, unit.relu, unit.clear)

    def group_norm(self, x, name: str, stride: int, start: str = "ones"):
        """Applies a group norm as one function."""
        return self._island_norm(self.layers.originals[name], x, stride)

    def _island_norm(self, norm, x, stride: int, relu: bool = False, clear: bool = False):
        layer, mask = IslandNorm(norm, self.layers.forms.island, relu, clear), self.mask(x, stride)
        return layer(x) if mask is None else layer(x, valid=mask)

    def conv_and_norm(self, x, unit: ConvUnit):
        """Applies the convolution and the norm of a unit as one convolution, where the norm does not move."""
        if not self._folds():
            return super().conv_and_norm(x, unit)
        originals = self.layers.originals
        conv, norm = originals[f"{unit.name}_conv"], originals[f"{unit.name}_norm"]
        if unit.kernel > 1 and unit.step > 1:
            x = keras.layers.ZeroPadding2D(unit.kernel // 2)(x)
        return FoldedConvolution(conv, norm)(x)

    def _folds(self) -> bool:
        return self.config.norm == "frozen_bn"

    def max_pool(self, x):
        """Takes the largest of 3x3 cells with stride 2."""
        return PlainMaxPooling()(x)


class InferenceUnits(PlainUnits):
    """Units of a network that does not train: no batch norm moves, so each is part of the convolution before it."""

    def _folds(self) -> bool:
        return self.config.norm != "gn"


def live_form(submodels: Any, config: ModelConfig, training: bool = True) -> Any:
    """Returns submodels over the same weights in the forms of `kfpn.kernels`; what they compute is the same, but for rounding.

    Args:
        submodels: `Submodels` or `SegmentSubmodels`.
        config: the one that they were built with.
        training: False: for inference alone. All batch norms are then part of a convolution, and XLA compiles nothing: it would
            compile each function once for each size of an image.
    """
    units = PlainUnits if training else InferenceUnits
    forms = Islands() if training else PlainForms()
    layers = KnownLayers([submodels.features, submodels.padded_features], forms)
    features, padded_features = (features_model(config, layers, padded, units) for padded in (False, True))
    return submodels._replace(features=features, padded_features=padded_features, forms=forms)
