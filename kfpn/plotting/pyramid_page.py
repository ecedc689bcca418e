"""Draws the page that shows a detector at work: the maps of its levels, its proposals, its RoIs and its detections."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfpn.plotting.draw_boxes import class_color, draw_detections
from kfpn.plotting.draw_masks import chosen_masks, enlarged_masks
from kfpn.plotting.mask_row import rows_of_logits
from kfpn.plotting.panels import Color, Draw, Panel, Row, Sheet, draw_rows, page_color
from kfpn.plotting.pyramid_view import FeatureMap, PyramidView, level_counts

PERCENTILES = (1.0, 99.0)
"""The percentiles of a map's cells that get the first and the last colour."""
ACTIVATION_COLORS, OBJECTNESS_COLORS = "viridis", "inferno"
OPACITY = 0.8
FOOT = 60
"""Pixels under the first row, for its legends."""


def level_color(number: int) -> Color:
    """Returns the RGB colour, 0..1 each, of the level with a number (2, 3, ...); it is the same on every page."""
    return page_color(class_color(number - 2))


def between_percentiles(strength: np.ndarray) -> np.ndarray:
    """Scales a map to 0..1, so that its 1st percentile becomes 0 and its 99th becomes 1.

    Args:
        strength: (H, W) float32.

    Returns:
        (H, W) float32; 0 everywhere for a map that is the same everywhere.
    """
    low, high = np.percentile(strength, PERCENTILES)
    return np.clip((strength - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(strength)


def spread_over_image(values: np.ndarray, stride: int, image_size: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Enlarges a map to its image: each pixel gets the value of the cell whose centre is nearest.

    The centre of a cell is at its index x stride, where its anchors are. So only half of the first row and column of cells
    lies inside the image.

    Args:
        values: (h, w), the map.
        stride: int, pixels of the image from cell to cell.
        image_size: (2,) int, height and width of the image in pixels.
        shape: (2,) int, height and width of the result.

    Returns:
        An array of `shape`, of the dtype of `values`.
    """
    rows, columns = (
        np.minimum(
            np.floor((np.arange(shape[axis]) + 0.5) / shape[axis] * image_size[axis] / stride + 0.5),
            values.shape[axis] - 1,
        )
        for axis in (0, 1)
    )
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def draw_page(view: PyramidView, path: str | Path, min_score: float = 0.5, drawn: int = 50) -> None:
    """Draws the page of an image.

    The first row shows the image, its best proposals, its RoIs in the colours of the levels that they are pooled from, and
    its detections. The other rows show the backbone's maps, the pyramid's maps and the RPN's objectness, each laid over
    the image (see `spread_over_image`), and the mask logits of the best detections, each laid over its box.

    Args:
        view: all that the page shows.
        path: the picture to write: .png, .jpg or .jpeg.
        min_score: detections with a lower score are not drawn.
        drawn: the largest number of proposals and of RoIs to draw, best first; the legend counts all of them.
    """
    rows = [_first_row(view, min_score, drawn), *_map_rows(view), *rows_of_logits(view, min_score)]
    draw_rows(rows, view.image.shape[0] / view.image.shape[1], path)


def _first_row(view: PyramidView, min_score: float, drawn: int) -> Row:
    keep = np.asarray(view.scores) >= min_score
    height, width = view.image.shape[:2]
    count = len(view.rois)
    shown = min(drawn, count)
    best = f"best {shown} of {count}" if shown < count else f"{count}"
    panels = [
        Panel(f"Image  {height} x {width}", image_drawing(view.image)),
        Panel(f"Proposals  {best}", _proposals_drawing(view, shown)),
        Panel(f"RoIs by level  {best}", _rois_drawing(view, shown)),
        Panel(f"Detections  {int(keep.sum())} (score ≥ {min_score:g})", _detections_drawing(view, keep)),
    ]
    return Row("", "", panels, len(panels), foot=FOOT)


def image_drawing(image: np.ndarray) -> Draw:
    """Returns what draws an image (H, W, 3) uint8 into a panel."""

    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        sheet.axes(left, top, width, height).imshow(resized_picture(image, width, height), aspect="auto")

    return draw


def _detections_drawing(view: PyramidView, keep: np.ndarray) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        enlarged = resized_picture(view.image, width, height)
        boxes = view.boxes[keep] * np.tile(np.divide(enlarged.shape[:2], view.image.shape[:2]), 2)
        masks = chosen_masks(view.parts, np.flatnonzero(keep))
        picture = draw_detections(
            enlarged, boxes, view.labels[keep], view.scores[keep], view.class_names, text_size=15,
            masks=masks and enlarged_masks(masks, view.image.shape[:2], enlarged.shape[:2]),
        )  # fmt: skip
        sheet.axes(left, top, width, height).imshow(picture, aspect="auto")

    return draw


def _proposals_drawing(view: PyramidView, shown: int) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        import matplotlib

        colors = matplotlib.colormaps[OBJECTNESS_COLORS](view.roi_scores[:shown])
        _draw_outlines(sheet.axes(left, top, width, height), view, colors, brightness=0.6)
        sheet.bar(left + 120, top + height + 24, OBJECTNESS_COLORS, "objectness 0", "1")

    return draw


def _rois_drawing(view: PyramidView, shown: int) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        colors = np.array([level_color(int(number)) for number in view.roi_levels[:shown]]).reshape(-1, 3)
        _draw_outlines(sheet.axes(left, top, width, height), view, colors, brightness=0.5)
        for number, (name, count) in enumerate(level_counts(view).items()):
            x, y = left + number % 2 * 190, top + height + 18 + number // 2 * 26
            sheet.swatch(x, y, level_color(int(name[1:])))
            sheet.text(x + 24, y, f"{name}: {count} of {len(view.rois)}", 11.5)

    return draw


def _draw_outlines(axes: Any, view: PyramidView, colors: np.ndarray, brightness: float) -> None:
    """Draws the outlines of the first RoIs on the dimmed image, one for each colour, the best on top."""
    from matplotlib.collections import LineCollection

    height, width = view.image.shape[:2]
    axes.imshow(
        brightness * _gray(view.image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect="auto"
    )
    y1, x1, y2, x2 = view.rois[: len(colors)][::-1].T
    corners = np.stack([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]).transpose(2, 0, 1)
    axes.add_collection(LineCollection(list(corners), colors=colors[::-1], linewidths=1.2), autolim=False)
    axes.set(xlim=(0, width), ylim=(height, 0))


def _map_rows(view: PyramidView) -> list[Row]:
    stages, levels = list(view.stages), list(view.levels)
    columns = max(4, len(stages), len(levels), min(len(view.objectness), 6))
    single = len(levels) == 1 and len(stages) < columns
    # A pyramid of one level stands beside the backbone if there is room for it.
    if single:
        stages, levels = stages + levels, []
    note = "length of each cell's vector of channels; each map from its own 1st to its 99th percentile"
    rows = []
    for heading, maps in (("Backbone, pyramid" if single else "Backbone", stages), ("Pyramid", levels)):
        panels = [_map_panel(view, one) for one in maps]
        rows += _wrapped_rows(heading, note, panels, columns, (ACTIVATION_COLORS, "weak", "strong"))
    panels = [
        Panel(
            f"{one.level}  anchors of {one.size:g} px",
            _map_drawing(view, one.probability, one.stride, OBJECTNESS_COLORS),
        )
        for one in view.objectness
    ]
    note = "the RPN's probability of an object, the best of a cell's aspect ratios"
    return rows + _wrapped_rows("Objectness", note, panels, columns, (OBJECTNESS_COLORS, "0", "1"))


def _wrapped_rows(
    heading: str, note: str, panels: Sequence[Panel], columns: int, bar: tuple[str, str, str]
) -> list[Row]:
    starts = range(0, len(panels), columns)
    return [
        Row(*((heading, note) if start == 0 else ("", "")), panels[start : start + columns], columns, bar)
        for start in starts
    ]


def _map_panel(view: PyramidView, one: FeatureMap) -> Panel:
    height, width = one.strength.shape
    title = f"{one.name}  stride {one.stride}  {height} x {width} x {one.channels}"
    color = level_color(int(one.name[1:])) if one.name in view.pooled else None
    return Panel(title, _map_drawing(view, between_percentiles(one.strength), one.stride, ACTIVATION_COLORS), color)


def _map_drawing(view: PyramidView, values: np.ndarray, stride: int, colors: str) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        axes, shape = sheet.axes(left, top, width, height), (height, width)
        axes.imshow(_gray(resized_picture(view.image, width, height)), cmap="gray", vmin=0, vmax=255, aspect="auto")
        cells = spread_over_image(values, stride, view.image.shape[:2], shape)
        axes.imshow(cells, cmap=colors, vmin=0, vmax=1, alpha=OPACITY, interpolation="nearest", aspect="auto")

    return draw


def _gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


def resized_picture(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns an image (H, W, 3) uint8 in another size, (height, width, 3)."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
