"""Reads the ImageNet weights of a network of keras.applications that is a backbone as it is, by Keras' own download."""

from typing import Any

import keras

from kfpn.config.backbone_names import APPLICATIONS, KERAS
from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones.applications import build_application
from kfpn.modeling.backbones.backbone_model import adopt
from kfpn.weights.built_detector import variables_in_order
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights
from kfpn.weights.pretrained import list_pretrained


def is_application(source: str) -> bool:
    """Tells whether a source of weights is a network of keras.applications that has no row in `list_pretrained()`.

    The ResNets have one: their weights fit kfpn's own ResNets.
    """
    known = {entry.name for entry in list_pretrained()}
    return source.startswith(KERAS) and source.removeprefix(KERAS) in APPLICATIONS and source not in known


def brought_by_application(source: str) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that come with the ImageNet weights of a network, `keras:NAME`."""
    return {"backbone": source, "norm": "frozen_bn"}


def read_application(source: str) -> TrainedWeights:
    """Reads the ImageNet weights of a network, `keras:NAME`, which Keras downloads once.

    Raises:
        ValueError: if they can't be downloaded.
    """
    settings = brought_by_application(source)
    backbone = adopt(build_application(source, "imagenet"), ModelConfig(**settings))
    tensors = {
        key: Tensor(key, keras.ops.convert_to_numpy(variable), tuple(variable.shape))
        for key, variable in variables_in_order(backbone).items()
    }
    return TrainedWeights(source, f"{source.replace(KERAS, 'keras.applications ')}, ImageNet", settings, {}, tensors)
