"""Lays out a page of panels in rows, measured in pixels, so that nothing overlaps for images of any shape."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# All measures are in pixels of the page.
WIDTH, MARGIN, GAP = 2000, 36, 26
HEADING, TITLE, BAR = 52, 34, 200
DPI = 100
TALLEST = 1.25
"""The largest height of a panel, divided by the width of its place. A taller image is drawn narrower."""

Color = tuple[float, float, float]
"""RGB, 0..1."""


def page_color(color: tuple[int, int, int]) -> Color:
    """Returns a colour of red, green and blue in 0..255 as pages take it."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


class Sheet(NamedTuple):
    """A matplotlib figure that is measured in pixels from its upper left corner.

    Attributes:
        figure: the figure, `WIDTH` pixels wide.
        height: int, pixels.
    """

    figure: Any
    height: int

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Returns new axes, without frame and ticks, at a place in pixels."""
        axes = self.figure.add_axes(
            (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        )
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, size: float, **options: Any) -> None:
        """Writes a line of text, `size` points high, whose middle is at `top`."""
        self.figure.text(left / WIDTH, 1 - top / self.height, text, fontsize=size, va="center", **options)

    def swatch(self, left: float, top: float, color: Color) -> None:
        """Draws a small square of a colour, whose middle is at `top`."""
        self.axes(left, top - 8, 16, 16).imshow([[color]], aspect="auto")

    def bar(self, left: float, top: float, colors: str, low: str, high: str) -> None:
        """Draws a colour bar, whose middle is at `top`, with the meanings of its two ends beside it."""
        self.text(left - 10, top, low, 11, ha="right")
        self.text(left + BAR + 10, top, high, 11, ha="left")
        self.axes(left, top - 8, BAR, 16).imshow(np.linspace(0, 1, 256)[None], cmap=colors, aspect="auto")


Draw = Callable[[Sheet, int, int, int, int], None]
"""Draws a panel's picture into a place of the sheet, given by left, top, width and height in pixels."""


class Panel(NamedTuple):
    """A picture with a title.

    Attributes:
        title: stands above the picture.
        draw: draws the picture.
        color: the colour of a small square before the title; None: no square.
    """

    title: str
    draw: Draw
    color: Color | None = None


class Row(NamedTuple):
    """Panels of one size side by side, under a heading.

    Attributes:
        heading: "" for a row without a heading.
        note: an explanation of what the row shows, which stands behind the heading.
        panels: at most `columns`, from left to right.
        columns: int, the number of panels that the row has room for.
        bar: a colour map, and the meanings of its low and its high end; None: no colour bar.
        foot: int, pixels that stay free under the panels.
    """

    heading: str
    note: str
    panels: Sequence[Panel]
    columns: int
    bar: tuple[str, str, str] | None = None
    foot: int = 0

    def place(self) -> int:
        """Returns the largest width of a panel in pixels."""
        return (WIDTH - 2 * MARGIN - (self.columns - 1) * GAP) // self.columns

    def panel_size(self, aspect: float) -> tuple[int, int]:
        """Returns a panel's width and height in pixels; `aspect` is its height divided by its width."""
        width = min(self.place(), self.place() * TALLEST / aspect)
        return max(1, round(width)), max(1, round(width * aspect))

    def height(self, aspect: float) -> int:
        """Returns the row's height in pixels."""
        return (HEADING if self.heading else 0) + TITLE + self.panel_size(aspect)[1] + self.foot

    def draw(self, sheet: Sheet, top: int, aspect: float) -> None:
        """Draws the row into the sheet, downward from `top`."""
        if self.heading:
            sheet.text(MARGIN, top + HEADING // 3, self.heading, 17, weight="bold")
            sheet.text(MARGIN + 200, top + HEADING // 3, self.note, 11.5, color="0.35")
            if self.bar:
                sheet.bar(WIDTH - MARGIN - BAR - 60, top + HEADING // 3, *self.bar)
            top += HEADING
        width, height = self.panel_size(aspect)
        for number, panel in enumerate(self.panels):
            left = MARGIN + number * (self.place() + GAP)
            if panel.color:
                sheet.swatch(left, top + TITLE / 3, panel.color)
            sheet.text(left + (24 if panel.color else 0), top + TITLE / 3, panel.title, 12.5)
            panel.draw(sheet, left, top + TITLE, width, height)


def draw_rows(rows: Sequence[Row], aspect: float, path: str | Path) -> None:
    """Draws rows of panels below one another.

    Args:
        rows: from top to bottom.
        aspect: the height of every panel divided by its width.
        path: the picture to write: .png, .jpg or .jpeg.
    """
    # matplotlib's object-oriented interface opens no window and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [row.height(aspect) for row in rows]
    total = 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1)
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        row.draw(Sheet(figure, total), top, aspect)
        top += height + GAP
    # The quality counts for a JPEG only, where Pillow's default blurs letters.
    figure.savefig(path, dpi=DPI, pil_kwargs={"quality": 92})
