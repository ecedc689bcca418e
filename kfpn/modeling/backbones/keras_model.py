"""Builds C2 to C5 of any functional Keras model: a network of keras.applications, a file, or a model that is given."""

from collections.abc import Mapping
from typing import Any

import keras

from kfpn.config.backbone_names import brings_pixel_rule, is_keras_file
from kfpn.config.backbone_settings import UNUSED, own_pixel_field
from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones.applications import build_application, pixel_rule
from kfpn.modeling.backbones.backbone_model import BACKBONE, BackboneModel, adopt
from kfpn.modeling.backbones.fitting_layers import CropToImage, ReverseChannels
from kfpn.modeling.backbones.given_backbone import read_keras_file
from kfpn.modeling.backbones.pixel_preparation import prepares_pixels
from kfpn.modeling.backbones.stage_outputs import STRIDES
from kfpn.modeling.layers import Normalize, PadToMultiple, SharedLayers
from kfpn.modeling.units import Units

STAGES = (BACKBONE,)
"""All layers stand in one, the model. Which of its own are frozen is decided in `backbone_model.freeze`."""


def make_backbone(name: str, config: ModelConfig) -> BackboneModel:
    """Builds the backbone that a configuration names, with fresh weights or, of a file, those in it.

    Args:
        name: of the layer, which is always `BACKBONE`.
        config: the model's.

    Raises:
        ValueError: if a file can't be read, or the model has no maps at strides 4 to 32.
    """
    read = read_keras_file if is_keras_file(config.backbone) else build_application
    return adopt(read(config.backbone), config)


def keras_backbone(units: Units) -> BackboneModel:
    """Returns the model of a detector's backbone, made at the first call."""
    return units.layers(BACKBONE, make_backbone, config=units.config)


def prepare(units: Units, images):
    """Prepares pixels (B, H, W, 3) of 0..255, with the mean colour at 0, so that padding of zeros has that colour.

    A model that prepares its pixels itself gets the mean back in `build`, when images are padded.
    """
    config = units.config
    if not brings_pixel_rule(config.backbone):
        own = prepares_pixels(keras_backbone(units))
        if own:
            _require_no_pixel_rule(config)
        std = (1.0, 1.0, 1.0) if own else config.pixel_std
        return units.layers("centre_pixels" if own else "normalize", Normalize, mean=config.pixel_mean, std=std)(images)
    rule = pixel_rule(config.backbone)
    x = units.layers("prepare_pixels", Normalize, mean=rule.mean, std=rule.std)(images)
    return units.layers("reverse_channels", ReverseChannels)(x) if rule.bgr else x


def _require_no_pixel_rule(config: ModelConfig) -> None:
    if (name := own_pixel_field(config)) is not None:
        raise ValueError(
            f"model.{name} must be left out, got {tuple(getattr(config, name))}: the backbone begins with a layer that prepares "
            "its pixels (Rescaling or Normalization)"
        )


def build(units: Units, images, last: int = 5) -> dict:
    """Applies the model to images that are padded to a multiple of 32, and cuts the maps to the images.

    Padding acts within the model. Its maps are cleared where images have padding.

    Args:
        units: of the graph.
        images: (B, H, W, 3) KerasTensor, from `prepare`.
        last: int, 5: all four maps are there.

    Returns:
        {"C2": (B, ceil(H / 4), ceil(W / 4), C), ...} up to C`last`, with strides 4, 8, 16, 32.
    """
    model = keras_backbone(units)
    x = units.layers("pad_to_multiple", PadToMultiple)(images)
    if not brings_pixel_rule(units.config.backbone) and prepares_pixels(model):
        mean = tuple(-value for value in units.config.pixel_mean)
        x = units.layers("restore_pixels", Normalize, mean=mean, std=(1.0, 1.0, 1.0))(x)
    maps = model(x)
    stages = {}
    for name, stride in list(STRIDES.items())[: last - 1]:
        stages[name] = units.clear_padding(units.layers(name, CropToImage, stride=stride)(maps[name], images), stride)
    return stages


def build_last_stage(units: Units, x):
    """Refuses: no stage of a Keras model can be a box head.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"model.pyramid must not be c4 with backbone {units.config.backbone}")


def unused_settings(name: str) -> tuple[str, ...]:
    """Returns the fields of `ModelConfig` that have no effect: a Keras model's layers are made already."""
    return (*UNUSED, "pixel_mean", "pixel_std") if brings_pixel_rule(name) else UNUSED


def settings_of_layers(layers: Mapping[str, keras.layers.Layer]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a detector with a Keras model as backbone shows; none where there is none."""
    model = layers.get(BACKBONE)
    return {"backbone": model.source} if isinstance(model, BackboneModel) else {}


def insert(layers: SharedLayers, model: keras.Model, config: ModelConfig) -> None:
    """Puts a model that is given into the set of layers that graphs are built over, as their backbone."""
    layers(BACKBONE, lambda name: adopt(model, config))
