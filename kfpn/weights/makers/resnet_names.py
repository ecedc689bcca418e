"""Maps the names of a ResNet's convolutions and norms: kfpn's, torchvision's, detectron2's, Caffe2's and keras.applications'."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kfpn.modeling.backbones.resnet import RESNETS, find_resnet
from kfpn.weights.makers.foreign_arrays import Entry, ForeignArrays, to_tensors
from kfpn.weights.makers.trained_weights import Tensor

PYTORCH_NORM = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
"""kfpn's variables of a batch norm -> PyTorch's."""


class Unit(NamedTuple):
    """One convolution with its norm.

    Attributes:
        name: kfpn's name: `stem`, `conv2_1_1`, `conv2_1_shortcut`.
        stage: 2..5; 1 for the stem.
        block: counted from 0.
        part: 1, 2, 3; 0 for the shortcut.
    """

    name: str
    stage: int
    block: int
    part: int


def units(backbone: str) -> Iterator[Unit]:
    """Yields the units of a ResNet, from the stem upward.

    Args:
        backbone: a name in `RESNETS`.
    """
    yield Unit("stem", 1, 0, 1)
    resnet = RESNETS[backbone]
    parts = 2 if resnet.is_basic else 3
    for stage, count in enumerate(resnet.counts, start=2):
        for block in range(count):
            prefix = f"conv{stage}_{block + 1}"
            if block == 0 and not (resnet.is_basic and stage == 2):
                yield Unit(f"{prefix}_shortcut", stage, block, 0)
            for part in range(1, parts + 1):
                yield Unit(f"{prefix}_{part}", stage, block, part)


Naming = Callable[[Unit], tuple[str, str]]
"""Unit -> the names of its convolution and of its norm."""


def torchvision_naming(unit: Unit) -> tuple[str, str]:
    """Names a unit `layer1.0.conv1`, `layer1.0.bn1`; a shortcut `layer1.0.downsample.0`, `.1`."""
    if unit.stage == 1:
        return "conv1", "bn1"
    block = f"layer{unit.stage - 1}.{unit.block}"
    return (
        (f"{block}.conv{unit.part}", f"{block}.bn{unit.part}")
        if unit.part
        else (f"{block}.downsample.0", f"{block}.downsample.1")
    )


def detectron2_naming(unit: Unit) -> tuple[str, str]:
    """Names a unit `res2.0.conv1`, `res2.0.conv1.norm`; a shortcut `res2.0.shortcut`; the stem `stem.conv1`."""
    part = f"conv{unit.part}" if unit.part else "shortcut"
    name = "stem.conv1" if unit.stage == 1 else f"res{unit.stage}.{unit.block}.{part}"
    return name, f"{name}.norm"


def caffe2_naming(unit: Unit) -> tuple[str, str]:
    """Names a unit `res2_0_branch2a`, `res2_0_branch2a_bn`; a shortcut `res2_0_branch1`; the stem `conv1`, `res_conv1_bn`."""
    if unit.stage == 1:
        return "conv1", "res_conv1_bn"
    name = f"res{unit.stage}_{unit.block}_branch" + (f"2{'abc'[unit.part - 1]}" if unit.part else "1")
    return name, f"{name}_bn"


def applications_naming(unit: Unit) -> tuple[str, str]:
    """Names a unit `conv2_block1_1_conv`, `conv2_block1_1_bn`, with part 0 for a shortcut; the stem `conv1_conv`, `conv1_bn`."""
    name = "conv1" if unit.stage == 1 else f"conv{unit.stage}_block{unit.block + 1}_{unit.part}"
    return f"{name}_conv", f"{name}_bn"


def backbone_of(foreign: ForeignArrays, block: str) -> str:
    """Returns the name of the ResNet that arrays belong to, found by the number of its blocks.

    Args:
        foreign: the arrays.
        block: a regular expression for a convolution's name, with the groups stage (any numbers that rise), block (from 0
            or 1) and part.

    Raises:
        ValueError: if it is none that kfpn has.
    """
    blocks_by_stage: dict[int, set[int]] = {}
    parts = set()
    for match in filter(None, (re.match(block, name) for name in foreign.arrays)):
        blocks_by_stage.setdefault(int(match["stage"]), set()).add(int(match["block"]))
        parts.add(match["part"])
    counts = tuple(len(blocks_by_stage[stage]) for stage in sorted(blocks_by_stage))
    try:
        return find_resnet(counts, is_basic=not parts & {"3", "c"})
    except ValueError as error:
        raise ValueError(f"{foreign.path}: {error}") from error


def backbone_settings(settings: Mapping[str, Any], backbone: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns a maker's settings together with the fields of `ModelConfig` that tell the backbone."""
    width = tensors["stem_conv/kernel"].value.shape[-1]
    return {**settings, "norm": "frozen_bn", "backbone": backbone, "backbone_width": width}


@dataclasses.dataclass(frozen=True)
class PyTorchNames:
    """The names that a maker gives to a ResNet's tensors in PyTorch.

    Attributes:
        block: a regular expression, see `backbone_of`.
        naming: gives the names of a unit's convolution and norm, without the prefix.
        prefix: stands before all names of the backbone.
    """

    block: str
    naming: Naming
    prefix: str = ""


def read_pytorch(
    foreign: ForeignArrays, names: PyTorchNames, settings: Mapping[str, Any], others: Sequence[Entry] = ()
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Takes the arrays of a backbone with PyTorch's names, and of the layers behind it, to their variables.

    Args:
        foreign: the arrays of all of these layers.
        names: of the backbone.
        settings: the fields of `ModelConfig` that the maker's backbones have in common.
        others: the entries of the other layers.

    Returns:
        The tensors, and the fields of `ModelConfig` of the backbone.

    Raises:
        ValueError: if it is no plain ResNet, or tensors are missing or left over.
    """
    backbone = backbone_of(foreign, names.block)
    named = {unit.name: [names.prefix + name for name in names.naming(unit)] for unit in units(backbone)}
    _require_plain_resnet(foreign, *(f"{named[unit][0]}.weight" for unit in ("stem", "conv2_1_2")))
    entries = list(others)
    for unit, (conv, norm) in named.items():
        entries.append(Entry(f"{unit}_conv/kernel", (f"{conv}.weight",), "conv"))
        entries += [Entry(f"{unit}_norm/{ours}", (f"{norm}.{theirs}",)) for ours, theirs in PYTORCH_NORM.items()]
    tensors = to_tensors(foreign, entries)
    return tensors, backbone_settings(settings, backbone, tensors)


def _require_plain_resnet(foreign: ForeignArrays, stem: str, second: str) -> None:
    # ResNeXt splits its 3x3 convolutions into groups, and a wide ResNet has more channels there than in its stem.
    width, shape = (np.shape(foreign.arrays.get(name, ())) for name in (stem, second))
    if len(shape) == 4 and len(width) == 4 and (shape[1] != shape[0] or shape[0] != width[0]):
        raise ValueError(
            f"{foreign.path}: the backbone must be a plain ResNet, got {second} {shape}: ResNeXt and wide ResNets are not supported"
        )


def flip_channels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Makes a stem that was trained on BGR images take RGB ones: its numbers are the same, in another order."""
    stem = tensors["stem_conv/kernel"]
    return {**tensors, "stem_conv/kernel": stem._replace(value=stem.value[:, :, ::-1])}
