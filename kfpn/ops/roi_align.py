"""RoIAlign (He et al. 2017, section 3) over all pyramid levels at once."""

from keras import ops

from kfpn.ops import boxes as box_ops
from kfpn.ops.padding import valid_cells
from kfpn.ops.pyramid_levels import stride
from kfpn.ops.roi_align_adaptive import adaptive_sum, axis_samples, linear_taps

ROI_LEVELS = ("P2", "P3", "P4", "P5")


def roi_levels(rois, canonical_size=224.0, levels=ROI_LEVELS):
    """Returns the pyramid level of each RoI (FPN, equation 1).

    Args:
        rois: (..., 4) float yxyx, pixels.
        canonical_size: float, side in pixels of the square that is pooled from P4.
        levels: those there are: P2 to P5, or a single one, which pools them all.
    Returns:
        (...) int32, 2..5.
    """
    if len(levels) == 1:
        return ops.zeros_like(rois[..., 0], dtype="int32") + int(levels[0][1:])
    # floor(4 + log2(side / canonical_size + 1e-8)) within 2..5, with detectron2's epsilon. Comparisons are exact where
    # a logarithm may round a whole number down, and a quotient too: XLA multiplies by 1 / canonical_size.
    side = ops.sqrt(box_ops.area(rois)) + 1e-8 * canonical_size
    # Counted by a sum, which XLA takes once; what it fuses into the gathers it would compute anew for every tap.
    bounds = ops.convert_to_tensor([canonical_size * factor for factor in (0.5, 1.0, 2.0)], "float32")
    return 2 + ops.sum(ops.cast(side[..., None] >= bounds, "int32"), axis=-1)


def level_cells(image_sizes, levels):
    """Returns the rows and columns of each level that images (B, 2) fill: a list of (B, 2) int32."""
    return [valid_cells(image_sizes, stride(level)) for level in levels]


def _axis_taps(axis, sampling_ratio):
    """The taps of all samples of one axis.

    Args:
        axis: start, end, cells (B, R) float32 and size, see `axis_samples`.
    Returns:
        low, high, low_weight, high_weight: (B, R, size, sampling_ratio), see `linear_taps`.
    """
    start, end, cells, size = axis
    bins = (end - start)[..., None, None] / size
    steps = (ops.arange(sampling_ratio, dtype="float32") + 0.5) / sampling_ratio
    at = start[..., None, None] + (ops.arange(size, dtype="float32")[:, None] + steps) * bins
    return linear_taps(at, cells[..., None, None])


def roi_align(features, rois, cells, size=7, sampling_ratio=2, aligned=True, canonical_size=224.0, levels=ROI_LEVELS):
    """Pools RoIs from the levels that `roi_levels` gives them.

    All levels lie behind one another in one table of cells, and every tap is a gather from it, added to the sum before
    the next, so the taps are never held together.

    Args:
        features: (B, H_l, W_l, C) of each level.
        rois: (B, R, 4) float32 yxyx, pixels of the network input.
        cells: (B, 2) int32 of each level, the rows and columns of each level that the image fills: samples beyond are clamped.
        size: int, cells of the output a side.
        sampling_ratio: int, samples a cell, a side; 0: the cell's side in cells of the level, rounded up, RoI by RoI
            (detectron2's default).
        aligned: bool, shift by half a pixel (detectron2); without it RoIs are at least a cell large (torchvision).
        canonical_size, levels: see `roi_levels`.
    Returns:
        (B, R, size, size, C), differentiable in features.
    """
    shapes = [ops.shape(x) for x in features]
    batch, channels = shapes[0][0], features[0].shape[-1]
    table = ops.concatenate([ops.reshape(x, (batch, -1, channels)) for x in features], axis=1)
    length = ops.shape(table)[1]
    table = ops.reshape(table, (-1, channels))

    level = roi_levels(rois, canonical_size, levels) - int(levels[0][1:])
    box = rois / ops.cast(_per_level([stride(name) for name in levels], level), "float32")[..., None]
    if aligned:
        box = box - 0.5
    y1, x1, y2, x2 = (box[..., i] for i in range(4))
    if not aligned:
        y2, x2 = ops.maximum(y2, y1 + 1.0), ops.maximum(x2, x1 + 1.0)

    one_hot = ops.one_hot(level, len(features), dtype="float32")
    filled = ops.cast(ops.stack(cells, axis=1), "float32")  # (B, levels, 2)
    filled = ops.sum(one_hot[..., None] * filled[:, None], axis=2)
    y, x = (y1, y2, filled[..., 0], size), (x1, x2, filled[..., 1], size)

    # Integers from here: float32 can't count the cells of a large batch.
    pitch = _per_level([shape[2] for shape in shapes], level)
    starts, behind = [], 0
    for shape in shapes:
        starts.append(behind)
        behind = behind + shape[1] * shape[2]
    start = _per_level(starts, level) + ops.arange(batch, dtype="int32")[:, None] * length
    if sampling_ratio == 0:
        parts = axis_samples(*y), axis_samples(*x), ops.stack([start, pitch], axis=-1)
        pooled = adaptive_sum(table, [ops.reshape(part, (-1, part.shape[-1])) for part in parts], size)
        return ops.reshape(pooled, (*ops.shape(rois)[:2], size, size, channels))
    return _weighted_sum(table, _fixed_taps(y, x, start, pitch, sampling_ratio, table.dtype))


def _fixed_taps(y, x, start, pitch, sampling_ratio, dtype):
    """Returns the function that gives sampling_ratio^2 x 4 taps: (B, R, size, size) rows of the table, and weights.

    Under XLA the gathers fuse into one loop.
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

    TensorFlow's own gradient lays the gradients of all gathers from one table side by side before it adds them up: 1.6 GB for
    1024 RoIs of 256 channels.

    Args:
        table: (L, C), differentiable.
        taps: function that gives (index, weight) pairs: (...) int32 rows of the table, (...) in the table's dtype.
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

        # Keras hands `upstream` over by position or, under torch, by name.
        def gradient(*args, upstream=None):
            rows = ops.reshape(args[0] if upstream is None else upstream, (-1, channels))
            indices, weights = (ops.stack(each) for each in zip(*taps(), strict=True))
            indices = ops.reshape(indices, (indices.shape[0], -1))
            weights = ops.reshape(weights, (indices.shape[0], -1, 1))

            # A loop, because XLA would make all sixteen products at once before it adds the first.
            def add_tap(i, total):
                part = rows * ops.take(weights, i, axis=0)
                return total + ops.segment_sum(part, ops.take(indices, i, axis=0), num_segments=length)

            return ops.fori_loop(0, indices.shape[0], add_tap, ops.zeros((length, channels), rows.dtype))

        return total, gradient

    return weighted_sum(table)


def _per_level(values, level):
    # values: ints or scalar tensors, one a level; level: (B, R) int32, the place of a RoI's among them.
    chosen = ops.zeros_like(level) + values[0]
    for i, value in enumerate(values[1:], start=1):
        chosen = ops.where(level == i, value, chosen)
    return ops.cast(chosen, "int32")
