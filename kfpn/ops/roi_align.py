"""Pools RoIs by RoIAlign (He et al. 2017, section 3) over all pyramid levels at once."""

import dataclasses

from keras import ops

from kfpn.ops import boxes as box_ops
from kfpn.ops.padding import valid_cells
from kfpn.ops.pyramid_levels import stride
from kfpn.ops.roi_align_adaptive import adaptive_sum, axis_samples, linear_taps

ROI_LEVELS = ("P2", "P3", "P4", "P5")


@dataclasses.dataclass(frozen=True)
class RoIAlignRule:
    """How RoIs are pooled.

    Attributes:
        size: int, cells of the output a side.
        sampling_ratio: int, samples a cell, a side. 0: the cell's side in cells of its level, rounded up, for each RoI
            (detectron2's default).
        aligned: bool, whether RoIs are shifted by half a pixel (detectron2); without it RoIs are at least a cell large
            (torchvision).
        canonical_size: float, side in pixels of the square that is pooled from P4.
        levels: names of the levels that RoIs are pooled from.
    """

    size: int = 7
    sampling_ratio: int = 2
    aligned: bool = True
    canonical_size: float = 224.0
    levels: tuple[str, ...] = ROI_LEVELS


def roi_levels(rois, canonical_size=224.0, levels=ROI_LEVELS):
    """Returns the pyramid level of each RoI (FPN, equation 1).

    Args:
        rois: (..., 4) float yxyx, pixels.
        canonical_size: float, side in pixels of the square that is pooled from P4.
        levels: those that there are: P2 to P5, or a single one, which all RoIs are pooled from.

    Returns:
        (...) int32, 2..5.
    """
    if len(levels) == 1:
        return ops.zeros_like(rois[..., 0], dtype="int32") + int(levels[0][1:])
    # This is floor(4 + log2(side / canonical_size + 1e-8)) within 2..5, with detectron2's epsilon. Comparisons are exact
    # where a logarithm may round a whole number down. A quotient may do so too: XLA multiplies by 1 / canonical_size.
    side = ops.sqrt(box_ops.area(rois)) + 1e-8 * canonical_size
    # The bounds are counted by a sum, because XLA computes a sum once. It would fuse other operations into the gathers and
    # compute them again for every tap.
    bounds = ops.convert_to_tensor([canonical_size * factor for factor in (0.5, 1.0, 2.0)], "float32")
    return 2 + ops.sum(ops.cast(side[..., None] >= bounds, "int32"), axis=-1)


def level_cells(image_sizes, levels):
    """Returns the rows and columns of each level that images (B, 2) fill: a list of (B, 2) int32."""
    return [valid_cells(image_sizes, stride(level)) for level in levels]


def _axis_taps(axis, sampling_ratio):
    """Returns the taps of all samples of one axis.

    Args:
        axis: start, end, cells (B, R) float32 and size, see `axis_samples`.
        sampling_ratio: int, at least 1, see `RoIAlignRule`.

    Returns:
        low, high, low_weight, high_weight: (B, R, size, sampling_ratio), see `linear_taps`.
    """
    start, end, cells, size = axis
    bins = (end - start)[..., None, None] / size
    steps = (ops.arange(sampling_ratio, dtype="float32") + 0.5) / sampling_ratio
    at = start[..., None, None] + (ops.arange(size, dtype="float32")[:, None] + steps) * bins
    return linear_taps(at, cells[..., None, None])


def roi_align(features, rois, cells, rule=RoIAlignRule()):
    """Pools each RoI from the level that `roi_levels` gives it.

    The cells of all levels lie behind one another in one table. Every tap is a gather from it that is added to the sum
    before the next one, so that the taps are never held together.

    Args:
        features: (B, H_l, W_l, C) of each of the rule's levels.
        rois: (B, R, 4) float32 yxyx, pixels of the network input.
        cells: (B, 2) int32 of each level: its rows and columns that the image fills. Samples beyond them are clamped.
        rule: how RoIs are pooled.

    Returns:
        (B, R, size, size, C), differentiable in features.
    """
    size, levels = rule.size, rule.levels
    shapes = [ops.shape(x) for x in features]
    batch, channels = shapes[0][0], features[0].shape[-1]
    table = ops.concatenate([ops.reshape(x, (batch, -1, channels)) for x in features], axis=1)
    length = ops.shape(table)[1]
    table = ops.reshape(table, (-1, channels))

    level = roi_levels(rois, rule.canonical_size, levels) - int(levels[0][1:])
    box = rois / ops.cast(_per_level([stride(name) for name in levels], level), "float32")[..., None]
    if rule.aligned:
        box = box - 0.5
    y1, x1, y2, x2 = (box[..., i] for i in range(4))
    if not rule.aligned:
        y2, x2 = ops.maximum(y2, y1 + 1.0), ops.maximum(x2, x1 + 1.0)

    one_hot = ops.one_hot(level, len(features), dtype="float32")
    filled = ops.cast(ops.stack(cells, axis=1), "float32")  # (B, levels, 2)
    filled = ops.sum(one_hot[..., None] * filled[:, None], axis=2)
    y, x = (y1, y2, filled[..., 0], size), (x1, x2, filled[..., 1], size)

    # Rows of the table are integers: float32 cannot count the cells of a large batch.
    pitch = _per_level([shape[2] for shape in shapes], level)
    starts, behind = [], 0
    for shape in shapes:
        starts.append(behind)
        behind = behind + shape[1] * shape[2]
    start = _per_level(starts, level) + ops.arange(batch, dtype="int32")[:, None] * length
    if rule.sampling_ratio == 0:
        parts = axis_samples(*y), axis_samples(*x), ops.stack([start, pitch], axis=-1)
        pooled = adaptive_sum(table, [ops.reshape(part, (-1, part.shape[-1])) for part in parts], size)
        return ops.reshape(pooled, (*ops.shape(rois)[:2], size, size, channels))
    return _weighted_sum(table, _fixed_taps(y, x, start, pitch, rule.sampling_ratio, table.dtype))


def _fixed_taps(y, x, start, pitch, sampling_ratio, dtype):
    """Returns the function that yields the taps of all samples, four for each: see `_weighted_sum`.

    Under XLA the gathers fuse into one loop.

    Args:
        y, x: one axis each, see `_axis_taps`.
        start, pitch: (B, R) int32, where a RoI's level begins in the table, and its cells from row to row.
        sampling_ratio: int, at least 1.
        dtype: of the weights.
    """
    y_at, y_weight = _axis_taps(y, sampling_ratio)
    x_at, x_weight = _axis_taps(x, sampling_ratio)
    rows = [start[..., None, None] + ops.cast(y, "int32") * pitch[..., None, None] for y in y_at]
    columns = [ops.cast(x, "int32") for x in x_at]

    def taps():
        for i in range(sampling_ratio):
            for j in range(sampling_ratio):
                for row, wy in zip(rows, y_weight, strict=True):
                    for column, wx in zip(columns, x_weight, strict=True):
                        index = row[:, :, :, None, i] + column[:, :, None, :, j]
                        weight = wy[:, :, :, None, i] * wx[:, :, None, :, j] / sampling_ratio**2
                        yield index, ops.cast(weight, dtype)

    return taps


def _weighted_sum(table, taps):
    """Sums weighted rows of a table, one tap after another, forwards and backwards.

    TensorFlow's own gradient stores the gradients of all gathers from one table before it adds them up: 1.6 GB for 1024
    RoIs of 256 channels.

    Args:
        table: (L, C), differentiable.
        taps: function that yields pairs (index, weight): (...) int32 rows of the table, and (...) in the table's dtype.

    Returns:
        (..., C).
    """
    channels = table.shape[-1]

    @ops.custom_gradient
    def weighted_sum(table):
        length = ops.shape(table)[0]
        total = None
        for index, weight in taps():
            tap = ops.take(table, index, axis=0) * weight[..., None]
            total = tap if total is None else total + tap

        # Keras passes `upstream` by position, or by name under torch.
        def gradient(*args, upstream=None):
            rows = ops.reshape(args[0] if upstream is None else upstream, (-1, channels))
            indices, weights = (ops.stack(each) for each in zip(*taps(), strict=True))
            indices = ops.reshape(indices, (indices.shape[0], -1))
            weights = ops.reshape(weights, (indices.shape[0], -1, 1))

            # The taps are added in a loop, because XLA would compute all sixteen products before it adds the first.
            def add_tap(i, total):
                part = rows * ops.take(weights, i, axis=0)
                return total + ops.segment_sum(part, ops.take(indices, i, axis=0), num_segments=length)

            return ops.fori_loop(0, indices.shape[0], add_tap, ops.zeros((length, channels), rows.dtype))

        return total, gradient

    return weighted_sum(table)


def _per_level(values, level):
    # Takes one int or scalar tensor for each level, and (B, R) int32, which of them each RoI has.
    chosen = ops.zeros_like(level) + values[0]
    for i, value in enumerate(values[1:], start=1):
        chosen = ops.where(level == i, value, chosen)
    return ops.cast(chosen, "int32")


def stored(pooled):
    """Returns pooled RoIs (N, size, size, C) as they are, copied in a loop, so that XLA keeps them in memory.

    Before a convolution XLA on CPUs would compute all samples a second time for the gradient of its kernel, in the order of
    channels, which makes each of them a miss of the cache: 280 of 770 ms of a training step with masks.
    """
    shape = pooled.shape
    if shape[0] is None:
        return pooled
    half = -(-shape[0] // 2)

    @ops.custom_gradient
    def copied(values):
        def copy_half(i, total):
            start = (i * (shape[0] - half), 0, 0, 0)
            return ops.slice_update(total, start, ops.slice(values, start, (half, *shape[1:])))

        def gradient(*args, upstream=None):
            return args[0] if upstream is None else upstream

        return ops.fori_loop(0, 2, copy_half, ops.zeros_like(values)), gradient

    return copied(pooled)
