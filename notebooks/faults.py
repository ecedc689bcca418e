"""Says what is wrong with an executed notebook before it is published."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image

from notebooks.notebook_files import SILENT, SMALL_CELL, Notebook, code_cells, code_digest, tags_of, written

LARGEST_FILE, LARGEST_PICTURE = 1_500_000, 450_000
"""Bytes of a notebook, and of a picture in it."""
WIDEST_PICTURE = 1400
"""Pixels: a page is not wider."""
MOST_LINES = 60
"""Lines that a cell may print."""

_PATH = re.compile(
    r"(?<![\w.:/<])(?:/(?:home|root|tmp|opt|usr|var|work|mnt|srv|etc|Users|private)/[\w.+-]+|[A-Z]:\\\w+)"
)
_NOISE = re.compile(r"\b0x[0-9a-f]{6,}|\bWARNING\b|Warning: |^[WIE]\d{4} |\x1b\[", re.MULTILINE)
_PICTURES = ("image/png", "image/jpeg")


def faults_of(notebook: Notebook, name: str) -> list[str]:
    """Returns a sentence for each thing that an executed notebook must not have before it is published."""
    faults = [f"{name}: {fault}" for fault in _faults_of_text(notebook)]
    for number, cell in enumerate(code_cells(notebook), start=1):
        where = f"{name}, code cell {number}"
        if cell["execution_count"] != number:
            faults.append(f"{where}: must have run as number {number}, got {cell['execution_count']}: execute it anew")
        if bool(cell["outputs"]) == (SILENT in tags_of(cell)):
            faults.append(
                f"{where}: must have an output, or the tag {SILENT!r} and none, got {len(cell['outputs'])} outputs"
            )
        faults += [f"{where}: {fault}" for output in cell["outputs"] for fault in _faults_of_output(output)]
    size = len(written(notebook).encode())
    if size > LARGEST_FILE:
        faults.append(f"{name}: must have at most {LARGEST_FILE:,} bytes, got {size:,}: show fewer or smaller pictures")
    return faults


def _faults_of_text(notebook: Notebook) -> Iterator[str]:
    if notebook["metadata"].get("kfpn", {}).get("executed") != code_digest(notebook):
        yield "its code was changed after its outputs were made: execute it anew"
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    for before, kind, cell in zip(["code", *kinds], kinds, notebook["cells"], strict=False):
        if kind == "code" and before == "code" and cell.get("id") != SMALL_CELL:
            yield f"a text must stand before each code cell, got none before {cell['source'].partition(chr(10))[0]!r}"


def _faults_of_output(output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "error":
        yield f"must not fail, got {output['ename']}: {output['evalue']}"
        return
    data = output.get("data", {})
    texts = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))]
    text = "\n".join("".join(one) for one in texts)
    if output.get("name") == "stderr":
        yield f"must write nothing to stderr, got {text.strip()[:200]!r}"
    for pattern, what in ((_PATH, "a path of this machine"), (_NOISE, "a warning or an address in memory")):
        if match := pattern.search(text):
            line = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            yield f"must not show {what}, got {line[:200]!r}"
    if text.count("\n") > MOST_LINES:
        yield f"must print at most {MOST_LINES} lines, got {text.count(chr(10))}"
    for kind in _PICTURES:
        if kind in data:
            yield from _faults_of_picture(base64.b64decode("".join(data[kind])))


def _faults_of_picture(content: bytes) -> Iterator[str]:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if len(content) > LARGEST_PICTURE or picture.width > WIDEST_PICTURE:
        yield (
            f"a picture must have at most {LARGEST_PICTURE:,} bytes and {WIDEST_PICTURE} pixels of width, got {len(content):,} and "
            f"{picture.width}"
        )
    if all(high - low < 8 for low, high in picture.getextrema()):  # a JPEG of one colour has a little more
        yield "a picture must show something, got one colour"
