"""Builds the networks of keras.applications without their classifier, and tells how each prepares its pixels."""

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

import keras

from kfpn.config.backbone_names import APPLICATIONS, KERAS
from kfpn.modeling.backbones.backbone_model import layers_within
from kfpn.modeling.backbones.channelwise import as_channelwise, copied, has_channelwise
from kfpn.modeling.units import BN_MOMENTUM

STALL_SECONDS = 30.0
"""A download that receives nothing for this time has failed."""


class PixelRule(NamedTuple):
    """How a network prepares the pixels of its images.

    Attributes:
        mean: subtracted from R, G, B in 0..255.
        std: divides what is left.
        bgr: bool, whether the channels are then put into the order B, G, R.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


IMAGENET = PixelRule((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = PixelRule((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), bgr=True)

# keras/src/applications: `preprocess_input` of each module, or the layers that `include_preprocessing=True` adds.
PIXEL_RULES = {
    "convnext": IMAGENET,
    "densenet": IMAGENET,
    "efficientnetv2-b": IMAGENET,
    "efficientnetv2": PixelRule((128.0,) * 3, (128.0,) * 3),
    "mobilenet": PixelRule((127.5,) * 3, (127.5,) * 3),
    "resnet": CAFFE,
}
"""How a name begins -> the rule; the first one that fits counts."""
WITH_OWN_PREPROCESSING = ("convnext", "efficientnetv2", "mobilenet_v3")
"""How the names begin of networks that prepare their pixels themselves, unless they are told not to."""


def pixel_rule(backbone: str) -> PixelRule:
    """Returns how a network, such as `keras:mobilenet_v3_large`, prepares its pixels."""
    name = backbone.removeprefix(KERAS)
    return next(rule for start, rule in PIXEL_RULES.items() if name.startswith(start))


def build_application(backbone: str, weights: str | None = None) -> keras.Model:
    """Builds a network of keras.applications without classifier and preprocessing, under the current dtype policy.

    Its dropout is off (EfficientNetV2's stochastic depth): what is random in a run depends on its seed, its step and the
    image alone, and layers that draw numbers of their own would break that. Convolutions of one channel a group (ConvNeXt) are depthwise
    ones, see `ChannelwiseConv2D`. Its batch norms forget as fast as kfpn's own: MobileNets
    keep .999 of their statistics a step, and after 1000 steps a third of them would still be those of the beginning.

    Args:
        backbone: `keras:` and a name of `APPLICATIONS`.
        weights: "imagenet", which Keras downloads once, or None: random weights.

    Raises:
        ValueError: if the weights can't be downloaded.
    """
    name = backbone.removeprefix(KERAS)
    options = {"include_preprocessing": False} if name.startswith(WITH_OWN_PREPROCESSING) else {}
    make = getattr(keras.applications, APPLICATIONS[name])
    with _told_where_it_fails(backbone, weights):
        model = make(include_top=False, weights=weights, input_shape=(None, None, 3), **options)
    model = _without_dropout_and_groups(model)
    for layer in layers_within(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, BN_MOMENTUM)
    return model


def _without_dropout_and_groups(model: keras.Model) -> keras.Model:
    drops = any(isinstance(layer, keras.layers.Dropout) and layer.rate for layer in model.layers)
    if not drops and not has_channelwise(model):
        return model

    def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.Dropout):
            return type(layer).from_config({**layer.get_config(), "rate": 0.0})
        return as_channelwise(layer)

    return copied(model, copy_layer)


@contextlib.contextmanager
def _told_where_it_fails(backbone: str, weights: str | None) -> Iterator[None]:
    """Tells in one line that a download has failed, in a `with` block."""
    if weights is None:
        yield
        return
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    except Exception as error:  # Keras raises a plain Exception for an address out of reach
        raise ValueError(
            f"the ImageNet weights of {backbone} must be downloaded once by Keras, which failed: {' '.join(str(error).split())}. "
            "Connect this machine, or copy that file from one that has it into the folder models of Keras' own (~/.keras, or "
            "KERAS_HOME), or start from random weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
