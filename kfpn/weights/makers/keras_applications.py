"""Reads keras.applications' ImageNet ResNet-50, 101 and 152 (version 1): strides on the 1x1, BGR, convolutions with biases."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from kfpn.weights.makers.foreign_arrays import Entry, ForeignArrays, to_tensors
from kfpn.weights.makers.resnet_names import applications_naming, backbone_of, backbone_settings, flip_channels, units
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights

BLOCK = r"conv(?P<stage>\d+)_block(?P<block>\d+)_(?P<part>[123])_conv/kernel$"

# keras.applications.resnet has the epsilon 1.001e-5; the mode "caffe" of its preprocess_input has the means.
BACKBONE = {
    "stride_on": "1x1",
    "norm_epsilon": 1.001e-5,
    "pixel_mean": (123.68, 116.779, 103.939),
    "pixel_std": (1.0, 1.0, 1.0),
}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def short_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shortens the paths inside an HDF5 file of Keras 2 or 3 to "layer/variable", and leaves an optimizer's arrays out.

    Args:
        arrays: path or short name -> array.
    """
    short = {}
    for name, value in arrays.items():
        if name.startswith("optimizer_weights/"):
            continue
        parts = re.sub(r":0$", "", name).split("/")
        short["/".join(parts[-2:])] = value
    return short


def is_applications(foreign: ForeignArrays) -> bool:
    """Tells whether arrays have the names of one of keras.applications' ResNets."""
    return {"conv1_conv/kernel", "conv2_block1_1_conv/kernel"} <= short_names(foreign.arrays).keys()


def read(foreign: ForeignArrays) -> TrainedWeights:
    """Reads a ResNet of keras.applications, and folds the biases of its convolutions into the norms behind them.

    Args:
        foreign: all arrays of the file.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    foreign = dataclasses.replace(foreign, arrays=short_names(foreign.arrays))
    foreign, classifier = foreign.drop_matching(r"(predictions|probs)/")
    backbone = backbone_of(foreign, BLOCK)
    entries = []
    for unit in units(backbone):
        conv, norm = applications_naming(unit)
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}/kernel",)))
        entries.append(Entry(f"{unit.name}_conv/bias", (f"{conv}/bias",)))
        entries += [Entry(f"{unit.name}_norm/{part}", (f"{norm}/{part}",)) for part in NORM]
    tensors = flip_channels(_fold_biases(foreign.path, to_tensors(foreign, entries)))
    model = backbone_settings(BACKBONE, backbone, tensors)
    notes = tuple(f"left out the classifier: {name}" for name in classifier)
    return TrainedWeights(foreign.path, f"keras.applications {backbone}, ImageNet", model, {}, tensors, notes=notes)


def _fold_biases(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Subtracts each convolution's bias from the mean of its norm, which has the same effect as adding the bias."""
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
