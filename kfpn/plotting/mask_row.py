"""Draws the row of a detector's page that shows the mask logits of its best detections."""

import numpy as np
from PIL import Image

from kfpn.plotting.draw_boxes import class_color
from kfpn.plotting.fonts import font_for, plain_font
from kfpn.plotting.panels import Draw, Panel, Row, Sheet, page_color
from kfpn.plotting.pyramid_view import PyramidView

COLUMNS = 6
COLORS = "coolwarm"
MOST = 8.0
"""Logits beyond it, on both sides, get the last colour."""
LONGEST_NAME = 24
"""Signs of a class's name over a panel."""
AROUND = 0.15
"""Share of a box's sides that is shown of the image around it."""


def rows_of_logits(view: PyramidView, min_score: float) -> list[Row]:
    """Returns the row of mask logits; no row for a detector without masks, or without a detection of at least a score.

    Args:
        view: of the image.
        min_score: 0..1.
    """
    if view.masks is None:
        return []
    scores = np.asarray(view.scores)
    order = np.argsort(-scores, kind="stable")
    best = [int(row) for row in order if scores[row] >= min_score][:COLUMNS]
    if not best:
        return []
    panels = [
        Panel(
            f"{title_of(view.class_names[view.labels[row]], int(view.labels[row]))} {100 * scores[row]:.0f}%",
            _logits_drawing(view, row, mask_logits(view.masks[row])),
            page_color(class_color(int(view.labels[row]))),
        )
        for row in best
    ]
    side = view.masks.shape[1]
    note = f"{side} x {side} cells over the box of each of the best detections, for its own class; the line is 0, a probability of .5"
    return [Row("Mask logits", note, panels, COLUMNS, (COLORS, f"-{MOST:g}", f"{MOST:g}"))]


def title_of(name: str, label: int) -> str:
    """Returns a class's name as matplotlib can write it over a panel: short, without formulas; the label where its font lacks signs."""
    text = " ".join(name.split())
    text = text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
    font = font_for(text, 16)
    return text.replace("$", r"\$") if font is not None and font.path == plain_font(16).path else str(label)


def mask_logits(mask: np.ndarray) -> np.ndarray:
    """Returns the logits of a mask (M, M) of probabilities, at most `MOST` on both sides."""
    low = 1.0 / (1.0 + np.exp(MOST))
    inside = np.clip(np.asarray(mask, np.float64), low, 1.0 - low)
    return np.log(inside) - np.log1p(-inside)


def _logits_drawing(view: PyramidView, row: int, logits: np.ndarray) -> Draw:
    def draw(sheet: Sheet, left: int, top: int, width: int, height: int) -> None:
        y1, x1, y2, x2 = (float(side) for side in view.boxes[row])
        border_y, border_x = max(2.0, AROUND * (y2 - y1)), max(2.0, AROUND * (x2 - x1))
        shown_height, shown_width = y2 - y1 + 2 * border_y, x2 - x1 + 2 * border_x
        zoom = min(width / shown_width, height / shown_height)
        axes = sheet.axes(left, top, shown_width * zoom, shown_height * zoom)
        gray = np.asarray(Image.fromarray(view.image).convert("L"))
        size = (0, gray.shape[1], gray.shape[0], 0)
        axes.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=size, aspect="auto")
        box = (x1, x2, y2, y1)
        axes.imshow(
            logits, cmap=COLORS, vmin=-MOST, vmax=MOST, extent=box, alpha=0.75, interpolation="nearest", aspect="auto"
        )
        if logits.min() < 0.0 < logits.max():
            cells = (np.arange(len(logits)) + 0.5) / len(logits)
            axes.contour(x1 + cells * (x2 - x1), y1 + cells * (y2 - y1), logits, [0.0], colors="black", linewidths=1.2)
        axes.set(xlim=(x1 - border_x, x2 + border_x), ylim=(y2 + border_y, y1 - border_y))

    return draw
