"""What a foreign checkpoint says once it is understood: settings, classes and tensors under kfpn's own names."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from kfpn.weights.makers.coco_classes import COCO, coco_classes

Layout = Literal["same", "conv", "dense"]
"""How a foreign array lies: as kfpn's; (out, in, h, w); (out, in)."""


class Tensor(NamedTuple):
    """One array of a checkpoint.

    Attributes:
        name: what it is called in the file.
        value: float array in kfpn's layout.
        shape: its shape in the file.
        layout: how it lies in the file.
    """

    name: str
    value: np.ndarray
    shape: tuple[int, ...]
    layout: Layout = "same"


class Entry(NamedTuple):
    """Where one variable of kfpn's comes from.

    Attributes:
        key: `layer/variable`.
        names: what it may be called in the file: the first one that is there.
        layout: how it lies there.
    """

    key: str
    names: tuple[str, ...]
    layout: Layout = "same"


@dataclasses.dataclass(frozen=True)
class TrainedWeights:
    """A checkpoint, understood.

    Attributes:
        path: the file.
        kind: what it is, in words.
        model: fields of `ModelConfig` that the weights were made with.
        sampling: fields of `SamplingConfig` they were trained with.
        tensors: `layer/variable` -> `Tensor`.
        class_names: of labels 0, 1, ...; None where there is no detector or the names are not known.
        category_ids: the data set's own ids of these classes, or None.
        notes: one line each, what was left out or taken for granted.
        input: fields of `InputConfig` they were trained with, where they differ from what all others have (kfpn's own).
    """

    path: str
    kind: str
    model: dict[str, Any]
    sampling: dict[str, Any]
    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    input: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_detector(self) -> bool:
        """Whether it holds more than a backbone."""
        return "num_classes" in self.model

    def names_of_classes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Returns names and category ids of the labels: COCO's for a backbone, "class 1" ... where they are unknown."""
        count = self.model.get("num_classes", len(COCO))
        names, ids = (self.class_names, self.category_ids) if self.is_detector else coco_classes(count)
        return (
            names or tuple(f"class {i + 1}" for i in range(count)),
            ids or tuple(range(1, count + 1)),
        )


def to_kfpn(value: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns an array in kfpn's layout: (h, w, in, out) and (in, out)."""
    if layout == "conv":
        return np.transpose(value, (2, 3, 1, 0))
    return np.transpose(value) if layout == "dense" else value


def foreign_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Returns the shape a kfpn variable has in the file's layout."""
    if layout == "conv":
        height, width, inputs, outputs = shape
        return outputs, inputs, height, width
    return shape if layout == "same" else tuple(reversed(shape))


def convert(path: str, found: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Takes every array of a file to its place.

    Args:
        path: the file, for messages.
        found: all arrays of the file that must find a place.
        entries: all places.

    Returns:
        `layer/variable` -> `Tensor`.

    Raises:
        ValueError: listing names and shapes, if something is missing, left over, of another number of dimensions, no float,
            not finite or a negative variance.
    """
    tensors: dict[str, Tensor] = {}
    missing, bad, shapes, used = [], [], [], set()
    for entry in entries:
        name = next((name for name in entry.names if name in found), None)
        if name is None:
            missing.append(entry.names[0])
            continue
        used.add(name)
        value = np.asarray(found[name])
        dimensions = {"conv": 4, "dense": 2}.get(entry.layout, 4) if entry.key.endswith("kernel") else 1
        if value.ndim != dimensions:
            shapes.append(f"{name} {value.shape}, which must have {dimensions} dimensions")
        elif fault := _fault(entry.key, value):
            bad.append(f"{name} ({fault})")
        else:
            tensors[entry.key] = Tensor(name, to_kfpn(value, entry.layout), value.shape, entry.layout)
    left = [f"{name} {tuple(np.shape(found[name]))}" for name in found if name not in used]
    complain(path, {"missing": missing, "left over": left, "of another shape": shapes, "not usable": bad})
    return tensors


def _fault(key: str, value: np.ndarray) -> str | None:
    if value.dtype.kind != "f":
        return f"{value.dtype} instead of floats"
    with np.errstate(over="ignore"):
        single = value.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        return "not finite"
    return "negative variances" if key.endswith("moving_variance") and (single < 0.0).any() else None


SHOWN = 20


def complain(path: str, faults: Mapping[str, list[str]]) -> None:
    """Raises ValueError with everything that does not fit, if there is something."""
    parts = []
    for what, names in faults.items():
        if names:
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            parts.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
    if parts:
        raise ValueError(f"{path}: tensors must fit the network, got {'; '.join(parts)}")


def norm_entries(layer: str, norm: str) -> list[Entry]:
    """Entries of a batch norm with PyTorch's names."""
    pairs = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    return [Entry(f"{layer}/{ours}", (f"{norm}.{theirs}",)) for ours, theirs in pairs.items()]


def layer_entries(layer: str, names: tuple[str, ...], layout: Layout) -> list[Entry]:
    """Entries of the kernel and bias of a layer with PyTorch's names."""
    return [
        Entry(f"{layer}/kernel", tuple(f"{name}.weight" for name in names), layout),
        Entry(f"{layer}/bias", tuple(f"{name}.bias" for name in names)),
    ]


def flip_channels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Makes a stem that was trained on BGR take RGB: the same numbers, and one order of channels everywhere."""
    stem = tensors["stem_conv/kernel"]
    return {**tensors, "stem_conv/kernel": stem._replace(value=stem.value[:, :, ::-1])}


def without(found: Mapping[str, np.ndarray], pattern: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the arrays whose names don't begin with a pattern, and the names of those that do."""
    left_out = [name for name in found if re.match(pattern, name)]
    return {name: value for name, value in found.items() if name not in left_out}, left_out
