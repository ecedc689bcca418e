"""Defines the record that every data source yields, and what a source is."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from kfpn.data.image_part import ImagePart
from kfpn.data.object_masks import ObjectMasks


@dataclasses.dataclass(frozen=True)
class Record:
    """Holds one image and its objects.

    Attributes:
        image: path of an image file (str), its encoded bytes, pixels (H, W, 3) uint8 RGB, or a part of an image.
        image_id: int, unique within the source (COCO's own id where there is one).
        height: int, pixels, after EXIF rotation.
        width: int, pixels, after EXIF rotation.
        boxes: (M, 4) float32 yxyx absolute pixels, half-open, inside the image, with positive area.
        labels: (M,) int32 class ids, 0-based.
        crowd: (M,) bool, True for crowd regions and VOC's difficult objects: never trained on
            and neither right nor wrong in evaluation.
        areas: (M,) float32 square pixels, by which evaluation sorts small, medium and large
            (the annotation's own area where it has one, as COCO's is that of the mask; else the box's).
        name: str, what messages call the image (its path, or the data set and id).
        masks: of the M objects, in the image after EXIF rotation; None where they were not asked for, or the format has none.
    """

    image: str | bytes | np.ndarray | ImagePart
    image_id: int
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    name: str = ""
    masks: ObjectMasks | None = None


@runtime_checkable
class Source(Protocol):
    """Gives random access to the records of a data set.

    Attributes:
        name: str, what messages call the data set.
        class_names: the names of labels 0 .. K-1.
        category_ids: the data set's own ids of labels 0 .. K-1.
        sizes: (N, 2) int32, height and width of every image after EXIF rotation.
        max_boxes: int, the most objects of one image.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    sizes: np.ndarray
    max_boxes: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


__all__ = ["Record", "Source"]
