"""Computes what the mask head should predict from masks that are sampled over their objects' boxes, within the compiled step."""

from keras import ops

from kfpn.ops.boxes import gather_rows

HALF = 0.5 - 1e-3
"""From this share on a cell belongs to the object. Shares of exactly a half are frequent, where a RoI fits its object's box; without
the thousandth the rounding of the device would decide about them."""


def grid_targets(gt_masks, gt_boxes, rois, gt_index, side: int):
    """Returns which cells of each RoI lie at least half in its object: (B, P, M, M) float32, 0 or 1.

    The mask of an object is S x S cells over its own box, each inside or outside. The share of a RoI's cell is the area of it that
    lies in cells inside, which are two products of small matrices, one for each axis.

    Args:
        gt_masks: (B, G, S, S) uint8, 0 or 1.
        gt_boxes: (B, G, 4) float32 yxyx pixels.
        rois: (B, P, 4) float32 yxyx pixels.
        gt_index: (B, P) int32, the object of each RoI.
        side: M.
    """
    cells = ops.cast(gather_rows(gt_masks, gt_index), "float32")
    boxes = gather_rows(gt_boxes, gt_index)
    of_rows, of_columns = (
        _covered(rois[..., axis::2], boxes[..., axis::2], side, gt_masks.shape[2]) for axis in (0, 1)
    )
    shares = ops.matmul(ops.matmul(of_rows, cells), ops.swapaxes(of_columns, -1, -2))
    return ops.cast(shares >= HALF, "float32")


def _covered(ends, of_box, side: int, cells: int):
    """Returns which share of each cell of a RoI lies in each cell of a box, along one axis: (B, P, M, S) float32.

    Args:
        ends: (B, P, 2) float32, where the RoI begins and ends, pixels.
        of_box: (B, P, 2) float32, of the box; an empty one gives any finite numbers.
        side: M.
        cells: S.
    """
    length = of_box[..., 1] - of_box[..., 0]
    a_pixel = cells / ops.where(length > 0.0, length, 1.0)
    first = (ends[..., 0] - of_box[..., 0]) * a_pixel
    step = (ends[..., 1] - ends[..., 0]) * a_pixel / side
    # Where the cells of the RoI begin and end, counted in cells of the box.
    edges = first[..., None] + step[..., None] * ops.arange(side + 1, dtype="float32")
    passed = ops.clip(edges[..., None] - ops.arange(cells, dtype="float32"), 0.0, 1.0)
    return (passed[..., 1:, :] - passed[..., :-1, :]) / ops.maximum(step, 1e-6)[..., None, None]
