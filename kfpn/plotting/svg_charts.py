"""Draws small charts as SVG: lines in the unit square, and bars."""

import html
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 370, 280
"""Pixels of a chart of lines, without its legend below."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40
_ROW, _NAMES, _BARS, _NOTES = 26, 165, 185, 230
"""Pixels of a chart of bars: the height of a row; the widths of names, bars and notes."""


class ChartLine(NamedTuple):
    """Holds a line of a chart.

    Attributes:
        name: shown where the pointer is on the line, and in the legend where `listed`.
        points: x and y in 0..1.
        color: as CSS has it.
        attributes: of the SVG element, such as a class.
        listed: whether the legend has it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    attributes: str = ""
    listed: bool = True


class ChartBar(NamedTuple):
    """Holds a bar of a chart: its name, its value, what is written behind it, and its colour."""

    name: str
    value: float | None
    note: str
    color: str = "#3b6ea8"


def line_chart(title: str, x_title: str, y_title: str, lines: Sequence[ChartLine]) -> str:
    """Returns a chart of lines whose axes go from 0 to 1.

    Args:
        title: what people hear who can't see it.
        x_title, y_title: of the axes.
        lines: from the bottom to the top.
    """
    parts = [_grid(x_title, y_title)]
    for line in lines:
        points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in line.points)
        parts.append(
            f'<polyline fill="none" stroke="{line.color}" stroke-width="2" points="{points}" {line.attributes}>'
            f"<title>{html.escape(line.name)}</title></polyline>"
        )
    listed = [line for line in lines if line.listed]
    for number, line in enumerate(listed):  # below the chart, in two columns
        x, y = _LEFT + (number % 2) * (WIDTH - _LEFT) // 2, HEIGHT + 12 + 16 * (number // 2)
        parts.append(
            f'<line x1="{x}" x2="{x + 18}" y1="{y}" y2="{y}" stroke="{line.color}" stroke-width="3"/>'
            f'<text x="{x + 23}" y="{y + 4}">{html.escape(_shortened(line.name, 22))}</text>'
        )
    return _svg(title, WIDTH, HEIGHT + 16 * -(-len(listed) // 2) + 4, parts)


def bar_chart(title: str, bars: Sequence[ChartBar], most: float) -> str:
    """Returns a chart of bars that lie below each other.

    Args:
        title: what people hear who can't see it.
        bars: from the top to the bottom; one without a value is not drawn, but named.
        most: the value of a bar that fills the width.
    """
    parts = []
    for row, bar in enumerate(bars):
        y = row * _ROW
        length = 0.0 if bar.value is None or most <= 0 else _BARS * min(1.0, max(0.0, bar.value / most))
        parts.append(
            f'<text x="{_NAMES - 8}" y="{y + 17}" text-anchor="end">{html.escape(_shortened(bar.name))}</text>'
            f'<rect x="{_NAMES}" y="{y + 5}" width="{_BARS}" height="16" fill="#eef1f5"/>'
            f'<rect x="{_NAMES}" y="{y + 5}" width="{length:.1f}" height="16" fill="{bar.color}"/>'
            f'<text x="{_NAMES + _BARS + 8}" y="{y + 17}">{html.escape(bar.note)}</text>'
        )
    return _svg(title, _NAMES + _BARS + _NOTES, max(1, len(bars)) * _ROW, parts)


def _x(value: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * value


def _y(value: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value


def _grid(x_title: str, y_title: str) -> str:
    parts = []
    for step in range(6):
        value = step / 5
        parts.append(
            f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(value):.1f}" y2="{_y(value):.1f}" stroke="#dde2e8"/>'
            f'<line y1="{_y(0)}" y2="{_y(1)}" x1="{_x(value):.1f}" x2="{_x(value):.1f}" stroke="#dde2e8"/>'
            f'<text x="{_LEFT - 6}" y="{_y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            f'<text x="{_x(value):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        )
    middle = (_y(0) + _y(1)) / 2
    parts.append(
        f'<text x="{(_x(0) + _x(1)) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_title)}</text>'
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{html.escape(y_title)}</text>'
    )
    return "".join(parts)


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def _shortened(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
