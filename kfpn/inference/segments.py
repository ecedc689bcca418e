"""Proposes segments in a user's images, and gives them to COCO's files and to pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kfpn.config.model import Pasting
from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image
from kfpn.data.jpeg_fraction import AnyImage, as_decoded
from kfpn.data.out_of_memory import explained_memory, large_images
from kfpn.evaluation.segment_recall import original_segments, segment_rows
from kfpn.evaluation.segmentations import decoded_part
from kfpn.evaluation.source_pass import detect_function
from kfpn.plotting.draw_boxes import draw_detections

_ARRAYS = ("boxes", "scores", "masks", "levels", "windows")


@dataclass(frozen=True, eq=False)
class Segments:
    """Holds the N best segments of one image, the surest first.

    Attributes:
        boxes: (N, 4) float32 yxyx, pixels of the image: the windows, which may reach beyond it.
        scores: (N,) float32 in 0..1, from high to low.
        masks: (N, M, M) float32 in 0..1, each within its window.
        levels: (N,) int32, 2 to 6 for P2 to P6, the level that each comes from; 4 for the C4 of a single level.
        windows: (N,) int32, 5 or 7, cells of its window.
        image_size: height and width of the image, pixels.
        pasting: the rule by which masks are put into the image, see `kfpn.paste_masks`.
        kind: "P", or "C" where the level is one of the backbone: with the number it is the level's name.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    levels: np.ndarray
    windows: np.ndarray
    image_size: tuple[int, int]
    pasting: Pasting = "sampled"
    kind: str = "P"

    def __len__(self) -> int:
        """Returns N, the number of segments."""
        return len(self.scores)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        segments = {"boxes": self.boxes, "scores": self.scores, "masks": self.masks}
        return segment_rows(0, segments, self.image_size, self.pasting, np.arange(len(self)))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Returns the segments as rows of a COCO results list.

        Args:
            image_id: of the image in its data set.

        Returns:
            list: N dicts of `image_id`, `category_id` (0: segments have no class), `bbox` (x, y, width, height of the mask, pixels),
            `score`, `segmentation` (COCO's compressed run lengths), and `level` ("P2" to "P6", or "C4") and `window` ("5x5" or "7x7"), which
            COCO's tools pass over.
        """
        places = zip(self._rows, self.levels.tolist(), self.windows.tolist(), strict=True)
        return [
            {name: value for name, value in row.items() if name != "rank"}
            | {"image_id": int(image_id), "level": f"{self.kind}{level}", "window": f"{window}x{window}"}
            for row, level, window in places
        ]

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Returns a picture of the image with the masks, each in a colour of its own, with its level and its score.

        Args:
            image: (H, W, 3) uint8 RGB, of `image_size`; it is not changed.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        rows = self._rows
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        corners = np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1)
        names = {row: f"{self.kind}{level}" for row, level in enumerate(self.levels.tolist())}
        return draw_detections(
            image, corners, np.arange(len(rows)), self.scores, names,
            masks=lambda row: decoded_part(rows[row]["segmentation"]),
        )  # fmt: skip


def segment_image(
    model: Callable,
    image: AnyImage,
    rule: InputConfig,
    pasting: Pasting = "sampled",
    kind: str = "P",
    padded: bool = True,
) -> Segments:
    """Returns the segments of one image.

    Args:
        model: of `kfpn.load_segmenter(workdir, padded=True)`, or its `detect_function`.
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it.
        rule: how images are resized, `input` of the run's config.
        pasting: the attribute of this name of the model.
        kind: of the model's levels, see `Segments`.
        padded: whether the model has the input `image_sizes`.

    Raises:
        ValueError: if `image` is not such an array.
    """
    resized, (height, width) = prepare_image(image, rule)
    # Padded as in evaluation: the result is the same, and images of nearly equal sizes share a graph.
    below, right = (-height % rule.divisor, -width % rule.divisor) if padded else (0, 0)
    images = np.pad(resized, ((0, below), (0, right), (0, 0)))[None]
    sizes = {"image_sizes": np.array([[height, width]], np.int32)}
    size = tuple(as_decoded(image).size)
    with explained_memory(lambda: large_images(images.shape)):
        outputs = detect_function(model)({"images": images, **sizes} if padded else images.astype(np.float32))
        row = {name: np.asarray(value)[0] for name, value in outputs.items()}
    row |= {"image_sizes": np.array((height, width)), "original_sizes": np.array(size)}
    return Segments(**original_segments(row), image_size=(int(size[0]), int(size[1])), pasting=pasting, kind=kind)


def best_of_passes(passes: Sequence[Segments], count: int) -> Segments:
    """Returns the best segments of several passes over an image, of equal scores those of the earlier pass first.

    Nothing is suppressed, and no mask changes: no two windows are the same.

    Args:
        passes: at least one, all of the same image and network.
        count: at most so many.
    """
    best = np.argsort(-np.concatenate([one.scores for one in passes]), kind="stable")[:count]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in passes])[best] for name in _ARRAYS}
    return replace(passes[0], **arrays)


def surest(segments: Segments, count: int, min_score: float = 0.0) -> Segments:
    """Returns the best segments of an image alone.

    Args:
        segments: of the image.
        count: at most so many.
        min_score: those with a lower score are left out.
    """
    keep = min(count, int((segments.scores >= min_score).sum()))
    arrays: dict[str, Any] = {name: getattr(segments, name)[:keep] for name in _ARRAYS}
    return replace(segments, **arrays)
