"""Builds the functional models that carry a detector's weights."""

from typing import NamedTuple

import keras

from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import find_backbone, frozen_layers, keras_model
from kfpn.modeling.backbones.given_backbone import require_channels_last
from kfpn.modeling.forms import AS_WRITTEN, Forms
from kfpn.modeling.heads import find_head
from kfpn.modeling.layers import PadToMultiple, SharedLayers
from kfpn.modeling.pyramid import PYRAMIDS
from kfpn.modeling.rpn import rpn_head
from kfpn.modeling.units import Units


class Submodels(NamedTuple):
    """The functional models that carry all weights.

    Attributes:
        features: images (B, H, W, 3) -> {"P2": (B, H / 4, W / 4, C), ..., "P6"}, for images without padding.
        padded_features: the same layers with a second input `image_sizes` (B, 2) int32: padding stays zero on every level,
            or with `padding` "foreign" in the normalised images alone.
        rpn: {"P2": ...} -> {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]}, level by level.
        heads: {"box": (R, 7, 7, C), with pyramid c4 (R, 14, 14, C) -> {"logits": (R, K + 1), "deltas": (R, K, 4)}}.
        weights_model: a model that holds every variable once, for optimizers, saving and loading.
        forms: how what stands between these models is computed.
    """

    features: keras.Model
    padded_features: keras.Model
    rpn: keras.Model
    heads: dict[str, keras.Model]
    weights_model: keras.Model
    forms: Forms = AS_WRITTEN

    @property
    def parts(self) -> dict[str, list[keras.Model]]:
        """The models by the part that they are, those over the same layers together."""
        heads = {head.name: [head] for head in self.heads.values()}
        return {"features": [self.features, self.padded_features], "rpn": [self.rpn], **heads}


def image_inputs(padded: bool = True) -> dict[str, keras.KerasTensor]:
    """Returns the inputs of a functional detector: images (B, H, W, 3) float32, and with `padded` image_sizes (B, 2) int32."""
    inputs = {"images": keras.Input((None, None, 3), name="images", dtype="float32")}
    if padded:
        inputs["image_sizes"] = keras.Input((2,), name="image_sizes", dtype="int32")
    return inputs


def features_model(
    config: ModelConfig, layers: SharedLayers, padded: bool, make_units: type[Units] = Units
) -> keras.Model:
    """Builds the model from images to the pyramid's levels over a set of layers.

    Args:
        config: the model's.
        layers: two graphs over the same set share their weights.
        padded: bool, whether there is the second input `image_sizes` that keeps padding at zero, see `Submodels`.
        make_units: builds the convolutions and norms.

    Raises:
        ValueError: if the pyramid's function does not give the levels that the configuration says.
    """
    inputs = image_inputs(padded)
    units = make_units(config, layers, inputs.get("image_sizes"))
    backbone, pyramid = find_backbone(config.backbone), PYRAMIDS[config.pyramid]
    x = units.clear_padding(backbone.prepare(units, inputs["images"]), 1)
    if config.padding == "foreign":
        # From here on padding counts as image: units without sizes clear nothing, and their norms see all cells.
        x, units = layers("pad_to_multiple", PadToMultiple)(x), make_units(config, layers)
    stages = backbone.build(units, x, pyramid.last_stage)
    levels = pyramid.build(units, list(stages.values()))
    if list(levels) != list(config.levels):
        raise ValueError(
            f"pyramid {config.pyramid} must give the levels {', '.join(config.levels)}, got {', '.join(levels)}: build all of "
            "them, in this order, or say in kfpn/config/model.py (SINGLE_LEVEL, ModelConfig.levels) which it has"
        )
    return keras.Model(inputs if padded else inputs["images"], levels, name="padded_features" if padded else "features")


def shared_features(
    config: ModelConfig, backbone: keras.Model | None = None
) -> tuple[SharedLayers, keras.Model, keras.Model]:
    """Returns a new set of layers, and over it the models `features` and `padded_features` of `Submodels`.

    Args:
        config, backbone: see `build_submodels`.
    """
    require_channels_last()
    layers = SharedLayers(frozen_layers(config))
    if backbone is not None:
        keras_model.insert(layers, backbone, config)
    return layers, features_model(config, layers, False), features_model(config, layers, True)


def build_submodels(config: ModelConfig, backbone: keras.Model | None = None) -> Submodels:
    """Builds the submodels of a detector, with fresh weights.

    Args:
        config: the model's.
        backbone: a functional Keras model, whose layers and weights the detector takes over; None: the one that `config.backbone`
            names.

    Raises:
        ValueError: if the task is not detections, or a Keras model can't be a backbone, see `kfpn.modeling.backbones.stage_outputs`.
    """
    if config.task != "detections":
        raise ValueError(
            f"model.task must be detections for a detector, got {config.task}: kfpn.build_segmenter builds what proposes segments"
        )
    layers, features, padded_features = shared_features(config, backbone)
    channels = features.output[config.levels[0]].shape[-1]
    rpn = rpn_head(config, channels)
    heads = {name: find_head(name).build(config, channels, layers, Units) for name in config.heads}
    return assemble(features, padded_features, rpn, heads)


def assemble(
    features: keras.Model, padded_features: keras.Model, rpn: keras.Model, heads: dict[str, keras.Model]
) -> Submodels:
    """Returns submodels together with the model that holds each of their variables once.

    Args:
        features, padded_features, rpn, heads: see `Submodels`.
    """
    images = image_inputs(padded=False)["images"]
    outputs, inputs = [rpn(features(images))], [images]
    for name, head in heads.items():
        inputs.append(keras.Input(head.input_shape[1:], name="roi_features" if name == "box" else f"{name}_features"))
        outputs.append(head(inputs[-1]))
    return Submodels(features, padded_features, rpn, heads, keras.Model(inputs, outputs, name="weights"))
