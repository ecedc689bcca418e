"""Holds weights that others trained, brought into kfpn's own form: settings, classes and named tensors."""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from kfpn.config.model import default_class_names
from kfpn.weights.makers.coco_classes import COCO, coco_classes

Layout = Literal["same", "conv", "dense"]
"""The order of an array's axes in a file: as kfpn has them; (out, in, h, w); (out, in)."""


class Tensor(NamedTuple):
    """One trained array.

    Attributes:
        name: the array's name in the file.
        value: float array in kfpn's layout.
        shape: the array's shape in the file.
        layout: the order of the array's axes in the file.
    """

    name: str
    value: np.ndarray
    shape: tuple[int, ...]
    layout: Layout = "same"


@dataclasses.dataclass(frozen=True)
class TrainedWeights:
    """A detector's or a backbone's weights, with all that their file says of them.

    Attributes:
        path: the file.
        kind: the network, its size and its data set, in words.
        model: the fields of `ModelConfig` that the weights were trained with.
        sampling: the fields of `SamplingConfig` that they were trained with.
        tensors: `layer/variable` -> `Tensor`, under kfpn's names.
        class_names: of labels 0, 1, ...; None for a backbone, and where the names are not known.
        category_ids: the data set's own ids of these classes, or None.
        notes: one line for each thing that was left out or assumed.
        input: the fields of `InputConfig` that they were trained with. Only kfpn's own weights have any: other makers'
            detectors all fit kfpn's defaults.
    """

    path: str
    kind: str
    model: dict[str, Any]
    sampling: dict[str, Any]
    tensors: dict[str, Tensor] = dataclasses.field(repr=False)  # a notebook prints what a cell ends with
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    input: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_detector(self) -> bool:
        """Tells whether these are the weights of a whole detector, not only of a backbone."""
        return "num_classes" in self.model

    def names_of_classes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Returns names and category ids of the labels: COCO's for a backbone, "class 1", ... where they are not known."""
        count = self.model.get("num_classes", len(COCO))
        names, ids = (self.class_names, self.category_ids) if self.is_detector else coco_classes(count)
        return (
            names or default_class_names(count),
            ids or tuple(range(1, count + 1)),
        )
