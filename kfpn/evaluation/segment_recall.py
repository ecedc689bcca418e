"""Measures the recall of segments: the share of the objects whose mask a segment covers, without classes (FPN, table 6)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.config.model import Pasting
from kfpn.data.record import Record
from kfpn.evaluation.coco_rows import ground_truth, masked
from kfpn.evaluation.recall import AREAS, COUNT, area_ranges, recalls_of_ranges, without_classes
from kfpn.evaluation.segmentations import rle_of_part
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image
from kfpn.ops.mask_paste import paste_one_by_one

SEGMENT_RECALLS = ("AR@10", "AR@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000")
"""The recall of the best 10, 100 and 1000 segments of an image; and of 1000, as in table 6, on small, medium and large objects."""

DECIDES = "AR@100"
"""The figure by which the weights of a run are compared."""

LEAST_OVERLAP = 0.45
"""Segments that overlap no object by more than this IoU change no figure: the least IoU that counts is .5."""

UNLIKE, ENOUGH = 3.0, 30.0
"""Areas that differ by this factor have no IoU of `LEAST_OVERLAP`, if the smaller one's object has this many pixels."""


def evaluate_segments(
    model: Callable, source_pass: SourcePass, see: Callable[[int, dict[str, Any]], None] | None = None
) -> dict[str, float | None]:
    """Returns the recall of a network's segments on a source.

    Args:
        model: the padded model of `segments_model`, or its `detect_function`.
        source_pass: the source and how its images are given to the model.
        see: is given the index of each record, and its segments; None: nobody looks at them.

    Returns:
        dict: `SEGMENT_RECALLS`, see `segment_recall`.

    Raises:
        ValueError: if the source is empty, the batch size is below 1 or an image can't be read.
    """
    source, rule = source_pass.source, source_pass.config.model.pasting
    rows: list[dict[str, Any]] = []
    for index, segments in segments_by_image(model, source_pass):
        rows += rows_near_objects(source[index], segments, rule)
        if see is not None:
            see(index, segments)
    return segment_recall((source[index] for index in range(len(source))), rows)


def segments_by_image(
    model: Callable, source_pass: SourcePass, title: str = "segment"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the index of each record of a source, and its segments in pixels of the original image, see `original_segments`.

    Args:
        model, source_pass: as `evaluate_segments` takes them.
        title: of the bar.
    """
    for _, row in outputs_by_image(model, source_pass, title):
        yield int(row["record_index"]), original_segments(row)


def original_segments(row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the segments of one image's outputs, their windows mapped to its original pixels.

    Args:
        row: of `outputs_by_image`.

    Returns:
        dict: `boxes` (n, 4) float32 yxyx, pixels of the original image, which may reach beyond it; `scores` (n,) float32 from high
        to low; `masks` (n, M, M) float32 in 0..1, each within its box; `levels` and `windows` (n,) int32.
    """
    exists = np.asarray(row["levels"]) > 0
    scale = np.tile(np.asarray(row["original_sizes"], np.float64) / np.asarray(row["image_sizes"], np.float64), 2)
    return {
        "boxes": (np.asarray(row["boxes"], np.float64)[exists] * scale).astype(np.float32),
        "scores": row["scores"][exists].astype(np.float32),
        "masks": row["masks"][exists].astype(np.float32),
        "levels": row["levels"][exists].astype(np.int32),
        "windows": row["windows"][exists].astype(np.int32),
    }


def segment_rows(
    image_id: int, segments: Mapping[str, np.ndarray], size: tuple[int, int], rule: Pasting, places: np.ndarray
) -> list[dict[str, Any]]:
    """Returns some segments of an image as COCO's results, each with its `rank`, counted from 0.

    Args:
        image_id: of the image.
        segments: of `original_segments`.
        size: height and width of the image.
        rule: as `kfpn.paste_masks` takes it.
        places: (m,) int, the ranks of those that are wanted.
    """
    from pycocotools import mask as coco_mask

    parts = paste_one_by_one(segments["masks"][places], segments["boxes"][places], *size, 0.5, rule)
    rows = []
    for rank, part in zip(places.tolist(), parts, strict=True):
        lengths = rle_of_part(part, size)
        box = coco_mask.toBbox(lengths).tolist()
        score = float(segments["scores"][rank])
        rows.append(
            {"image_id": image_id, "category_id": 0, "bbox": box, "score": score, "segmentation": lengths, "rank": rank}
        )
    return rows


def rows_near_objects(record: Record, segments: Mapping[str, np.ndarray], rule: Pasting) -> list[dict[str, Any]]:
    """Returns the segments of an image that overlap an object enough to be matched at some IoU, as COCO's results with their `rank`.

    The others change no recall, and are nearly all: memory and pycocotools' loops are spared them.

    Args:
        record: the ground truth of the image, with masks.
        segments: of `original_segments`. The best `COUNT` count.
        rule: as `kfpn.paste_masks` takes it.
    """
    from pycocotools import mask as coco_mask

    masks = record.masks
    if masks is None:
        return []
    objects = np.flatnonzero(masks.exists & ~record.crowd)
    if not len(objects):
        return []
    truth = [masks.rle(int(index)) for index in objects]
    best = {name: value[:COUNT] for name, value in segments.items()}
    # The boxes of an annotation may be others than those of its mask; the masks are what is measured.
    corners = coco_mask.toBbox(truth).reshape(-1, 4)[:, [1, 0, 3, 2]]
    corners[:, 2:] += corners[:, :2]
    places = places_near_objects(best, corners, coco_mask.area(truth), (record.height, record.width))
    if not len(places):
        return []
    rows = segment_rows(int(record.image_id), best, (record.height, record.width), rule, places)
    ious = coco_mask.iou([row["segmentation"] for row in rows], truth, [0] * len(truth))
    return [row for row, near in zip(rows, ious.max(axis=1) > LEAST_OVERLAP, strict=True) if near]


def places_near_objects(
    segments: Mapping[str, np.ndarray], gt_boxes: np.ndarray, areas: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns which segments may overlap an object by an IoU of `LEAST_OVERLAP`, without pasting them: (m,) int, in order.

    For such an IoU a window must hold that share of the object's pixels, and the two areas must be alike. A window counts as a cell
    larger on each side, because what is pasted may reach that far. Pasted areas differ from counts of cells by pixels at the edges,
    so areas count as alike up to a factor of three, where the object has pixels enough.

    Args:
        segments: of `original_segments`.
        gt_boxes: (G, 4) float yxyx, around the objects' masks.
        areas: (G,) pixels of the objects' masks.
        size: height and width of the image.
    """
    boxes, masks = segments["boxes"].astype(np.float64), segments["masks"]
    cell = (boxes[:, 2:] - boxes[:, :2]) / masks.shape[-1]
    low = np.maximum((boxes[:, :2] - cell)[:, None], gt_boxes[None, :, :2])
    high = np.minimum((boxes[:, 2:] + cell)[:, None], gt_boxes[None, :, 2:])
    # A row and a column more, for what a box cuts off pixels at its edges.
    shared = np.prod(np.maximum(high - low + 1.0, 0.0), axis=-1) * (high > low).all(-1)
    holds = shared >= LEAST_OVERLAP * areas
    own = (masks >= 0.5).sum((1, 2)) * cell.prod(-1)
    # What of a window lies beyond the image is cut off, so its mask may be as small as one likes.
    inside = np.all(np.concatenate([boxes[:, :2] >= 0.0, boxes[:, 2:] <= size], axis=1), axis=1, keepdims=True)
    unlike = (own[:, None] < areas / UNLIKE) | ((own[:, None] > areas * UNLIKE) & inside)
    return np.flatnonzero((holds & ~(unlike & (areas > ENOUGH))).any(1))


def ranks_of_all(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the rank of each segment among those of several passes over an image, of equal scores the earlier pass first.

    Args:
        scores: of each pass, (n,) float32 from high to low; n may differ.

    Returns:
        For each pass (n,) int, counted from 0.
    """
    together = np.concatenate(scores)
    ranks = np.empty(len(together), np.int64)
    ranks[np.argsort(-together, kind="stable")] = np.arange(len(together))
    return np.split(ranks, np.cumsum([len(one) for one in scores])[:-1])


def segment_recall(
    records: Iterable[Record], rows: Iterable[Mapping[str, Any]], areas: tuple[float, float] = AREAS
) -> dict[str, float | None]:
    """Returns the average recall of segments, by pycocotools' `segm` without classes (`useCats=0`).

    Recall is the share of objects whose mask a segment overlaps by at least an IoU. A segment is matched to one object at most, and
    recall is averaged over the IoUs .50, .55, ..., .95. Crowd objects, and objects without a mask, do not count.

    Args:
        records: the ground truth with masks, each image once.
        rows: COCO's results with `segmentation`, and their `rank` in their image, counted from 0, see `rows_near_objects`.
        areas: as `kfpn.evaluation.recall.proposal_recall` takes them.

    Returns:
        dict: `SEGMENT_RECALLS`, each a float in 0..1, or None where there is no ground truth to measure it on.
    """
    ranges, rows = area_ranges(areas), list(rows)
    truth = masked(ground_truth(map(without_classes, records), ["object"], True))
    figures: list[float | None] = []
    for limit in (10, 100):
        first = [dict(row) for row in rows if row["rank"] < limit]
        figures += recalls_of_ranges(truth, first, ranges[:1], "segm")
    figures += recalls_of_ranges(truth, [dict(row) for row in rows if row["rank"] < COUNT], ranges, "segm")
    return dict(zip(SEGMENT_RECALLS, figures, strict=True))


def segment_recall_line(recall: Mapping[str, float | None]) -> str:
    """Returns the figures in one line."""
    return "  ".join(
        f"{name} {'-' if recall[name] is None else format(recall[name], '.4f')}" for name in SEGMENT_RECALLS
    )
