"""Assigns windows to objects, and samples those that the losses of segments see (FPN, appendix B)."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.ops import boxes as box_ops
from kfpn.ops.segment_windows import usable_windows, window_grids, window_kinds

SINGLE_OCTAVES = 0.5
"""Octaves from the size of a single level, up and down, within which its objects lie: .71 to 1.41 of it."""
FAR = 1e9
"""Stands for the distance of an object that a window is not meant for; all others are at most 2."""


def grids_of_objects(gt_boxes, config: ModelConfig):
    """Returns the grid of windows that each object belongs to: (B, G) int32, a place in `window_grids`, -1 for none.

    It is the one whose size is nearest to the object's larger side in log space, of two equally near ones the first. Objects that
    are smaller or larger than all sizes belong to the smallest or the largest. A single level, whose other sizes an image pyramid
    finds, has the objects within `SINGLE_OCTAVES` of its size alone.

    Args:
        gt_boxes: (B, G, 4) float32 yxyx pixels.
        config: of the model.
    """
    larger = ops.maximum(gt_boxes[..., 2] - gt_boxes[..., 0], gt_boxes[..., 3] - gt_boxes[..., 1])
    sizes = ops.convert_to_tensor([math.log2(grid.size) for grid in window_grids(config)], "float32")
    octaves = ops.abs(ops.log2(ops.maximum(larger, 1e-3))[..., None] - sizes)
    nearest = ops.cast(ops.argmin(octaves, axis=-1), "int32")
    return ops.where(ops.min(octaves, axis=-1) <= SINGLE_OCTAVES, nearest, -1) if len(config.levels) == 1 else nearest


def assign_windows(counts: Sequence[tuple[Any, Any]], gt: dict, image_sizes, config: ModelConfig):
    """Tells which windows are positive, and for which object.

    A window is positive if the centre of an object of its grid lies within a cell of its own, along both axes; of several objects
    the nearest counts, of equally near ones the first. Windows whose centre lies in a crowd region, and those in padding, are
    ignored; all others are negative.

    Args:
        counts: rows and columns of the levels, of `kfpn.ops.segment_windows.cell_counts`.
        gt: dict of gt_boxes (B, G, 4) float32 yxyx pixels, gt_labels (B, G) int32 with -1 in padding, gt_crowd (B, G) bool.
        image_sizes: (B, 2) int, height and width in pixels.
        config: of the model.

    Returns:
        matched: (B, N) int32, 1 positive, 0 negative, -1 ignored.
        index: (B, N) int32, the object of each positive; meaningless elsewhere.
    """
    boxes, exists = gt["gt_boxes"], gt["gt_labels"] >= 0
    real = ops.logical_and(ops.logical_and(exists, ops.logical_not(gt["gt_crowd"])), box_ops.area(boxes) > 0.0)
    crowd = ops.logical_and(exists, gt["gt_crowd"])
    own_grid, centres = grids_of_objects(boxes, config), 0.5 * (boxes[..., :2] + boxes[..., 2:])
    matched: list[Any] = []
    index: list[Any] = []
    for number, (grid, (height, width)) in enumerate(
        zip(window_grids(config), [*counts] * len(window_kinds(config)), strict=True)
    ):
        mine = ops.logical_and(real, own_grid == number)
        places = [ops.cast(ops.arange(side, dtype="int32") * grid.stride, "float32") for side in (height, width)]
        rows, columns = (
            # (B, cells, G): the distance along one axis, counted in cells.
            ops.abs(places[axis][None, :, None] - centres[:, None, :, axis]) / grid.stride
            for axis in (0, 1)
        )
        near = ops.logical_and(rows[:, :, None] <= 1.0, columns[:, None] <= 1.0)
        near = ops.logical_and(near, mine[:, None, None])
        distance = ops.where(near, ops.square(rows[:, :, None]) + ops.square(columns[:, None]), FAR)
        in_crowd = ops.logical_and(*(_covers(places[axis], boxes[..., axis::2], axis) for axis in (0, 1)))
        in_crowd = ops.any(ops.logical_and(in_crowd, crowd[:, None, None]), axis=-1)
        is_found = ops.min(distance, axis=-1) < FAR
        kind = ops.where(is_found, 1, ops.where(in_crowd, -1, 0))
        for parts, part in ((matched, kind), (index, ops.argmin(distance, axis=-1))):
            parts.append(ops.reshape(ops.cast(part, "int32"), (ops.shape(boxes)[0], -1)))
    usable = usable_windows(counts, image_sizes, config)
    return ops.where(usable, ops.concatenate(matched, axis=1), -1), ops.concatenate(index, axis=1)


def _covers(places, ends, axis: int):
    """Tells which places along an axis lie between the ends (B, G, 2) of boxes: (B, cells, 1, G) of rows, (B, 1, cells, G) of columns."""
    inside = ops.logical_and(places[None, :, None] >= ends[:, None, :, 0], places[None, :, None] <= ends[:, None, :, 1])
    return inside[:, :, None] if axis == 0 else inside[:, None]
