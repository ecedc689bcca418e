"""Turns the notebooks of the repository into pages of the site: their texts, their code, and the outputs that are kept in them."""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "notebooks"
"""The folder of the notebooks in the repository, and of their pages in the site."""
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg"}


def notebooks() -> list[Path]:
    """Returns the notebooks of the repository."""
    return sorted((ROOT / FOLDER).glob("*.ipynb"))


def page_of(notebook: Path) -> str:
    """Returns where the page of a notebook stands in the site."""
    return f"{FOLDER}/{notebook.stem}.md"


def shown_notebook(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Returns the Markdown of a notebook's page, and the files that belong to it: place in the site -> content."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    files: dict[str, bytes] = {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(_fenced(source, "python"))
        for row, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            kind = next((kind for kind in _ENDINGS if kind in data), None)
            if kind is not None:
                name = f"{notebook.stem}/{number}_{row}.{_ENDINGS[kind]}"
                files[f"{FOLDER}/{name}"] = base64.b64decode("".join(data[kind]))
                parts.append(f"![What the cell shows]({name})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(_fenced(text.rstrip(), "text"))
    # As HTML, because a link in Markdown would lead to this page.
    note = f'*This page is a notebook with the outputs of its last run.* <a href="../{notebook.name}" download>Download it</a>.'
    files[f"{FOLDER}/{notebook.name}"] = notebook.read_bytes()
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n", files


def _fenced(text: str, language: str) -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{fence}{language}\n{text}\n{fence}"
