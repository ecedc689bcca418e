"""Turns the masks of detections into COCO's compressed run lengths, one after another, and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kfpn.config.model import Pasting
from kfpn.data.record import Record
from kfpn.ops.mask_paste import Part, paste_one_by_one


def segmented(detections: dict[str, Any], size: Sequence[int] | np.ndarray, rule: Pasting) -> dict[str, Any]:
    """Returns the detections of an image with `segmentations` in the place of `masks`; without masks as they are.

    A mask of 28 x 28 floats takes 3 kB, and its run lengths some hundred bytes. One mask at a time has the image's size.

    Args:
        detections: of one image, in its own pixels: `boxes` (n, 4) yxyx, and `masks` (n, M, M) in 0..1, if there are any.
        size: (2,) height and width of the image.
        rule: as `kfpn.paste_masks` takes it.

    Returns:
        dict: the same without `masks`, with `segmentations` (n,) of objects: COCO's {"size": [H, W], "counts": str}.
    """
    if "masks" not in detections:
        return detections
    height, width = (int(side) for side in size)
    rest = {name: value for name, value in detections.items() if name != "masks"}
    segmentations = np.empty(len(detections["boxes"]), object)
    parts = paste_one_by_one(detections["masks"], detections["boxes"], height, width, 0.5, rule)
    for row, part in enumerate(parts):
        segmentations[row] = rle_of_part(part, (height, width))
    return {**rest, "segmentations": segmentations}


def rle_of_part(part: Part, size: tuple[int, int]) -> dict[str, Any]:
    """Returns a pasted mask as pycocotools' `encode` writes it, without the rest of the image.

    Args:
        part: of `paste_one_by_one`, of bools.
        size: height and width of the image.

    Returns:
        dict: `size` [H, W], and `counts` str, the compressed run lengths, column after column.
    """
    from pycocotools import mask as coco_mask

    height, width = size
    rows, columns = part.window
    bordered = np.zeros((part.pixels.shape[1], part.pixels.shape[0] + 2), np.int8)
    bordered[:, 1:-1] = part.pixels.T
    changes = np.diff(bordered, axis=1)
    starts, ends = (
        (columns.start + column) * height + rows.start + row
        for column, row in (np.nonzero(changes == 1), np.nonzero(changes == -1))
    )
    # A run that ends at the foot of a column goes on at the head of the next one.
    apart = starts[1:] != ends[:-1]
    bounds = np.stack([starts[np.append(True, apart)[: len(starts)]], ends[np.append(apart, True)[: len(ends)]]], 1)
    counts = np.diff(bounds.ravel(), prepend=0, append=height * width).tolist()
    if counts[-1] == 0:
        counts.pop()
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def decoded_part(segmentation: Mapping[str, Any]) -> Part:
    """Returns COCO's compressed run lengths as a pasted mask."""
    from pycocotools import mask as coco_mask

    bitmap = coco_mask.decode(dict(segmentation)).astype(bool)
    left, top, width, height = (int(side) for side in coco_mask.toBbox(dict(segmentation)))
    window = slice(top, top + height), slice(left, left + width)
    return Part(window, bitmap[window])


def parts_of(detections: Mapping[str, Any]) -> Callable[[int], Part] | None:
    """Returns the function that decodes the mask of one detection of an image, as pictures take it; None without `segmentations`."""
    if "segmentations" not in detections:
        return None
    return lambda row: decoded_part(detections["segmentations"][row])


def truth_parts(record: Record) -> Callable[[int], Part | None] | None:
    """Returns the function that decodes the mask of one object of a record; None for a record without masks."""
    masks = record.masks
    if masks is None:
        return None
    exists = masks.exists  # made anew each time that it is asked for
    return lambda row: decoded_part(masks.rle(row)) if exists[row] else None
