"""Takes a functional Keras model over as a detector's backbone: its part up to C5, with frozen layers as configured."""

from collections.abc import Iterator
from typing import Any

import keras

from kfpn.config.backbone_settings import names_of_layers
from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones.stage_outputs import STRIDES, maps_by_stride, stage_outputs

BACKBONE = "backbone"
"""Name of the layer that a Keras model is in a detector."""

MOVING = tuple(
    getattr(keras.layers, name)
    for name in (
        "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop", "RandomShear", "RandomPerspective",
        "RandomElasticTransform",
    )
    if hasattr(keras.layers, name)
)  # fmt: skip
"""Layers of Keras that move pixels in training. Some of them came with later versions of Keras."""


@keras.saving.register_keras_serializable("kfpn")
class BackboneModel(keras.Model):
    """A functional model of images (B, H, W, 3) -> {"C2": (B, H / 4, W / 4, C), ..., "C5"}, H and W multiples of 32.

    Attributes:
        source: str, what `ModelConfig.backbone` calls it; it travels with the file.
    """

    source = ""

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration of the functional model, and `kfpn`: where it comes from."""
        return {**super().get_config(), "kfpn": {"source": self.source}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "BackboneModel":
        """Builds the model of a configuration."""
        config = dict(config)
        facts = config.pop("kfpn", {})
        model = super().from_config(config, custom_objects=custom_objects)
        model.source = facts.get("source", "")
        return model


def adopt(model: keras.Model, config: ModelConfig) -> BackboneModel:
    """Returns the part of a model up to C5, over the same layers and weights, with frozen layers as configured.

    Args:
        model: functional, see `stage_outputs`.
        config: `norm`, `freeze_stages` and `backbone_layers` count.

    Raises:
        ValueError: if it has no such maps, see `stage_outputs`; if it moves pixels in training; or if its norms are frozen and `norm`
            says that they train.
    """
    if config.norm != "frozen_bn" and has_frozen_norms(model):
        raise ValueError(
            f"model.norm must be frozen_bn with backbone {config.backbone}, got {config.norm!r}: its batch norms are frozen "
            "(trainable = False). To train them, set trainable = True on these layers before"
        )
    layers = None if config.backbone_layers is None else names_of_layers(config.backbone_layers)
    backbone = BackboneModel(model.inputs[0], stage_outputs(model, layers), name=BACKBONE)
    backbone.source = config.backbone
    _require_pixels_in_place(backbone)
    freeze(backbone, config)
    return backbone


def _require_pixels_in_place(backbone: BackboneModel) -> None:
    for layer in layers_within(backbone):
        if isinstance(layer, MOVING):
            raise ValueError(
                f"backbone must leave all pixels in their places, got layer {layer.name}, a {type(layer).__name__}: boxes don't move with it. "
                "Take it out; kfpn.InputConfig(flip=0.5, crop=0.5) moves images together with their boxes"
            )


def freeze(backbone: BackboneModel, config: ModelConfig) -> None:
    """Freezes the lowest stages and the batch norms of a backbone as configured; what is frozen already stays so."""
    maps, count = backbone.output, config.freeze_stages
    if count:
        # The stem ends with the first map of stride 4, conv2_x with the last one, which is C2.
        top = next(iter(maps_by_stride(backbone)[STRIDES["C2"]].values())) if count == 1 else maps[f"C{count}"]
        for layer in keras.Model(backbone.inputs, top).layers:
            layer.trainable = False
    for layer in layers_within(backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            if config.norm == "frozen_bn":
                layer.trainable = False
            layer.synchronized = layer.synchronized or config.norm == "sync_bn"


def has_frozen_norms(model: keras.Model) -> bool:
    """Tells whether a model has batch norms, and none of them trains."""
    norms = [layer for layer in layers_within(model) if isinstance(layer, keras.layers.BatchNormalization)]
    return bool(norms) and not any(layer.trainable for layer in norms)


def layers_within(layer: keras.layers.Layer, known: set[int] | None = None) -> Iterator[keras.layers.Layer]:
    """Yields a layer and all layers within it, each once: those of nested models, and those that are attributes of layers."""
    known = set() if known is None else known
    if id(layer) in known:
        return
    known.add(id(layer))
    yield layer
    inner = [*getattr(layer, "layers", []), *keras.tree.flatten([v for v in vars(layer).values() if _may_hold(v)])]
    for part in inner:
        if isinstance(part, keras.layers.Layer):
            yield from layers_within(part, known)


def _may_hold(value: Any) -> bool:
    return isinstance(value, keras.layers.Layer | list | tuple | dict)
