"""What a ResNet's convolutions and norms are called: here, in torchvision, detectron2, Caffe2 and keras.applications."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from kfpn.modeling.resnet import BASIC, BLOCKS
from kfpn.weights.checkpoint import Entry, norm_entries


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
    parts = 2 if backbone in BASIC else 3
    for stage, count in enumerate(BLOCKS[backbone], start=2):
        for block in range(count):
            prefix = f"conv{stage}_{block + 1}"
            if block == 0 and not (backbone in BASIC and stage == 2):
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


def pytorch_entries(backbone: str, naming: Naming, prefix: str = "") -> list[Entry]:
    """Entries of a backbone whose arrays are called `.weight`, `.bias`, `.running_mean`, `.running_var`."""
    entries = []
    for unit in units(backbone):
        conv, norm = (prefix + name for name in naming(unit))
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}.weight",), "conv"))
        entries += norm_entries(f"{unit.name}_norm", norm)
    return entries


def backbone_of(path: str, names: Iterable[str], block: str, parts: int | None = None) -> str:
    """Returns which ResNet names belong to, by its blocks.

    Args:
        path: the file, for messages.
        names: of all arrays.
        block: pattern with the groups stage (any numbers that rise), block (from 0 or 1) and part.
        parts: convolutions a block where the pattern's part does not tell them.

    Raises:
        ValueError: if it is none of them.
    """
    found: dict[int, set[int]] = {}
    seen = set()
    for match in filter(None, (re.match(block, name) for name in names)):
        found.setdefault(int(match["stage"]), set()).add(int(match["block"]))
        seen.add(match["part"])
    counts = tuple(len(found[stage]) for stage in sorted(found))
    basic = not seen & {"3", "c"}
    for backbone, blocks in BLOCKS.items():
        if blocks == counts and (backbone in BASIC) == basic:
            return backbone
    raise ValueError(f"{path}: the backbone must be one of {', '.join(BLOCKS)}, got blocks {counts or 'none'} a stage")
