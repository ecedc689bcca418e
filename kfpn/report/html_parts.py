"""Writes the small parts of a page: tables, numbers, colours, folded parts; every text of others is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kfpn.plotting.draw_boxes import class_color

COLORS = {
    "missed": "#7a3b9a", "background": "#c0392b", "class": "#d98200", "place": "#2a7f9e", "duplicate": "#6b7a1e", "both": "#8a6d5b",
}  # fmt: skip
"""The colour of each kind of error."""
BLUE, ORANGE, GRAY = "#3b6ea8", "#d98200", "#8a94a0"


class Cell(NamedTuple):
    """Holds a cell of a table: its HTML, and the attributes of its element."""

    content: str
    attributes: str = ""


def text_of(value: object) -> str:
    """Returns any text as HTML."""
    return html.escape(str(value))


def share(value: float | None, digits: int = 3) -> str:
    """Returns a figure of 0..1, as AP is; a dash for None."""
    return "—" if value is None else f"{value:.{digits}f}"


def difference(before: float | None, after: float | None) -> str:
    """Returns how much a figure rose, with its sign, as HTML; a dash where one of both is None."""
    if before is None or after is None:
        return "—"
    change = after - before
    kind = "better" if change >= 0.0005 else "worse" if change <= -0.0005 else ""
    return f'<span class="{kind}">{change:+.3f}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]], attributes: Iterable[str] = ()) -> str:
    """Returns a table.

    Args:
        head: the titles of the columns, text.
        rows: of cells, HTML.
        attributes: of each row's element, such as its class of objects; none: they have none.
    """
    given = list(attributes)
    lines = []
    for number, row in enumerate(rows):
        cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
        inside = "".join(f"<td {cell.attributes}>{cell.content}</td>" for cell in cells)
        lines.append(f"<tr {given[number] if given else ''}>{inside}</tr>")
    titles = "".join(f"<th>{text_of(title)}</th>" for title in head)
    return f"<div class='wide'><table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def folded(title: str, content: str) -> str:
    """Returns a part that is shown when its title is clicked."""
    return f"<details><summary>{text_of(title)}</summary>{content}</details>"


def section(anchor: str, title: str, *content: str) -> str:
    """Returns a section of the page.

    Args:
        anchor: by which the list at the top finds it.
        title: text.
        content: HTML.
    """
    return f'<section id="{anchor}"><h2>{text_of(title)}</h2>{"".join(content)}</section>'


def paragraph(content: str) -> str:
    """Returns a paragraph of HTML."""
    return f"<p>{content}</p>"


def small_print(content: str) -> str:
    """Returns a paragraph of HTML in small gray letters."""
    return f'<p class="note">{content}</p>'


def beside(*parts: str) -> str:
    """Returns parts that lie beside each other where there is room."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def css_color(label: int) -> str:
    """Returns the colour of a class, the same as in pictures."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def choice(identity: str, title: str, options: Iterable[tuple[str, str]]) -> str:
    """Returns a menu.

    Args:
        identity: of its element.
        title: beside it.
        options: (value, text), the first of which is chosen.
    """
    inside = "".join(f'<option value="{text_of(value)}">{text_of(name)}</option>' for value, name in options)
    return f'<label>{text_of(title)} <select id="{identity}">{inside}</select></label>'
