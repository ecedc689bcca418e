"""Lays the windows that segments are proposed from over the levels of a pyramid (FPN, section 6 and appendix B)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.ops.padding import valid_mask
from kfpn.ops.pyramid_levels import stride

REACH = 1.25
"""A window's side, of that of the objects it is meant for: "we use 25% padding" (FPN, appendix B)."""
CELLS = {"5x5": 5, "7x7": 7}
"""Kind of window -> cells of its level that the hidden layer sees, a side."""
FACTORS = {"5x5": 1.0, "7x7": math.sqrt(2.0)}
"""Kind of window -> how much larger its objects are than the size of the level."""


class WindowGrid(NamedTuple):
    """The windows of one kind on one level, one at each cell.

    Attributes:
        kind: "5x5" or "7x7".
        level: "P2" to "P6", or "C4".
        size: float, the larger side in pixels of the objects that they are meant for.
    """

    kind: str
    level: str
    size: float

    @property
    def side(self) -> float:
        """The side of a window in pixels: what its mask is laid over."""
        return REACH * self.size

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return stride(self.level)


def window_kinds(config: ModelConfig) -> tuple[str, ...]:
    """Returns the kinds of windows that a model has, "5x5" first."""
    return tuple(CELLS) if config.segment_windows == "both" else (config.segment_windows,)


def window_grids(config: ModelConfig) -> list[WindowGrid]:
    """Returns all grids of windows of a model, kind after kind, each from the finest level on.

    This is the order in which all functions here count windows: kind, level, row, column. The size of a level is its anchor size,
    32 to 512 pixels in the paper.
    """
    return [
        WindowGrid(kind, level, size * FACTORS[kind])
        for kind in window_kinds(config)
        for level, size in zip(config.levels, config.anchor_sizes, strict=True)
    ]


def cell_counts(levels: dict, config: ModelConfig) -> list[tuple[Any, Any]]:
    """Returns the rows and columns of each level, from the finest on: ints, or scalar tensors in a graph of open sizes."""
    return [tuple(ops.shape(levels[level])[1:3]) for level in config.levels]


def window_boxes(counts: Sequence[tuple[Any, Any]], config: ModelConfig) -> Any:
    """Returns all windows as boxes: (N, 4) float32 yxyx pixels, which may reach beyond the image.

    Centres lie at cell index x stride, as those of anchors do.

    Args:
        counts: of `cell_counts`.
        config: of the model.
    """
    boxes, kinds = [], len(window_kinds(config))
    for grid, (height, width) in zip(window_grids(config), [*counts] * kinds, strict=True):
        y, x = (ops.cast(ops.arange(side, dtype="int32") * grid.stride, "float32") for side in (height, width))
        flat = ops.zeros_like(y[:, None] + x[None])
        rows, columns, half = y[:, None] + flat, x[None] + flat, 0.5 * grid.side
        corners = ops.stack([rows - half, columns - half, rows + half, columns + half], axis=-1)
        boxes.append(ops.reshape(corners, (-1, 4)))
    return ops.concatenate(boxes, axis=0)


def usable_windows(counts: Sequence[tuple[Any, Any]], image_sizes, config: ModelConfig) -> Any:
    """Returns which windows stand at cells inside the images: (B, N) bool.

    Args:
        counts: of `cell_counts`.
        image_sizes: (B, 2) int, height and width in pixels.
        config: of the model.
    """
    of_levels = [
        ops.reshape(valid_mask(image_sizes, stride(level), height, width), (ops.shape(image_sizes)[0], -1))
        for level, (height, width) in zip(config.levels, counts, strict=True)
    ]
    return ops.concatenate(of_levels * len(window_kinds(config)), axis=1)


def window_count(config: ModelConfig, height: int, width: int) -> int:
    """Returns N, the number of all windows on a canvas of a height and width in pixels."""
    cells = sum(-(-height // stride(level)) * -(-width // stride(level)) for level in config.levels)
    return cells * len(window_kinds(config))


def window_patches(levels: dict, index, kind: str, config: ModelConfig) -> Any:
    """Cuts the cells of some windows out of their levels, zeros beyond the level: (B S, cells, cells, C).

    Args:
        levels: {"P2": (B, H, W, C), ...}.
        index: (B, S) int32, the windows, counted as in `window_grids`.
        kind: how many cells are cut: "5x5" or "7x7". Windows of the other kind are cut at their centre's place all the same.
        config: of the model.
    """
    cells, channels = CELLS[kind], levels[config.levels[0]].shape[-1]
    margin, tables, firsts, pitches, before = cells // 2, [], [], [], 0
    batch = ops.shape(levels[config.levels[0]])[0]
    for level, (height, width) in zip(config.levels, cell_counts(levels, config), strict=True):
        padded = ops.pad(levels[level], ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        pitch = width + 2 * margin
        tables.append(ops.reshape(padded, (batch, -1, channels)))
        cell = ops.arange(height * width, dtype="int32")
        firsts.append(before + cell // width * pitch + cell % width)
        pitches.append(ops.zeros_like(cell) + pitch)
        before = before + (height + 2 * margin) * pitch
    firsts, pitches = ops.concatenate(firsts, axis=0), ops.concatenate(pitches, axis=0)
    cell = ops.cast(index, "int32") % ops.shape(firsts)[0]
    first, pitch, step = ops.take(firsts, cell), ops.take(pitches, cell), ops.arange(cells, dtype="int32")
    rows = first[..., None, None] + pitch[..., None, None] * step[:, None] + step
    table = ops.concatenate(tables, axis=1)
    # All images' cells lie in one table, as in `gather_rows`.
    starts = ops.arange(batch, dtype="int32")[:, None, None, None] * ops.shape(table)[1]
    patches = ops.take(ops.reshape(table, (-1, channels)), rows + starts, axis=0)
    return ops.reshape(patches, (-1, cells, cells, channels))
