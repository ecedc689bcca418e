"""Reads MSRA's ImageNet ResNets as Caffe2 names them: detectron2's `R-50.pkl` and `R-101.pkl`."""

import dataclasses

import numpy as np

from kfpn.weights.makers.detectron2 import BACKBONE
from kfpn.weights.makers.foreign_arrays import Entry, ForeignArrays, to_tensors
from kfpn.weights.makers.resnet_names import backbone_of, backbone_settings, caffe2_naming, flip_channels, units
from kfpn.weights.makers.trained_weights import TrainedWeights

BLOCK = r"res(?P<stage>\d+)_(?P<block>\d+)_branch2(?P<part>[abc])_w$"
NORM = {"gamma": "s", "beta": "b", "moving_mean": "rm", "moving_variance": "riv"}


def is_caffe2(foreign: ForeignArrays) -> bool:
    """Tells whether arrays have the names that Caffe2 (Detectron, MSRA) gives to a ResNet's."""
    return {"conv1_w", "res2_0_branch2a_w"} <= foreign.arrays.keys()


def read(foreign: ForeignArrays) -> TrainedWeights:
    """Reads a ResNet that takes BGR images, with norms that are reduced to a scale and a bias.

    Args:
        foreign: all arrays of the file.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    # detectron2 reads neither the classifier nor the bias of the stem.
    foreign, dropped = foreign.drop_matching(r"(fc1000|pred)_[wb]$|conv1_b$|.*_momentum$")
    backbone = backbone_of(foreign, BLOCK)
    arrays = dict(foreign.arrays)
    entries = []
    for unit in units(backbone):
        conv, norm = caffe2_naming(unit)
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}_w",), "conv"))
        entries += [Entry(f"{unit.name}_norm/{ours}", (f"{norm}_{theirs}",)) for ours, theirs in NORM.items()]
        # detectron2's FrozenBatchNorm2d takes mean 0 and variance 1 where a file has none.
        shape = np.shape(arrays.get(f"{norm}_s", (0.0,)))
        arrays.setdefault(f"{norm}_rm", np.zeros(shape, np.float32))
        arrays.setdefault(f"{norm}_riv", np.ones(shape, np.float32))
    tensors = flip_channels(to_tensors(dataclasses.replace(foreign, arrays=arrays), entries))
    notes = (f"left out, as detectron2 does: {', '.join(dropped)}",) if dropped else ()
    model = backbone_settings(BACKBONE, backbone, tensors)
    return TrainedWeights(foreign.path, f"Caffe2 (MSRA) {backbone}, ImageNet", model, {}, tensors, notes=notes)
