"""One page that shows what happens inside a detector: the maps of its levels, its proposals, RoIs and detections."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfpn.plotting.draw_boxes import class_color, draw_detections
from kfpn.plotting.panels import Color, Draw, Panel, Row, Sheet, draw_rows

PERCENTILES = (1.0, 99.0)  # of a map's cells: the ends of its colours
ACTIVATION_COLORS, OBJECTNESS_COLORS = "viridis", "inferno"
OPACITY = 0.8
FOOT = 60  # pixels under the first row, for its legends


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """How strongly each cell of a level answers.

    Attributes:
        name: "C2" to "C5" or "P2" to "P6".
        stride: int, pixels from cell to cell.
        channels: int.
        strength: (H, W) float32, the length (L2 norm) of each cell's vector of channels.
    """

    name: str
    stride: int
    channels: int
    strength: np.ndarray


@dataclasses.dataclass(frozen=True)
class Objectness:
    """How sure the RPN is that an anchor of one size and level holds an object.

    Attributes:
        level: its name.
        stride: int, pixels from cell to cell.
        size: float, side in pixels of the square anchor.
        probability: (H, W) float32 in 0..1, the best of a cell's aspect ratios.
    """

    level: str
    stride: int
    size: float
    probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class PyramidView:
    """What a page shows of one image. Boxes are yxyx pixels of the network's input.

    Attributes:
        image: (H, W, 3) uint8 RGB, the network's input, without padding.
        stages: the backbone's, C2 first.
        levels: the pyramid's, P2 first; empty where the RPN looks at a stage itself.
        objectness: of each level and anchor size.
        rois: (R, 4) float32, best first.
        roi_scores: (R,) float32, their objectness in 0..1.
        roi_levels: (R,) int, the number of the level that each is pooled from (FPN, equation 1).
        pooled: names of the levels that RoIs are pooled from.
        boxes: (n, 4) float32, the detections. labels: (n,) int class ids. scores: (n,) float32 in 0..1.
        class_names: of labels 0 .. K-1.
    """

    image: np.ndarray
    stages: Sequence[FeatureMap]
    levels: Sequence[FeatureMap]
    objectness: Sequence[Objectness]
    rois: np.ndarray
    roi_scores: np.ndarray
    roi_levels: np.ndarray
    pooled: Sequence[str]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: Sequence[str]


def level_color(number: int) -> Color:
    """Returns the RGB colour of level 2, 3, ..., 0..1 each, the same on every page."""
    red, green, blue = class_color(number - 2)
    return red / 255, green / 255, blue / 255


def level_counts(view: PyramidView) -> dict[str, int]:
    """Returns how many RoIs are pooled from each level: {"P2": 103, ...}."""
    return {name: int((np.asarray(view.roi_levels) == int(name[1:])).sum()) for name in view.pooled}


def relative(strength: np.ndarray) -> np.ndarray:
    """Brings a map to 0..1: its 1st percentile becomes 0, its 99th 1; a map that is the same everywhere 0."""
    low, high = np.percentile(strength, PERCENTILES)
    return np.clip((strength - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(strength)


def spread(values: np.ndarray, stride: int, image_size: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Lays a map over its image: each pixel takes the cell whose centre is nearest.

    A cell's centre is its index x stride, where its anchors are: the first row of cells shows by half.

    Args:
        values: (h, w), the map.
        stride: int, pixels of the image from cell to cell.
        image_size: (2,) int, height and width of the image in pixels.
        shape: (2,) int, height and width of the result.

    Returns:
        An array of `shape`.
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

    The first row holds the image, its best proposals, its RoIs in the colour of the level each is pooled from, and its
    detections; the others the backbone's maps, the pyramid's and the RPN's objectness, each over the image, see `spread`.

    Args:
        view: what is shown.
        path: the picture that is written: .png, .jpg or .jpeg.
        min_score: detections below it are left out.
        drawn: proposals and RoIs that are drawn at most, the best ones; the legend counts all.
    """
    draw_rows([_pictures(view, min_score, drawn), *_map_rows(view)], view.image.shape[0] / view.image.shape[1], path)


def _pictures(view: PyramidView, min_score: float, drawn: int) -> Row:
    keep = np.asarray(view.scores) >= min_score
    height, width = view.image.shape[:2]
    count = len(view.rois)
    shown = min(drawn, count)
    best = f"best {shown} of {count}" if shown < count else f"{count}"
    panels = [
        Panel(f"Image  {height} x {width}", _picture(view.image)),
        Panel(f"Proposals  {best}", _proposals(view, shown)),
        Panel(f"RoIs by level  {best}", _rois(view, shown)),
        Panel(f"Detections  {int(keep.sum())} (score ≥ {min_score:g})", _detections(view, keep)),
    ]
    return Row("", "", panels, len(panels), foot=FOOT)


def _picture(image: np.ndarray) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        sheet.axes(left, top, width, height).imshow(_resized(image, width, height), aspect="auto")

    return draw


def _detections(view: PyramidView, keep: np.ndarray) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        enlarged = _resized(view.image, width, height)
        boxes = view.boxes[keep] * np.tile(np.divide(enlarged.shape[:2], view.image.shape[:2]), 2)
        picture = draw_detections(enlarged, boxes, view.labels[keep], view.scores[keep], view.class_names, text_size=15)
        sheet.axes(left, top, width, height).imshow(picture, aspect="auto")

    return draw


def _proposals(view: PyramidView, shown: int) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        import matplotlib

        colors = matplotlib.colormaps[OBJECTNESS_COLORS](view.roi_scores[:shown])
        _draw_boxes(sheet.axes(left, top, width, height), view, colors, brightness=0.6)
        sheet.bar(left + 120, top + height + 24, OBJECTNESS_COLORS, "objectness 0", "1")

    return draw


def _rois(view: PyramidView, shown: int) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        colors = np.array([level_color(int(number)) for number in view.roi_levels[:shown]]).reshape(-1, 3)
        _draw_boxes(sheet.axes(left, top, width, height), view, colors, brightness=0.5)
        for number, (name, count) in enumerate(level_counts(view).items()):
            x, y = left + number % 2 * 190, top + height + 18 + number // 2 * 26
            sheet.swatch(x, y, level_color(int(name[1:])))
            sheet.text(x + 24, y, f"{name}: {count} of {len(view.rois)}", 11.5)

    return draw


def _draw_boxes(axes: Any, view: PyramidView, colors: np.ndarray, brightness: float) -> None:
    """Draws the best boxes on the dimmed image, one for each colour, the best on top."""
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
    if single:  # beside the backbone, where there is room for it
        stages, levels = stages + levels, []
    note = "length of each cell's vector of channels; each map from its own 1st to its 99th percentile"
    rows = []
    for heading, maps in (("Backbone, pyramid" if single else "Backbone", stages), ("Pyramid", levels)):
        panels = [_map_panel(view, one) for one in maps]
        rows += _wrapped(heading, note, panels, columns, (ACTIVATION_COLORS, "weak", "strong"))
    panels = [
        Panel(
            f"{one.level}  anchors of {one.size:g} px", _heat_map(view, one.probability, one.stride, OBJECTNESS_COLORS)
        )
        for one in view.objectness
    ]
    note = "the RPN's probability of an object, the best of a cell's aspect ratios"
    return rows + _wrapped("Objectness", note, panels, columns, (OBJECTNESS_COLORS, "0", "1"))


def _wrapped(heading: str, note: str, panels: Sequence[Panel], columns: int, bar: tuple[str, str, str]) -> list[Row]:
    starts = range(0, len(panels), columns)
    return [
        Row(*((heading, note) if start == 0 else ("", "")), panels[start : start + columns], columns, bar)
        for start in starts
    ]


def _map_panel(view: PyramidView, one: FeatureMap) -> Panel:
    height, width = one.strength.shape
    title = f"{one.name}  stride {one.stride}  {height} x {width} x {one.channels}"
    color = level_color(int(one.name[1:])) if one.name in view.pooled else None
    return Panel(title, _heat_map(view, relative(one.strength), one.stride, ACTIVATION_COLORS), color)


def _heat_map(view: PyramidView, values: np.ndarray, stride: int, colors: str) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        axes, shape = sheet.axes(left, top, width, height), (height, width)
        axes.imshow(_gray(_resized(view.image, width, height)), cmap="gray", vmin=0, vmax=255, aspect="auto")
        cells = spread(values, stride, view.image.shape[:2], shape)
        axes.imshow(cells, cmap=colors, vmin=0, vmax=1, alpha=OPACITY, interpolation="nearest", aspect="auto")

    return draw


def _gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
