"""Draws the page that shows the segments of an image: the best of each level of the pyramid, and of each kind of window."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfpn.plotting.draw_boxes import draw_detections
from kfpn.plotting.draw_masks import Masks, enlarged_masks
from kfpn.plotting.panels import Color, Draw, Panel, Row, Sheet, draw_rows
from kfpn.plotting.pyramid_page import image_drawing, level_color, resized_picture

WINDOW_COLOR: Color = (1.0, 0.75, 0.35)
"""Of the window that a mask is laid over: light orange, as in figure 4 of the paper."""
OBJECT_COLOR: Color = (0.85, 0.4, 0.0)
"""Of the size of the objects that a window is meant for: dark orange, as there."""
COLUMNS = 5


@dataclasses.dataclass(frozen=True)
class DrawnSegments:
    """Some segments of an image, the surest first. All lengths are pixels of the network's input.

    Attributes:
        names: of each, such as "P3".
        scores: (n,) float32 in 0..1.
        boxes: (n, 4) yxyx, around each mask.
        windows: (n, 4) float32 yxyx, what each mask is laid over. They may reach beyond the image.
        masks: gives the mask of a row, see `kfpn.plotting.draw_masks`.
    """

    names: Sequence[str]
    scores: np.ndarray
    boxes: np.ndarray
    windows: np.ndarray
    masks: Masks


@dataclasses.dataclass(frozen=True)
class LevelSegments:
    """What a page shows of one kind of window on one level.

    Attributes:
        kind: "5x5" or "7x7".
        level: "P2" to "P6".
        size: float, the larger side in pixels of the objects that they are meant for.
        reach: float, the side of a window divided by `size`.
        total: int, how many of the image's segments come from it.
        best: those that are drawn.
    """

    kind: str
    level: str
    size: float
    reach: float
    total: int
    best: DrawnSegments


def draw_segment_page(
    image: np.ndarray, levels: Sequence[LevelSegments], best: DrawnSegments, path: str | Path
) -> None:
    """Draws the page of an image.

    The first row shows the image, and its best segments of all levels. There is a row for each kind of window, with a panel for each
    level: its best segments, and around the best one two squares as in figure 4 of the paper: its window, and the size of objects that
    it is meant for.

    Args:
        image: (H, W, 3) uint8 RGB, the network's input, without padding.
        levels: kind after kind, each from the finest level on.
        best: the best segments of all.
        path: the picture to write: .png, .jpg or .jpeg.
    """
    height, width = image.shape[:2]
    count = sum(one.total for one in levels)
    panels = [
        Panel(f"Image  {height} x {width}", image_drawing(image)),
        Panel(f"Best segments  {len(best.scores)} of {count}", _segments_drawing(image, best)),
    ]
    rows = [Row("", "", panels, 4)]
    note = "the best segments; squares at the surest: light what its mask is laid over, dark the size of objects it is meant for"
    columns = max(COLUMNS, len({one.level for one in levels}))
    for kind in dict.fromkeys(one.kind for one in levels):
        own = [_level_panel(image, one) for one in levels if one.kind == kind]
        rows.append(Row(f"Windows {kind}", note, own, columns))
    draw_rows(rows, height / width, path)


def _level_panel(image: np.ndarray, one: LevelSegments) -> Panel:
    title = f"{one.level}  objects of {one.size:.0f} px  {len(one.best.scores)} of {one.total}"
    return Panel(title, _segments_drawing(image, one.best, one.reach), level_color(int(one.level[1:])))


def _segments_drawing(image: np.ndarray, segments: DrawnSegments, reach: float | None = None) -> Draw:
    """Draws segments on the image, and with `reach` the squares at the surest."""

    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        enlarged = resized_picture(image, width, height)
        zoom = np.tile(np.divide(enlarged.shape[:2], image.shape[:2]), 2)
        picture = draw_detections(
            enlarged, segments.boxes * zoom, np.arange(len(segments.scores)), segments.scores, segments.names, text_size=13,
            masks=enlarged_masks(segments.masks, image.shape[:2], enlarged.shape[:2]),
        )  # fmt: skip
        axes = sheet.axes(left, top, width, height)
        axes.imshow(picture, aspect="auto")
        if reach is None or not len(segments.scores):
            return
        from matplotlib.patches import Rectangle

        for share, color in ((1.0, WINDOW_COLOR), (1.0 / reach, OBJECT_COLOR)):
            y1, x1, y2, x2 = _shrunk(segments.windows[0], share) * zoom
            axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=2))

    return draw


def _shrunk(box: np.ndarray, share: float) -> np.ndarray:
    """Returns a box yxyx with a share of its sides, around the same centre."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * share
    return np.concatenate([middle - half, middle + half])
