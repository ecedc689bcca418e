"""keras.applications' ImageNet ResNet-50, 101 and 152 (version 1): strides on the 1x1, BGR, convolutions with biases."""

import re
from collections.abc import Mapping

import numpy as np

from kfpn.weights.makers.resnet_names import applications_naming, backbone_of, backbone_settings, units
from kfpn.weights.makers.trained_weights import Entry, Tensor, TrainedWeights, convert, flip_channels, without

BLOCK = r"conv(?P<stage>\d+)_block(?P<block>\d+)_(?P<part>[123])_conv/kernel$"

# keras.applications.resnet: epsilon 1.001e-5; preprocess_input mode "caffe".
BACKBONE = {
    "stride_on": "1x1",
    "norm_epsilon": 1.001e-5,
    "pixel_mean": (123.68, 116.779, 103.939),
    "pixel_std": (1.0, 1.0, 1.0),
}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def short_names(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {"conv1_conv/kernel": array, ...} of the full paths that an HDF5 file of Keras 2 or 3 has, but for an optimizer's."""
    short = {}
    for name, value in found.items():
        if name.startswith("optimizer_weights/"):
            continue
        parts = re.sub(r":0$", "", name).split("/")
        short["/".join(parts[-2:])] = value
    return short


def is_applications(found: Mapping[str, object]) -> bool:
    """Whether arrays are called as keras.applications calls those of a ResNet."""
    return "conv1_conv/kernel" in found and "conv2_block1_1_conv/kernel" in found


def read(path: str, found: Mapping[str, np.ndarray]) -> TrainedWeights:
    """Understands a ResNet of keras.applications; biases of convolutions are folded into the norms behind them.

    Args:
        path: the file, for messages.
        found: short name -> array, from `short_names`.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    found, classifier = without(found, r"(predictions|probs)/")
    backbone = backbone_of(path, found, BLOCK)
    entries = []
    for unit in units(backbone):
        conv, norm = applications_naming(unit)
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}/kernel",)))
        entries.append(Entry(f"{unit.name}_conv/bias", (f"{conv}/bias",)))
        entries += [Entry(f"{unit.name}_norm/{part}", (f"{norm}/{part}",)) for part in NORM]
    tensors = flip_channels(_fold_biases(path, convert(path, found, entries)))
    model = backbone_settings(BACKBONE, backbone, tensors)
    notes = tuple(f"left out the classifier: {name}" for name in classifier)
    return TrainedWeights(path, f"keras.applications {backbone}, ImageNet", model, {}, tensors, notes=notes)


def _fold_biases(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A norm that subtracts (mean - bias) does what the bias did."""
    folded = dict(tensors)
    for key in tensors:
        if key.endswith("_conv/bias"):
            bias, mean_key = folded.pop(key), key.replace("_conv/bias", "_norm/moving_mean")
            mean = folded[mean_key]
            if bias.shape != mean.shape:
                raise ValueError(
                    f"{path}: {bias.name} must have the shape of {mean.name}, {mean.shape}, got {bias.shape}"
                )
            folded[mean_key] = mean._replace(value=mean.value - bias.value)
    return folded
