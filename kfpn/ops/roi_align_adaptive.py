"""Sums RoIAlign's samples where their number grows with the RoI (ROIAlign with sampling_ratio 0)."""

import inspect

from keras import ops

BLOCK = 32
"""RoIs that are pooled together: so few that most need the same number of samples, and that their sums stay in a processor's
cache."""
ADDS_ROWS = "reduction" in inspect.signature(ops.scatter_update).parameters
"""Whether this Keras adds rows to a table at once: from 3.14 on."""


def linear_taps(at, cells):
    """Returns the two cells that a sample reads along one axis, and their weights, by the rules of Detectron's kernel.

    Args:
        at: (...) float32, positions in cells.
        cells: float32, broadcastable to `at`, the level's valid rows (columns).

    Returns:
        low, high: (...) float32 cell indices.
        low_weight, high_weight: (...) float32, 0 for samples more than a cell outside.
    """
    inside = ops.cast(ops.logical_and(at >= -1.0, at <= cells), "float32")
    at = ops.minimum(ops.maximum(at, 0.0), cells - 1.0)
    low = ops.floor(at)
    high = ops.minimum(low + 1.0, cells - 1.0)
    share = at - low
    return (low, high), ((1.0 - share) * inside, share * inside)


def axis_samples(start, end, cells, size):
    """Returns how the bins of RoIs are sampled along one axis: once for each cell of their length, rounded up.

    That is the rule of Detectron's ROIAlign. Samples outside the level add nothing. Those before it are skipped, and of
    the others only as many are taken as reach across the level, a little more than two a cell, so that the sum ends even
    for the largest RoI.

    Args:
        start, end: (B, R) float32, a RoI's first and last side in cells of its level.
        cells: (B, R) float32, the level's valid rows (columns).
        size: int, bins.

    Returns:
        (B, R, 5) float32: start, length of a bin, samples of a bin, how many of them are taken (none if the RoI is not
        finite), cells.
    """
    length = end - start
    finite = ops.isfinite(length)
    start, length = ops.where(finite, start, 0.0), ops.where(finite, length, 0.0)
    grid = ops.ceil(length / size)
    # The quotient is corrected, because XLA multiplies by 1 / size: a whole number may come out a little larger or smaller.
    grid = ops.where((grid - 1.0) * size >= length, grid - 1.0, grid)
    grid = ops.maximum(ops.where(grid * size < length, grid + 1.0, grid), 0.0)
    return ops.stack([start, length / size, grid, ops.minimum(grid, 2.0 * cells + 6.0), cells], axis=-1)


def _sample_taps(axis, sample, size):
    """Returns the taps of one sample of each bin along one axis.

    Args:
        axis: (M, 5), see `axis_samples`.
        sample: (M,) int32, the number of the sample among those that are taken.
        size: int, bins.

    Returns:
        Two pairs (cell, weight): (M, size) int32, and (M, size) float32, 0 where a RoI has no such sample.
    """
    start, bins, grid, _, cells = (axis[:, i, None] for i in range(5))
    grid = ops.maximum(grid, 1.0)
    at = ops.arange(size, dtype="float32")
    # The lower limit changes nothing where a bin has several samples: those are at least half a cell apart.
    first, step = start + (at + 0.5 / grid) * bins, ops.maximum(bins / grid, 0.5)
    before = ops.maximum(ops.minimum(ops.floor((-1.0 - first) / step) - 1.0, grid - 1.0), 0.0)
    sample = before + ops.cast(sample, "float32")[:, None]
    low_high, weights = linear_taps(start + (at + (sample + 0.5) / grid) * bins, cells)
    share = ops.where(sample < grid, 1.0 / grid, 0.0)
    return [(ops.cast(cell, "int32"), weight * share) for cell, weight in zip(low_high, weights, strict=True)]


def _in_blocks(y, x, where):
    """Puts RoIs of about the same number of samples into blocks.

    Args:
        y, x: (N, 5), see `axis_samples`.
        where: (N, 2) int32, where a RoI's level begins in the table, and its cells from row to row.

    Returns:
        parts: four tensors (blocks, BLOCK, ...): the number of samples a bin, int32, 0 in the last block's empty rows; then
            y, x and where.
        order: (blocks * BLOCK,) int32, the RoI of each row.
        place: (N,) int32, the row of each RoI.
    """
    count = ops.cast(y[:, 3] * x[:, 3], "int32")
    rois = ops.shape(count)[0]
    order = ops.cast(ops.argsort(count), "int32")
    place = ops.argsort(order)
    rank = ops.arange((rois + BLOCK - 1) // BLOCK * BLOCK, dtype="int32")
    order = ops.take(order, ops.minimum(rank, rois - 1), axis=0)
    count, *parts = (ops.take(part, order, axis=0) for part in (count, y, x, where))
    parts = [ops.where(rank < rois, count, 0), *parts]
    return [ops.reshape(part, (-1, BLOCK, *part.shape[1:])) for part in parts], order, place


def _over_samples(parts, size, add, value):
    """Folds a function over the samples of one block, one sample of each bin at a time.

    Args:
        parts: one block of what `_in_blocks` returns.
        size: int, bins a side.
        add: function (value, indices, weights) -> value. The four taps of a sample come as a list of indices
            (BLOCK size^2,) int32 and a list of weights (BLOCK size^2, 1) float32.
        value: what `add` is called with first.
    """
    count, y, x, where = parts
    across = ops.maximum(ops.cast(x[:, 3], "int32"), 1)
    start, pitch = where[:, 0, None], where[:, 1, None]
    most = ops.max(count)

    def add_sample(k, value):
        exists = ops.cast(k < count, "float32")[:, None]
        indices, weights = [], []
        for row, wy in _sample_taps(y, k // across, size):
            for column, wx in _sample_taps(x, k % across, size):
                indices.append(ops.reshape((start + row * pitch)[:, :, None] + column[:, None, :], (-1,)))
                weights.append(ops.reshape((wy * exists)[:, :, None] * wx[:, None, :], (-1, 1)))
        return k + 1, add(value, indices, weights)

    start_at = ops.convert_to_tensor(0, "int32")
    return ops.while_loop(lambda k, _value: k < most, add_sample, (start_at, value))[1]


def _with_added_rows(table, index, rows):
    """Returns a table (L, C) to whose rows, by their numbers (M, 1) int32, others (M, C) are added; a number may occur often."""
    if ADDS_ROWS:
        return ops.scatter_update(table, index, rows, reduction="add")
    return table + ops.scatter(index, rows, ops.shape(table))  # slower: it fills and reads one more table


def adaptive_sum(table, parts, size):
    """Pools RoIs with as many samples as each needs, in float32: loops over blocks of RoIs, and over a block's samples.

    Args:
        table: (L, C), differentiable.
        parts: y, x, where of N RoIs, see `_in_blocks`.
        size: int, bins a side.

    Returns:
        (N, size^2, C).
    """
    channels, rows = table.shape[-1], BLOCK * size**2
    parts, order, place = _in_blocks(*parts)
    blocks = ops.shape(parts[0])[0]

    def block(i):
        return [ops.take(part, i, axis=0) for part in parts]

    @ops.custom_gradient
    def pooled_sum(table):
        def add(total, indices, weights):
            for index, weight in zip(indices, weights, strict=True):
                total = total + ops.cast(ops.take(table, index, axis=0), "float32") * weight
            return total

        def pool(i, pooled):
            total = _over_samples(block(i), size, add, ops.zeros((rows, channels), "float32"))
            return ops.slice_update(pooled, (i * rows, 0), ops.cast(total, table.dtype))

        pooled = ops.fori_loop(0, blocks, pool, ops.zeros((blocks * rows, channels), table.dtype))
        pooled = ops.take(ops.reshape(pooled, (-1, size**2, channels)), place, axis=0)

        def gradient(*args, upstream=None):
            upstream = ops.take(args[0] if upstream is None else upstream, order, axis=0)
            upstream = ops.reshape(ops.cast(upstream, "float32"), (-1, rows, channels))

            def spread(i, total):
                above = ops.take(upstream, i, axis=0)

                # The four taps are added at once, because TensorFlow without XLA copies the whole table at each update.
                def add(total, indices, weights):
                    index = ops.concatenate(indices)[:, None]
                    taps = ops.concatenate([above * weight for weight in weights])
                    return _with_added_rows(total, index, taps)

                return _over_samples(block(i), size, add, total)

            total = ops.fori_loop(0, blocks, spread, ops.zeros(ops.shape(table), "float32"))
            return ops.cast(total, table.dtype)

        return pooled, gradient

    return pooled_sum(table)
