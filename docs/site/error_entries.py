"""Turns the tables of docs/bad_input.md into entries with a heading each, so that the site's search leads to the message itself."""

import html
import re

ROW = re.compile(r"^\|(?P<cells>.*)\|\s*$")
RULE = re.compile(r"^\|[\s:|-]+\|\s*$")
HEADER = "| what was done | what kfpn answers |"
CELLS = re.compile(r"(?:`+[^`]*`+|\\.|[^|])+")


def cells_of(row: str) -> list[str]:
    """Returns the cells of a table's row; a bar within code or behind a backslash belongs to its cell."""
    match = ROW.match(row)
    return [cell.strip() for cell in CELLS.findall(match["cells"])] if match else []


def messages_of(markdown: str) -> list[str]:
    """Returns the messages in the second column of the tables, each as its program prints it."""
    messages = []
    for _, answer in rows_of(markdown):
        messages += [span.strip("` ") for span in re.findall(r"(?:``.+?``|`[^`]+`)", answer) if "kfpn: " in span]
    return messages


def rows_of(markdown: str) -> list[tuple[str, str]]:
    """Returns (what was done, what kfpn answers) of all rows of these tables."""
    rows, inside = [], False
    for line in markdown.splitlines():
        inside = line.strip() == HEADER or (inside and line.startswith("|"))
        if inside and line.strip() != HEADER and not RULE.match(line):
            done, answer = cells_of(line)
            rows.append((done, answer))
    return rows


def with_entries(markdown: str) -> str:
    """Returns the page with an entry for each row: a heading of the fourth level, and the answer below it."""
    lines, inside = [], False
    for line in markdown.splitlines():
        inside = line.strip() == HEADER or (inside and line.startswith("|"))
        if not inside:
            lines.append(line)
        elif line.strip() != HEADER and not RULE.match(line):
            done, answer = cells_of(line)
            lines += ["", f"#### {done}", "", answer.replace("<br>", "<br>\n")]
    return "\n".join(lines) + "\n"


def shown_text(page: str) -> str:
    """Returns the words of a piece of HTML, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
