"""All annotations of a data set in a few flat arrays, and the source that reads them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kfpn.data.annotation_checks import Faults, usable_boxes
from kfpn.data.record import Record


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The boxes of N images, M in all, ordered by image: COCO's 860,000 take 22 MB so.

    Attributes:
        offsets: (N + 1,) int64; image i has the boxes offsets[i] .. offsets[i + 1] - 1.
        boxes: (M, 4) float32 yxyx absolute pixels, inside their image.
        labels: (M,) int32, 0-based.
        crowd: (M,) bool.
        areas: (M,) float32 square pixels.
    """

    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


def collect(
    image_index: Sequence[int] | np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    crowd: Sequence[bool] | np.ndarray,
    areas: Sequence[float] | np.ndarray,
    sizes: np.ndarray,
    where: Callable[[int], str],
    faults: Faults,
    *,
    least: float = 0.0,
) -> Annotations:
    """Clips and checks boxes and orders them by image.

    Args:
        image_index: (M,) int, the image of each box.
        boxes: (M, 4) yxyx absolute pixels.
        labels: (M,) int, 0-based.
        crowd: (M,) bool.
        areas: (M,) square pixels; what is not positive stands for the box's own area.
        sizes: (N, 2) int, height and width of the images.
        where: gives the file of box m, for warnings.
        faults: takes the boxes that were clipped or left out.
        least: as in `usable_boxes`.

    Returns:
        The usable boxes.
    """
    image_index = np.asarray(image_index, np.int64)
    boxes, usable = usable_boxes(boxes, sizes[image_index], where, faults, least=least)
    kept = np.flatnonzero(usable)
    kept = kept[np.argsort(image_index[kept], kind="stable")]
    counts = np.bincount(image_index[kept], minlength=len(sizes))
    boxes = boxes[kept]
    with np.errstate(over="ignore"):  # what float32 can't hold becomes inf, which is left out below
        areas = np.asarray(areas, np.float32)[kept]
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Annotations(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=np.asarray(labels, np.int32)[kept],
        crowd=np.asarray(crowd, bool)[kept],
        areas=np.where(np.isfinite(areas) & (areas > 0), areas, own).astype(np.float32),
    )


class AnnotatedSource:
    """A source whose annotations are held flat; subclasses or callers say where image i is.

    Args:
        name: str, what messages call the data set.
        class_names: names of labels 0 .. K-1.
        category_ids: the data set's own ids of labels 0 .. K-1.
        images: N image files (paths), encoded images or arrays.
        image_names: N names for messages.
        image_ids: (N,) int, unique.
        sizes: (N, 2) int32 height and width after EXIF rotation.
        annotations: of the N images.

    Raises:
        ValueError: when there is no image or no class.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        images: Sequence[str | bytes | np.ndarray],
        image_names: Sequence[str],
        image_ids: Sequence[int] | np.ndarray,
        sizes: np.ndarray,
        annotations: Annotations,
    ) -> None:
        if not len(sizes):
            raise ValueError(f"{name}: must have at least one image, got none")
        if not class_names:
            raise ValueError(f"{name}: must have at least one class, got none")
        self.name = name
        self.class_names = tuple(class_names)
        self.category_ids = tuple(int(i) for i in category_ids)
        self.sizes = np.asarray(sizes, np.int32)
        self.max_boxes = int(np.diff(annotations.offsets).max())
        self._images = images
        self._image_names = image_names
        self.image_ids = np.asarray(image_ids, np.int64)
        self.annotations = annotations

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
        )
