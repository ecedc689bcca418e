"""Reads layers, variables and settings off a detector that has been built."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfpn.config.backbone_names import BACKBONES, is_keras_file
from kfpn.modeling.backbones.backbone_model import BackboneModel

SETTINGS_THAT_MUST_MATCH = (
    "backbone", "norm", "stride_on", "pixel_mean", "pixel_std", "pyramid", "upsampling", "merge",
)  # fmt: skip
"""Fields of `ModelConfig` that change what a network computes so much that its weights are useless with another value."""

SETTINGS_THAT_MAY_DIFFER = (
    "norm_epsilon", "anchor_sizes", "aspect_ratios", "round_anchors", "anchor_strides", "aligned", "sampling_ratio",
    "padding",
)  # fmt: skip
"""Fields of `ModelConfig` that may be changed on purpose: training adapts the weights to the new value."""


def layers_of(model: Any) -> dict[str, keras.layers.Layer]:
    """Returns the layers of a network by name, those of nested models included; a Keras model as backbone counts as one layer.

    Args:
        model: a detector, its `Submodels` or their `weights_model`.
    """
    layers: dict[str, keras.layers.Layer] = {}
    for layer in getattr(model, "weights_model", model).layers:
        nested = isinstance(layer, keras.Model) and not isinstance(layer, BackboneModel)
        layers |= layers_of(layer) if nested else {layer.name: layer}
    return layers


def policy_of(detector: keras.Model) -> str:
    """Returns the name of the dtype policy that a detector was built under: some of its layers are float32 in any case."""
    layers = layers_of(detector).values() if isinstance(detector, keras.Model) else ()
    names = {layer.dtype_policy.name for layer in layers}
    return next((name for name in sorted(names) if name.startswith("mixed_")), "float32")


def variables_of(model: Any) -> dict[str, Any]:
    """Returns the variables of a network as {"layer/variable": variable}, of a Keras model as backbone {"backbone/NUMBER/variable": ...}.

    Args:
        model: a detector, its `Submodels` or their `weights_model`.
    """
    variables: dict[str, Any] = {}
    for name, layer in layers_of(model).items():
        in_order = isinstance(layer, BackboneModel)
        variables |= variables_in_order(layer) if in_order else {f"{name}/{v.name}": v for v in layer.weights}
    return variables


def variables_in_order(backbone: BackboneModel) -> dict[str, Any]:
    """Returns the variables of a Keras model as backbone, as `variables_of` calls them.

    The names of layers that others wrote may count the layers that a process has made, and may repeat. Their order is fixed.
    """
    return {f"{backbone.name}/{i:04d}/{variable.name}": variable for i, variable in enumerate(backbone.weights)}


def built_settings(model: keras.Model) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a built detector's layers show, of those that must match or may differ.

    Args:
        model: a detector or `Submodels`.
    """
    layers = layers_of(model)
    settings: dict[str, Any] = {}
    if "normalize" in layers:
        settings |= {"pixel_mean": layers["normalize"].mean, "pixel_std": layers["normalize"].std}
    for backbone in BACKBONES:
        settings |= importlib.import_module(f"kfpn.modeling.backbones.{backbone}").settings_of_layers(layers)
    settings |= _pyramid_settings(layers)
    for layer in (layers[name] for name in ("roi_align", "proposals") if name in layers):
        settings |= {field: getattr(layer, field) for field in SETTINGS_THAT_MAY_DIFFER if hasattr(layer, field)}
    return settings


def _pyramid_settings(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns pyramid, upsampling and merge as far as the layers show them."""
    # The layers have to tell, because two pyramids may have the very same variables.
    levels = layers["roi_align"].levels if "roi_align" in layers else ("P2", "P3")
    if len(levels) == 1:
        return {"pyramid": "finest" if levels[0] == "P2" else levels[0].lower()}
    for name, pyramid in (("merge_2", "fpn"), ("upsample_2", "top_down")):
        if name in layers:
            own = [field for field in ("upsampling", "merge") if hasattr(layers[name], field)]
            return {"pyramid": pyramid, **{field: getattr(layers[name], field) for field in own}}
    return {"pyramid": "bottom_up"} if "lateral_2" in layers else {}


def mismatched_settings(names: Sequence[str], built: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """Describes each setting that a built model and trained weights both have, with values that do not agree.

    Args:
        names: the fields of `ModelConfig` to compare.
        built: the model's settings.
        trained: the settings that the weights were trained with.

    Returns:
        One text a field, such as "stride_on='1x1' (the model has '3x3')".
    """
    return [
        f"{name}={trained[name]!r} (the model has {built[name]!r})"
        for name in names
        if name in built and name in trained and not _agree(built[name], trained[name])
    ]


def _agree(built: Any, trained: Any) -> bool:
    if isinstance(built, (bool, str)):
        # All kinds of batch norm have the same variables, so their weights can be exchanged.
        batch_norms = {"frozen_bn", "bn", "sync_bn"}
        # Two files may hold one network. The shapes of its variables are compared later.
        files = all(isinstance(value, str) and is_keras_file(value) for value in (built, trained))
        return built == trained or {built, trained} <= batch_norms or files
    return len(np.ravel(built)) == len(np.ravel(trained)) and bool(np.allclose(built, trained, rtol=1e-5, atol=1e-8))
