"""Opens the backbone that a call of `build_detector` or a file gives."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from kfpn.config.backbone_names import backbone_module, brings_pixel_rule, is_keras_file, require_keras_file
from kfpn.modeling.backbones.applications import build_application
from kfpn.modeling.backbones.backbone_model import has_frozen_norms
from kfpn.modeling.backbones.channelwise import as_channelwise, copied, has_channelwise
from kfpn.modeling.backbones.pixel_preparation import unseen_preparation
from kfpn.modeling.backbones.stage_outputs import require_images_of_any_size

ALL_TRAINS: dict[str, Any] = {"norm": "bn", "freeze_stages": 0}
"""Settings with which what trains in a model trains: `build_detector` has them where nobody says that the weights are trained."""


def require_channels_last() -> None:
    """Checks that Keras makes layers whose last axis is that of the channels: all layers of kfpn are such.

    Raises:
        ValueError: if it was told otherwise, by a call or in keras.json.
    """
    if (got := keras.config.image_data_format()) != "channels_last":
        raise ValueError(
            f"keras.config.image_data_format() must be 'channels_last', got {got!r}: call keras.config.set_image_data_format('channels_last'), "
            "or set it in keras.json"
        )


def read_keras_file(path: str) -> keras.Model:
    """Reads a Keras model of a file.

    Raises:
        ValueError: naming the file, if it is not there, is none, or needs classes that nobody has registered.
    """
    require_keras_file(path)
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many types for a file that it can't read
        first = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(
            f"model.backbone must be a file that model.save() of Keras wrote, got {path!r}: {first} Classes of your own must be "
            "registered (keras.saving.register_keras_serializable) and imported before: call kfpn.train in Python for that"
        ) from error
    require_images_of_any_size(model)
    return copied(model, as_channelwise) if has_channelwise(model) else model


def opened(
    backbone: str | os.PathLike | keras.Model, weights: str | None, settings: Mapping[str, Any]
) -> tuple[str, keras.Model | None, dict[str, Any]]:
    """Returns what a call of `build_detector` asks for: the backbone's name, its model if there is one yet, and the settings.

    Args:
        backbone: a name, a file or a model.
        weights: "imagenet" or None.
        settings: fields of `ModelConfig` that the call gives. `backbone_layers` may be a list of names.

    Raises:
        ValueError: for weights that the backbone does not have, and for a frozen model with settings that would freeze it.
    """
    require_channels_last()
    settings = dict(settings)
    backbone = os.fspath(backbone) if isinstance(backbone, os.PathLike) else backbone
    if isinstance(layers := settings.get("backbone_layers"), list | tuple):
        settings["backbone_layers"] = ",".join(layers)
    is_application = isinstance(backbone, str) and brings_pixel_rule(backbone)
    if weights is not None and not (weights == "imagenet" and is_application):
        raise ValueError(
            f"weights must be None, or 'imagenet' with a backbone keras:NAME, got {weights!r} with {_name_of(backbone)}: "
            "kfpn.load_weights(model, ...) loads weights of a detector, or of a ResNet"
        )
    if is_application:
        backbone_module(backbone)
        if weights is None:
            return backbone, None, {**ALL_TRAINS, **settings}
        return backbone, build_application(backbone, weights), settings
    if isinstance(backbone, str) and not is_keras_file(backbone):
        return backbone, None, settings
    model = read_keras_file(backbone) if isinstance(backbone, str) else backbone
    require_images_of_any_size(model)
    if not model.trainable_weights:
        for name in ("norm", "freeze_stages"):
            if name in settings:
                raise ValueError(
                    f"{name} must be left out with a frozen backbone, got {settings[name]!r} with {model.name}, in which nothing "
                    "trains: leave it out, or set trainable = True on the model before"
                )
    _warn_of_preparation(model, settings)
    frozen = {"norm": "frozen_bn"} if has_frozen_norms(model) else {}
    return _name_of(backbone), model, {**ALL_TRAINS, **frozen, **settings}


def _warn_of_preparation(model: keras.Model, settings: Mapping[str, Any]) -> None:
    if {"pixel_mean", "pixel_std"} & settings.keys() or (step := unseen_preparation(model)) is None:
        return
    warnings.warn(
        f"backbone {model.name} seems to prepare its pixels by {step}, which is not its first layer, so it gets pixels normalized as "
        "ImageNet's: if it wants 0..255, give pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1), or begin it with a Rescaling layer",
        stacklevel=4,
    )


def _name_of(backbone: str | keras.Model) -> str:
    return backbone if isinstance(backbone, str) else f"{getattr(backbone, 'name', backbone)}.keras"
