"""Holds the detections of an image, and gives them to COCO's files, to supervision and to pictures."""

import warnings
from collections.abc import Callable, ItemsView, Iterator, KeysView, Sequence, ValuesView
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, overload

import numpy as np

from kfpn.config.model import Pasting
from kfpn.evaluation.coco_rows import detections_to_coco
from kfpn.evaluation.detection_rows import take_rows
from kfpn.evaluation.segmentations import rle_of_part
from kfpn.ops.mask_paste import Part, paste_masks, paste_one_by_one
from kfpn.plotting.draw_boxes import draw_detections
from kfpn.plotting.draw_masks import patch_of

LeastScore = float | Sequence[float]
"""The least score of a detection: one for all, or one for each label."""
_ARRAYS = ("boxes", "scores", "labels", "masks", "box_masks", "category_ids")


class DictOfBefore:
    """Answers as the dict that `kfpn.predict` gave before there was `Detections`, and warns of it once a process."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    box_masks: np.ndarray | None
    _is_warned_of: ClassVar[bool] = False

    def _as_before(self) -> dict[str, Any]:
        if not DictOfBefore._is_warned_of:
            DictOfBefore._is_warned_of = True
            warnings.warn(
                "kfpn.predict gives kfpn.Detections, no dict: write found.boxes, found.scores, found.labels, found.names, and "
                "found.box_masks for found['masks']",
                FutureWarning,
                stacklevel=3,
            )
        old = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels, "names": list(self.names)}
        return old if self.box_masks is None else {**old, "masks": self.box_masks}

    def __iter__(self) -> Iterator[str]:
        return iter(self._as_before())

    def __contains__(self, key: object) -> bool:
        return key in self._as_before()

    def keys(self) -> KeysView[str]:
        """Returns the keys of the dict."""
        return self._as_before().keys()

    def values(self) -> ValuesView[Any]:
        """Returns the values of the dict."""
        return self._as_before().values()

    def items(self) -> ItemsView[str, Any]:
        """Returns the keys of the dict, each with its value."""
        return self._as_before().items()

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of a key, or the default."""
        return self._as_before().get(key, default)


@dataclass(frozen=True, eq=False)
class Detections(DictOfBefore):
    """Holds the N detections of one image, the surest first.

    Attributes:
        boxes: (N, 4) float32 yxyx, half-open, pixels of the image as it was given (after EXIF rotation).
        scores: (N,) float32 in 0..1, from high to low.
        labels: (N,) int32 in 0..K-1.
        names: N str, the name of each detection's class.
        image_size: height and width of the image, pixels.
        masks: (N, H, W) bool, which pixels of the image belong to each object; None where the detector has no masks, or
            `kfpn.predict` was not asked for them.
        box_masks: (N, M, M) float32 in 0..1, each within its box, of every detector with masks; None of all others.
        pasting: the rule by which `box_masks` become `masks`, see `kfpn.paste_masks`.
        category_ids: (N,) int64, the data set's own id of each detection's class; None: as the labels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    image_size: tuple[int, int]
    masks: np.ndarray | None = field(default=None, repr=False)
    box_masks: np.ndarray | None = field(default=None, repr=False)
    pasting: Pasting = field(default="sampled", repr=False)
    category_ids: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Returns N, the number of detections."""
        return len(self.scores)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Returns the detections as rows of a COCO results list.

        Args:
            image_id: of the image in its data set.

        Returns:
            list: N dicts of `image_id`, `category_id` (the data set's own), `bbox` (x, y, width, height in pixels), `score`, with
            masks `segmentation` (COCO's compressed run lengths), and `category_name`, which COCO's tools pass over.

        Raises:
            ValueError: if `image_id` is no whole number.
        """
        if isinstance(image_id, bool) or not isinstance(image_id, int | np.integer):
            raise ValueError(f"image_id must be a whole number, as COCO has it, got {image_id!r}")
        one: dict[str, Any] = {"image_id": image_id, "boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        lengths = self._run_lengths()
        if lengths is not None:
            one["segmentations"] = lengths
        rows = detections_to_coco([one])
        if self.category_ids is not None:
            for row, category_id in zip(rows, self.category_ids, strict=True):
                row["category_id"] = int(category_id)
        return [{**row, "category_name": name} for row, name in zip(rows, self.names, strict=True)]

    def to_supervision(self) -> Any:
        """Returns the detections as `supervision.Detections`, for its zones and annotators, and for trackers that take them.

        Returns:
            supervision.Detections: `xyxy` (N, 4) float32, `confidence` (N,) float32, `class_id` (N,) int64, `data["class_name"]` (N,)
            str and, of a detector with masks, `mask`: `masks` where there are any, else a `supervision.CompactMask`, which holds
            run lengths and gives one mask of the image's size at a time.

        Raises:
            ValueError: if supervision is not installed.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "OpenCV .*is not installed", UserWarning)
                import supervision
        except ImportError as error:
            raise ValueError(
                f'supervision must be installed for to_supervision, got none ({error}): pip install "kfpn[supervision]"'
            ) from error
        mask: Any = self.masks
        lengths = self._run_lengths() if mask is None else None
        if lengths is not None:
            from pycocotools import mask as coco_mask

            # Each mask is kept as far as it reaches, which may be beyond its box.
            low, size = np.split(np.array([coco_mask.toBbox(one) for one in lengths]).reshape(-1, 4), 2, axis=1)
            corners = np.concatenate([low, low + size - 1], axis=1)
            mask = supervision.CompactMask.from_coco_rle(lengths, corners, self.image_size)
        return supervision.Detections(
            xyxy=self.boxes[:, [1, 0, 3, 2]],
            mask=mask,
            confidence=self.scores,
            class_id=self.labels.astype(np.int64),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(self, image: np.ndarray, text_size: int | None = None) -> np.ndarray:
        """Returns a picture of the image with its boxes, names and scores and, of a detector with masks, its masks.

        Args:
            image: (H, W, 3) uint8 RGB, of `image_size`; it is not changed.
            text_size: pixels; None: it follows the image's size.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ValueError: if the image is another array, or of another size.
        """
        if np.shape(image) != (*self.image_size, 3):
            raise ValueError(
                f"image must be {(*self.image_size, 3)}, the image that was looked at, got {np.shape(image)}: give the same "
                "pixels to kfpn.predict and to draw"
            )
        names = dict(zip(self.labels.tolist(), self.names, strict=True))
        return draw_detections(
            image, self.boxes, self.labels, self.scores, names, text_size=text_size, masks=self._mask_of_row()
        )

    def _run_lengths(self) -> list[dict[str, Any]] | None:
        """Returns COCO's compressed run lengths of each mask; None without masks. One mask at a time has the image's size."""
        of_row = self._mask_of_row()
        return None if of_row is None else [rle_of_part(of_row(row), self.image_size) for row in range(len(self))]

    def _mask_of_row(self) -> Callable[[int], Part] | None:
        """Returns the function that gives the mask of one detection as far as it reaches; None without masks."""
        if self.masks is not None:
            pasted = self.masks
            return lambda row: Part(*patch_of(pasted[row]))
        if self.box_masks is None:
            return None
        masks, boxes = self.box_masks, self.boxes
        return lambda row: next(
            paste_one_by_one(masks[row : row + 1], boxes[row : row + 1], *self.image_size, rule=self.pasting)
        )

    @overload
    def __getitem__(self, rows: str) -> Any: ...

    @overload
    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> "Detections": ...

    def __getitem__(self, rows: Any) -> Any:
        """Returns some of the detections, as `found[found.scores > 0.8]`.

        Args:
            rows: (N,) bool, indices, or a slice. A key of the dict that `kfpn.predict` gave before still gives its value.
        """
        if isinstance(rows, str):
            return self._as_before()[rows]
        picked = np.atleast_1d(np.arange(len(self))[rows])
        changes: dict[str, Any] = {"names": tuple(self.names[row] for row in picked)}
        for name in _ARRAYS:
            array = getattr(self, name)
            changes[name] = None if array is None else array[picked]
        return replace(self, **changes)


@dataclass(frozen=True)
class Labelling:
    """Says what the outputs of a detector mean, and which of them count.

    Attributes:
        class_names: of the K labels.
        least: detections below this score are left out.
        category_ids: the data set's own id of each label; None: the labels.
        pasting: the rule by which masks are put into their image.
    """

    class_names: Sequence[str]
    least: LeastScore
    category_ids: Sequence[int] | None = None
    pasting: Pasting = "sampled"

    def detections(self, outputs: dict[str, Any], image_size: Sequence[int], masks: bool = False) -> Detections:
        """Returns what was found in an image.

        Args:
            outputs: of `detect_image`, with rows from high to low scores.
            image_size: height and width of the image, pixels.
            masks: paste the masks, where there are any.
        """
        best = above_score(outputs, self.least)
        size = (int(image_size[0]), int(image_size[1]))
        boxes, labels, box_masks = best["boxes"], best["labels"], best.get("masks")
        pasted = masks and box_masks is not None
        return Detections(
            boxes=boxes,
            scores=best["scores"],
            labels=labels,
            names=tuple(self.class_names[label] for label in labels),
            image_size=size,
            masks=paste_masks(box_masks, boxes, *size, rule=self.pasting) if pasted else None,
            box_masks=box_masks,
            pasting=self.pasting,
            category_ids=None if self.category_ids is None else np.array(self.category_ids, np.int64)[labels],
        )


def above_score(detections: dict[str, Any], min_score: LeastScore) -> dict[str, Any]:
    """Returns the detections of an image that have at least a score: one for all, or one for each label."""
    least = min_score if isinstance(min_score, int | float) else np.asarray(min_score)[detections["labels"]]
    return take_rows(detections, detections["scores"] >= least)
