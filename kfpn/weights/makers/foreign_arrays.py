"""Takes the arrays of a maker's file to kfpn's variables: by name, in kfpn's order of axes, with none missing or left over."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kfpn.weights.makers.trained_weights import Layout, Tensor

MOST_LISTED = 20
"""Names in a message, for each way in which arrays do not fit."""


@dataclasses.dataclass(frozen=True)
class ForeignArrays:
    """The arrays of one file, under their maker's names.

    Attributes:
        path: the file, for messages.
        arrays: name -> array.
        author: what the file says of its author: "torchvision" for backbones that detectron2 converted; "" for nothing.
    """

    path: str
    arrays: Mapping[str, np.ndarray]
    author: str = ""

    def has(self, *starts: str) -> bool:
        """Tells whether an array's name begins with one of `starts`."""
        return any(name.startswith(starts) for name in self.arrays)

    def drop_matching(self, pattern: str) -> tuple["ForeignArrays", list[str]]:
        """Returns the arrays whose names do not begin with a regular expression, and the names of the others."""
        dropped = [name for name in self.arrays if re.match(pattern, name)]
        kept = {name: value for name, value in self.arrays.items() if name not in dropped}
        return dataclasses.replace(self, arrays=kept), dropped


class Entry(NamedTuple):
    """The place of one of kfpn's variables in a maker's file.

    Attributes:
        key: `layer/variable`.
        names: the names that the array may have in the file; the first that is there counts.
        layout: the order of the array's axes in the file.
    """

    key: str
    names: tuple[str, ...]
    layout: Layout = "same"


def layer_entries(layer: str, names: tuple[str, ...], layout: Layout) -> list[Entry]:
    """Returns the entries of the kernel and bias of a layer with PyTorch's names.

    Args:
        layer: kfpn's name.
        names: the names that the layer may have in the file.
        layout: of the kernel.
    """
    return [
        Entry(f"{layer}/kernel", tuple(f"{name}.weight" for name in names), layout),
        Entry(f"{layer}/bias", tuple(f"{name}.bias" for name in names)),
    ]


def to_kfpn_axes(value: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns an array in kfpn's order of axes: (h, w, in, out) for a convolution, (in, out) for a dense layer."""
    if layout == "conv":
        return np.transpose(value, (2, 3, 1, 0))
    return np.transpose(value) if layout == "dense" else value


def foreign_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Returns the shape that a kfpn variable of `shape` has in the file's order of axes."""
    if layout == "conv":
        height, width, inputs, outputs = shape
        return outputs, inputs, height, width
    return shape if layout == "same" else tuple(reversed(shape))


def to_tensors(foreign: ForeignArrays, entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Takes every array of a file to its variable.

    Args:
        foreign: arrays that must all have an entry.
        entries: one for each variable that must be in the file.

    Returns:
        `layer/variable` -> `Tensor`.

    Raises:
        ValueError: with a list of names and shapes, if an array is missing or left over, has another number of
            dimensions, is not of floats, or holds a number that is not finite or a variance below 0.
    """
    tensors: dict[str, Tensor] = {}
    missing, unusable, shapes, used = [], [], [], set()
    for entry in entries:
        name = next((name for name in entry.names if name in foreign.arrays), None)
        if name is None:
            missing.append(entry.names[0])
            continue
        used.add(name)
        value = np.asarray(foreign.arrays[name])
        dimensions = {"conv": 4, "dense": 2}.get(entry.layout, 4) if entry.key.endswith("kernel") else 1
        if value.ndim != dimensions:
            shapes.append(f"{name} {value.shape}, which must have {dimensions} dimensions")
        elif reason := _why_unusable(entry.key, value):
            unusable.append(f"{name} ({reason})")
        else:
            tensors[entry.key] = Tensor(name, to_kfpn_axes(value, entry.layout), value.shape, entry.layout)
    left = [f"{name} {tuple(np.shape(value))}" for name, value in foreign.arrays.items() if name not in used]
    mismatches = {"missing": missing, "left over": left, "of another shape": shapes, "not usable": unusable}
    raise_mismatches(foreign.path, mismatches)
    return tensors


def _why_unusable(key: str, value: np.ndarray) -> str | None:
    if value.dtype.kind != "f":
        return f"{value.dtype} instead of floats"
    with np.errstate(over="ignore"):
        single = value.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        return "not finite"
    return "negative variances" if key.endswith("moving_variance") and (single < 0.0).any() else None


def raise_mismatches(path: str, mismatches: Mapping[str, list[str]]) -> None:
    """Raises if there are tensors that do not fit the network, with the names of all of them.

    Args:
        path: the file, for the message.
        mismatches: what is wrong, such as "missing" -> the names of the tensors.

    Raises:
        ValueError: if a list is not empty.
    """
    parts = []
    for what, names in mismatches.items():
        if names:
            more = f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
            parts.append(f"{len(names)} {what}: {', '.join(names[:MOST_LISTED])}{more}")
    if parts:
        raise ValueError(f"{path}: tensors must fit the network, got {'; '.join(parts)}")
