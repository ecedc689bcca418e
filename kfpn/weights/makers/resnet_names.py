"""What a ResNet's convolutions and norms are called: here, in torchvision, detectron2, Caffe2 and keras.applications."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kfpn.modeling.backbones.resnet import RESNETS, find_resnet
from kfpn.weights.makers.trained_weights import Entry, Tensor, convert, norm_entries


class Unit(NamedTuple):
    """One convolution with its norm.

    Attributes:
        name: kfpn's: `stem`, `conv2_1_1`, `conv2_1_shortcut`.
        stage: 2..5; 1 for the stem.
        block: counted from 0.
        part: 1, 2, 3; 0 for the shortcut.
    """

    name: str
    stage: int
    block: int
    part: int


def units(backbone: str) -> Iterator[Unit]:
    """Yields the units of a ResNet, from below."""
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
"""Unit -> what its convolution and its norm are called."""


def torchvision_naming(unit: Unit) -> tuple[str, str]:
    """`layer1.0.conv1`, `layer1.0.bn1`; `layer1.0.downsample.0`, `.1`."""
    if unit.stage == 1:
        return "conv1", "bn1"
    block = f"layer{unit.stage - 1}.{unit.block}"
    return (
        (f"{block}.conv{unit.part}", f"{block}.bn{unit.part}")
        if unit.part
        else (f"{block}.downsample.0", f"{block}.downsample.1")
    )


def detectron2_naming(unit: Unit) -> tuple[str, str]:
    """`res2.0.conv1`, `res2.0.conv1.norm`; `res2.0.shortcut`; `stem.conv1`."""
    part = f"conv{unit.part}" if unit.part else "shortcut"
    name = "stem.conv1" if unit.stage == 1 else f"res{unit.stage}.{unit.block}.{part}"
    return name, f"{name}.norm"


def caffe2_naming(unit: Unit) -> tuple[str, str]:
    """`res2_0_branch2a`, `res2_0_branch2a_bn`; `res2_0_branch1`; `conv1`, `res_conv1_bn`."""
    if unit.stage == 1:
        return "conv1", "res_conv1_bn"
    name = f"res{unit.stage}_{unit.block}_branch" + (f"2{'abc'[unit.part - 1]}" if unit.part else "1")
    return name, f"{name}_bn"


def applications_naming(unit: Unit) -> tuple[str, str]:
    """`conv2_block1_1_conv`, `conv2_block1_1_bn`; part 0 is the shortcut; `conv1_conv`, `conv1_bn`."""
    name = "conv1" if unit.stage == 1 else f"conv{unit.stage}_block{unit.block + 1}_{unit.part}"
    return f"{name}_conv", f"{name}_bn"


def backbone_of(path: str, names: Iterable[str], block: str) -> str:
    """Returns which ResNet names belong to, by its blocks.

    Args:
        path: the file, for messages.
        names: of all arrays.
        block: pattern with the groups stage (any numbers that rise), block (from 0 or 1) and part.

    Raises:
        ValueError: if it is none of them.
    """
    found: dict[int, set[int]] = {}
    seen = set()
    for match in filter(None, (re.match(block, name) for name in names)):
        found.setdefault(int(match["stage"]), set()).add(int(match["block"]))
        seen.add(match["part"])
    counts = tuple(len(found[stage]) for stage in sorted(found))
    try:
        return find_resnet(counts, is_basic=not seen & {"3", "c"})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def backbone_settings(settings: Mapping[str, Any], backbone: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns a maker's settings with the fields of `ModelConfig` that say which backbone it is."""
    width = tensors["stem_conv/kernel"].value.shape[-1]
    return {**settings, "norm": "frozen_bn", "backbone": backbone, "backbone_width": width}


def read_pytorch(
    path: str,
    found: Mapping[str, np.ndarray],
    block: str,
    naming: Naming,
    settings: Mapping[str, Any],
    prefix: str = "",
    others: Sequence[Entry] = (),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Takes a backbone with PyTorch's names to its place, and the layers behind it.

    Args:
        path: the file, for messages.
        found: name -> array, of all of these layers.
        block: see `backbone_of`.
        naming: of convolutions and norms, behind `prefix`.
        settings: fields of `ModelConfig` of its maker.
        prefix: of all names of the backbone.
        others: entries of the other layers.

    Returns:
        The tensors, and the fields of `ModelConfig` of the backbone.

    Raises:
        ValueError: if it is no plain ResNet, or tensors are missing or left over.
    """
    backbone = backbone_of(path, found, block)
    named = {unit.name: [prefix + name for name in naming(unit)] for unit in units(backbone)}
    _require_plain(path, found, *(f"{named[unit][0]}.weight" for unit in ("stem", "conv2_1_2")))
    entries = list(others)
    for unit, (conv, norm) in named.items():
        entries.append(Entry(f"{unit}_conv/kernel", (f"{conv}.weight",), "conv"))
        entries += norm_entries(f"{unit}_norm", norm)
    tensors = convert(path, found, entries)
    return tensors, backbone_settings(settings, backbone, tensors)


def _require_plain(path: str, found: Mapping[str, np.ndarray], stem: str, second: str) -> None:
    width, shape = (np.shape(found.get(name, ())) for name in (stem, second))
    if len(shape) == 4 and len(width) == 4 and (shape[1] != shape[0] or shape[0] != width[0]):
        raise ValueError(
            f"{path}: the backbone must be a plain ResNet, got {second} {shape}: ResNeXt and wide ResNets are not supported"
        )
