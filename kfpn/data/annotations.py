"""Holds all annotations of a data set in a few flat arrays, and reads records from them."""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, usable_boxes, warn_of_similar_names
from kfpn.data.box_conventions import require_pixels_of_boxes
from kfpn.data.mask_column import MaskColumn
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record

ANNOTATION_ARRAYS = ("offsets", "boxes", "labels", "crowd", "areas")
"""The fields of `Annotations` that each data set has."""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Holds the boxes of N images, M in all, ordered by image. COCO's 860,000 boxes take 22 MB in this form.

    Attributes:
        offsets: (N + 1,) int64; image i has the boxes offsets[i] .. offsets[i + 1] - 1.
        boxes: (M, 4) float32 yxyx absolute pixels, inside their image.
        labels: (M,) int32, 0-based.
        crowd: (M,) bool.
        areas: (M,) float32 square pixels.
        masks: of the M objects, compressed; None: they were not asked for, or the format has none.
    """

    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: MaskColumn | None = None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Annotations":
        """Returns what `arrays` was called on."""
        masks = MaskColumn(arrays["mask_content"], arrays["mask_offsets"]) if "mask_offsets" in arrays else None
        offsets, boxes, labels, crowd, areas = (arrays[key] for key in ANNOTATION_ARRAYS)
        return cls(offsets, boxes, labels, crowd, areas, masks)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that is held as plain arrays, to keep them in a file."""
        held = {key: getattr(self, key) for key in ANNOTATION_ARRAYS}
        if self.masks is None:
            return held
        return held | {"mask_content": self.masks.content, "mask_offsets": self.masks.offsets}

    def masks_of(self, image: int, size: tuple[int, int]) -> ObjectMasks | None:
        """Returns the masks of one image's objects, by the image's index and its height and width."""
        if self.masks is None:
            return None
        begin, end = self.offsets[image : image + 2].tolist()
        return ObjectMasks.from_serialized(self.masks.rows(begin, end), size)

    def image_of_box(self) -> np.ndarray:
        """Returns the index of each box's image, (M,) int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclasses.dataclass(frozen=True)
class RawObjects:
    """Lists the objects of a data set as its files have them: in any order, and not checked yet.

    Attributes:
        image_index: (M,) int, the image of each object.
        boxes: (M, 4) yxyx absolute pixels.
        labels: (M,) int, 0-based.
        crowd: (M,) bool.
        areas: (M,) square pixels; what is not positive stands for the box's own area.
        where: function of m: the file of object m, for warnings.
        masks: M compressed masks in the image after EXIF rotation, empty where an object has none; None: of no object.
    """

    image_index: Sequence[int] | np.ndarray
    boxes: np.ndarray
    labels: Sequence[int] | np.ndarray
    crowd: Sequence[bool] | np.ndarray
    areas: Sequence[float] | np.ndarray
    where: Callable[[int], str]
    masks: Sequence[bytes] | None = None


def collect(objects: RawObjects, sizes: np.ndarray, faults: AnnotationFaults) -> Annotations:
    """Clips and checks boxes and orders them by image.

    Args:
        objects: all of the data set.
        sizes: (N, 2) int, height and width of the images.
        faults: counts the boxes that were clipped or left out.

    Returns:
        The usable boxes.
    """
    image_index = np.asarray(objects.image_index, np.int64)
    boxes, usable = usable_boxes(objects.boxes, sizes[image_index], objects.where, faults)
    kept = np.flatnonzero(usable)
    kept = kept[np.argsort(image_index[kept], kind="stable")]
    counts = np.bincount(image_index[kept], minlength=len(sizes))
    boxes = boxes[kept]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is left out below
        areas = np.asarray(objects.areas, np.float32)[kept]
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Annotations(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=np.asarray(objects.labels, np.int32)[kept],
        crowd=np.asarray(objects.crowd, bool)[kept],
        areas=np.where(np.isfinite(areas) & (areas > 0), areas, own).astype(np.float32),
        masks=None if objects.masks is None else MaskColumn.of([objects.masks[m] for m in kept.tolist()]),
    )


@dataclasses.dataclass(frozen=True)
class ImageTable:
    """Lists the N images of a data set.

    Attributes:
        images: image files (paths), encoded images or arrays.
        names: what messages call them.
        ids: (N,) int, unique.
        sizes: (N, 2) int32 height and width after EXIF rotation.
    """

    images: Sequence[str | bytes | np.ndarray]
    names: Sequence[str]
    ids: Sequence[int] | np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_files(cls, files: Sequence[str], sizes: np.ndarray) -> "ImageTable":
        """Lists files whose paths are their names too, with the ids 1 to N."""
        return cls(files, files, range(1, len(files) + 1), sizes)


class _Picked(Sequence[Any]):
    """Shows some items of a sequence, which may read each one when it is asked for."""

    def __init__(self, items: Sequence[Any], indices: np.ndarray) -> None:
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._items[int(i)] for i in self._indices[index]]
        return self._items[int(self._indices[index])]


class AnnotatedSource:
    """Reads records from flat annotations; subclasses or callers say where image i is.

    Args:
        name: str, what messages call the data set.
        class_names: names of labels 0 .. K-1.
        category_ids: the data set's own ids of labels 0 .. K-1.
        table: the images.
        annotations: of the images.

    Attributes:
        fault_counts: kind of fault -> (count, place of the first), as in `AnnotationFaults.counts`: what was left out or changed.
        left_out_classes: (name, id) of each category that only groups others, and is no class.

    Raises:
        ValueError: when there is no image or no class, or the boxes are shares of the sides.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        table: ImageTable,
        annotations: Annotations,
    ) -> None:
        if not len(table.sizes):
            raise ValueError(f"{name}: must have at least one image, got none")
        if not class_names:
            raise ValueError(f"{name}: must have at least one class, got none")
        warn_of_similar_names(class_names, name)
        self.name = name
        self.class_names = tuple(class_names)
        self.category_ids = tuple(int(i) for i in category_ids)
        self.sizes = np.asarray(table.sizes, np.int32)
        self.max_boxes = int(np.diff(annotations.offsets).max())
        self.table = table
        self._images = table.images
        self._image_names = table.names
        self.image_ids = np.asarray(table.ids, np.int64)
        self.annotations = annotations
        self.fault_counts: dict[str, tuple[int, str]] = {}
        self.left_out_classes: list[tuple[str, int]] = []
        require_pixels_of_boxes(name, annotations.boxes, self.sizes)

    def report(self, faults: AnnotationFaults) -> None:
        """Keeps what was left out or changed, and warns of it."""
        self.fault_counts = dict(faults.counts)
        faults.report()

    def part(self, indices: np.ndarray, name: str) -> "AnnotatedSource":
        """Returns some of the images as a source of its own.

        Args:
            indices: of the images, rising.
            name: what messages call the part.
        """
        held, counts = self.annotations, np.diff(self.annotations.offsets)
        rows = np.flatnonzero(np.isin(held.image_of_box(), indices))
        part = copy.copy(self)
        part.name, part.sizes, part.image_ids = name, self.sizes[indices], self.image_ids[indices]
        part.annotations = Annotations(
            np.concatenate([[0], np.cumsum(counts[indices])]).astype(np.int64),
            held.boxes[rows],
            held.labels[rows],
            held.crowd[rows],
            held.areas[rows],
            None if held.masks is None else held.masks.take(rows),
        )
        part.max_boxes = int(counts[indices].max())
        part._images, part._image_names = _Picked(self._images, indices), _Picked(self._image_names, indices)
        part.table = ImageTable(part._images, part._image_names, part.image_ids, part.sizes)
        return part

    def image_files(self) -> list[str]:
        """Returns the path of each image; an empty list where the images are no files."""
        if not all(isinstance(image, (str, os.PathLike)) for image in self._images):
            return []  # the first image that is no file ends the search: reading all of them may take long
        return [os.path.abspath(str(image)) for image in self._images]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.sizes)

    def __getitem__(self, index: int) -> Record:
        """Returns image `index`, the image itself not yet decoded."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie in 0..{len(self) - 1}, got {index}")
        index = int(index) % len(self)
        of_image = slice(*self.annotations.offsets[index : index + 2])
        return Record(
            image=self._images[index],
            image_id=int(self.image_ids[index]),
            height=int(self.sizes[index, 0]),
            width=int(self.sizes[index, 1]),
            boxes=self.annotations.boxes[of_image],
            labels=self.annotations.labels[of_image],
            crowd=self.annotations.crowd[of_image],
            areas=self.annotations.areas[of_image],
            name=self._image_names[index],
            masks=self.annotations.masks_of(index, (int(self.sizes[index, 0]), int(self.sizes[index, 1]))),
        )
