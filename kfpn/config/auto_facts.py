"""Holds what the rules of the preset `auto` look at: facts of the data, of the machine, and of the weights to start from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class DataFacts:
    """Holds facts of the images to train on.

    Attributes:
        images: int, number of images.
        image_sizes: (N, 2) height and width in pixels, of all images or of some that are evenly spread.
        boxes: (M, 4) yxyx pixels of the images as they are, of all objects or of some that are evenly spread; no crowd.
        box_image_sizes: (M, 2) height and width of each box's image.
        objects_of_image: (N',) number of objects of each image, or of some that are evenly spread; the largest is among them.
        class_shares: (K,) share of the images that have an object of each class, 0..1; no crowd.
    """

    images: int
    image_sizes: np.ndarray
    boxes: np.ndarray
    box_image_sizes: np.ndarray
    objects_of_image: np.ndarray
    class_shares: np.ndarray

    def in_tiles(self, side: int) -> "DataFacts":
        """Returns the facts of tiles of the images: objects are measured against tiles, and are no larger.

        Args:
            side: of a tile, pixels.
        """
        boxes = np.concatenate([self.boxes[:, :2], np.minimum(self.boxes[:, 2:], self.boxes[:, :2] + side)], axis=1)
        sizes, of_boxes = np.minimum(self.image_sizes, side), np.minimum(self.box_image_sizes, side)
        return dataclasses.replace(self, image_sizes=sizes, boxes=boxes, box_image_sizes=of_boxes)


@dataclasses.dataclass(frozen=True)
class MachineFacts:
    """Holds facts of what a run trains on; of several workers, the least that one has, and all GPUs together.

    Attributes:
        cores: int, CPU cores that the process may use.
        gpus: int, GPUs that train; 0: the CPU does.
        gpu_memory: int, bytes of the smallest GPU; None: not known, or no GPU.
        fast_bfloat16: bool, whether the processor that trains has instructions for bfloat16.
    """

    cores: int = 1
    gpus: int = 0
    gpu_memory: int | None = None
    fast_bfloat16: bool = False


@dataclasses.dataclass(frozen=True)
class WeightFacts:
    """Holds what weights to start from bring.

    Attributes:
        model, sampling, input: the fields of these sections that the weights were made with.
        is_detector: bool, whether they are a whole detector's, not only a backbone's.
    """

    model: Mapping[str, Any]
    sampling: Mapping[str, Any]
    input: Mapping[str, Any]
    is_detector: bool

    @property
    def settings(self) -> dict[str, Mapping[str, Any]]:
        """The sections by their names, as `kfpn.config.auto_draft.with_settings` takes them."""
        return {"model": self.model, "sampling": self.sampling, "input": self.input}


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """Holds all that the rules look at.

    Attributes:
        data: of the images to train on.
        machine: of what trains.
        weights: of those to start from; None: random weights.
    """

    data: DataFacts
    machine: MachineFacts
    weights: WeightFacts | None = None
