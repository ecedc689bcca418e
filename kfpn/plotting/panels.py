"""A page of panels in rows, measured in pixels, so that nothing overlaps whatever the images' shape."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Pixels of the page.
WIDTH, MARGIN, GAP = 2000, 36, 26
HEADING, TITLE, BAR = 52, 34, 200
DPI = 100
TALLEST = 1.25  # height of a panel by its place's width; a taller image is drawn narrower

Color = tuple[float, float, float]
"""RGB, 0..1."""


class Sheet(NamedTuple):
    """A figure that is measured in pixels from its upper left corner.

    Attributes:
        figure: of matplotlib, `WIDTH` pixels wide.
        height: int, pixels.
    """

    figure: Any
    height: int

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Returns axes without frame and ticks at a place."""
        axes = self.figure.add_axes(
            (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        )
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, size: float, **options: Any) -> None:
        """Writes a line of text, centred on `top`, `size` points high."""
        self.figure.text(left / WIDTH, 1 - top / self.height, text, fontsize=size, va="center", **options)

    def swatch(self, left: float, top: float, color: Color) -> None:
        """Draws a small square of a colour, centred on `top`."""
        self.axes(left, top - 8, 16, 16).imshow([[color]], aspect="auto")

    def bar(self, left: float, top: float, colors: str, low: str, high: str) -> None:
        """Draws a colour bar, centred on `top`, with what its ends mean beside it."""
        self.text(left - 10, top, low, 11, ha="right")
        self.text(left + BAR + 10, top, high, 11, ha="left")
        self.axes(left, top - 8, BAR, 16).imshow(np.linspace(0, 1, 256)[None], cmap=colors, aspect="auto")


Draw = Callable[[Sheet, int, int, int, int], None]
"""Draws a panel into a place of the sheet: left, top, width, height in pixels."""


class Panel(NamedTuple):
    """A picture with a title.

    Attributes:
        title: stands above it.
        draw: draws it.
        color: of a small square before the title; None: no square.
    """

    title: str
    draw: Draw
    color: Color | None = None


class Row(NamedTuple):
    """Panels of one size side by side, under a heading.

    Attributes:
        heading: "" for a row without one.
        note: what the row shows, behind the heading.
        panels: from left to right, at most `columns`.
        columns: int, panels that the row has place for.
        bar: a colour map, and what its low and high end mean; None: no colour bar.
        foot: int, pixels left free under the panels.
    """

    heading: str
    note: str
    panels: Sequence[Panel]
    columns: int
    bar: tuple[str, str, str] | None = None
    foot: int = 0

    def place(self) -> int:
        """Returns the width in pixels that a panel has at most."""
        return (WIDTH - 2 * MARGIN - (self.columns - 1) * GAP) // self.columns

    def panel_size(self, aspect: float) -> tuple[int, int]:
        """Returns a panel's width and height in pixels, of its height by width."""
        width = min(self.place(), self.place() * TALLEST / aspect)
        return max(1, round(width)), max(1, round(width * aspect))

    def height(self, aspect: float) -> int:
        """Returns the row's height in pixels."""
        return (HEADING if self.heading else 0) + TITLE + self.panel_size(aspect)[1] + self.foot

    def draw(self, sheet: Sheet, top: int, aspect: float) -> None:
        """Draws the row into the sheet, from `top` on."""
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
        aspect: height by width of every panel.
        path: the picture that is written, .png, .jpg or .jpeg.
    """
    # The object-oriented interface: no window, no global state of pyplot.
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
    figure.savefig(path, dpi=DPI, pil_kwargs={"quality": 92})  # of a JPEG, whose default blurs letters
