"""Checks the settings of a network that its backbone decides over: which of them a Keras model takes."""

from typing import Any

from kfpn.config.backbone_names import KERAS, backbone_module, brings_pixel_rule, is_keras_model

UNUSED = ("backbone_width", "stride_on", "norm_epsilon")
"""Fields of `ModelConfig` that have no effect on a Keras model: its layers are made already."""


def check_backbone(model: Any) -> None:
    """Checks the backbone's name, and the settings that do not go with a Keras model as backbone.

    Args:
        model: a `ModelConfig`.

    Raises:
        ValueError: for an unknown name, or a setting that a Keras model can't follow.
    """
    backbone_module(model.backbone)
    if not is_keras_model(model.backbone):
        if model.backbone_layers is not None:
            raise ValueError(
                f"model.backbone_layers must be left out with backbone {model.backbone}, got {model.backbone_layers!r}: it names "
                "layers of a Keras model"
            )
        return
    if model.norm == "gn":
        raise ValueError(
            f"model.norm must be frozen_bn, bn or sync_bn with backbone {model.backbone}, got 'gn': its norms are its own. "
            "frozen_bn fits pretrained weights, bn trains from scratch"
        )
    if model.pyramid == "c4":
        raise ValueError(
            f"model.pyramid must not be c4 with backbone {model.backbone}: its box head is the last stage of a ResNet of kfpn"
        )
    layers = model.backbone_layers
    if layers is not None and len(names_of_layers(layers)) != 4:
        raise ValueError(
            f"model.backbone_layers must be four names, of C2, C3, C4 and C5, separated by commas, got {layers!r}"
        )
    _check_pixels(model)


def _check_pixels(model: Any) -> None:
    name = own_pixel_field(model) if brings_pixel_rule(model.backbone) else None
    if name is not None:
        default = type(model).__dataclass_fields__[name].default
        raise ValueError(
            f"model.{name} must be {default} with backbone {model.backbone}, got {tuple(getattr(model, name))}: networks of "
            f"{KERAS} prepare their pixels as they were trained, so leave it out"
        )


def own_pixel_field(model: Any) -> str | None:
    """Returns the first field of a `ModelConfig` by which pixels are prepared that has another value than the default; None: there is none."""
    for name in ("pixel_mean", "pixel_std"):
        if tuple(getattr(model, name)) != type(model).__dataclass_fields__[name].default:
            return name
    return None


def names_of_layers(layers: str) -> tuple[str, ...]:
    """Returns the names in the setting `backbone_layers`."""
    return tuple(name.strip() for name in layers.split(",") if name.strip())
