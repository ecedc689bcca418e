"""Reads and writes notebooks, and says which of their cells are what."""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent

PARAMETERS, SILENT = "parameters", "silent"
"""Tags of cells: the one whose values small ones replace, and those that have no output."""
SMALL_CELL = "small-values"
"""The id of the cell with the small values."""

Notebook = dict[str, Any]

_START_LINES = re.compile(
    r"^(?:WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR|"
    r"[IWE]0000 00:00:.*(?:cuda|TensorRT|oneDNN|cpu_feature|computation_placer).*)\n",
    re.MULTILINE | re.IGNORECASE,
)
"""What TensorFlow writes when it is imported, in spite of its log level: about CUDA and the processor, on machines that differ."""


def notebook_paths(names: Sequence[str] = ()) -> list[Path]:
    """Returns the notebooks with some names, or all of them.

    Raises:
        ValueError: for a name that no notebook has.
    """
    paths = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for name in names:
        if name.removesuffix(".ipynb") not in paths:
            raise ValueError(f"NAME must be one of {', '.join(paths)}, got {name!r}")
    return [paths[name.removesuffix(".ipynb")] for name in names] or list(paths.values())


def read_notebook(path: Path) -> Notebook:
    """Returns a notebook, with the texts of its cells in one piece each."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """Returns the code cells of a notebook, in their order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags_of(cell: dict[str, Any]) -> list[str]:
    """Returns the tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def code_digest(notebook: Notebook) -> str:
    """Returns the digest of a notebook's code, by which one sees that the outputs are those of this code."""
    return hashlib.sha256("\0".join(cell["source"] for cell in code_cells(notebook)).encode()).hexdigest()


def with_small_values(notebook: Notebook, name: str) -> Notebook:
    """Returns a notebook with a cell behind the one with the tag `parameters`, which sets the small values of its metadata.

    Raises:
        ValueError: if there is no such cell, or a value that it does not set.
    """
    small = notebook["metadata"].get("kfpn", {}).get("small", {})
    places = [number for number, cell in enumerate(notebook["cells"]) if PARAMETERS in tags_of(cell)]
    if len(places) != 1 or not small:
        raise ValueError(
            f"{name} must have one cell with the tag {PARAMETERS!r} and small values for it in metadata.kfpn.small, got "
            f"{len(places)} and {len(small)}: see CONTRIBUTING.md"
        )
    known = re.findall(r"^(\w+) = ", notebook["cells"][places[0]]["source"], re.MULTILINE)
    if unknown := [one for one in small if one not in known]:
        raise ValueError(f"{name}: small values must be of {', '.join(known)}, got {unknown[0]}")
    source = "\n".join(f"{one} = {value!r}" for one, value in small.items())
    changed = copy.deepcopy(notebook)
    cell = {"cell_type": "code", "id": SMALL_CELL, "metadata": {"tags": [SILENT]}, "source": source,
            "execution_count": None, "outputs": []}  # fmt: skip
    changed["cells"].insert(places[0] + 1, cell)
    return changed


def tidied(notebook: Notebook) -> Notebook:
    """Returns an executed notebook without what differs between machines, and with the printed lines of a cell in one piece."""
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        merged: list[dict[str, Any]] = []
        for output in cell.get("outputs", []):
            if output["output_type"] != "stream":
                merged.append(output)
                continue
            text = "".join(output["text"])
            if merged and merged[-1].get("name") == output["name"]:
                merged[-1]["text"] += text
            else:
                merged.append({**output, "text": text})
        for output in merged:
            if output["output_type"] == "stream":  # a bar writes over its own line
                text = re.sub(r"^.*\r(?!\n)", "", output["text"].replace("\r\n", "\n"), flags=re.MULTILINE)
                output["text"] = _START_LINES.sub("", text)
        if "outputs" in cell:
            # Of a bar that was cleared white space is left.
            cell["outputs"] = [output for output in merged if output.get("text", "a picture").strip()]
    own = notebook["metadata"].get("kfpn", {})
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "kfpn": {**own, "executed": code_digest(notebook)},
    }
    return notebook


def written(notebook: Notebook) -> str:
    """Returns the text of a notebook's file: lines of a cell are lines of the file."""

    def in_lines(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: in_lines(one, name) for name, one in value.items()}
        if isinstance(value, str) and key in ("source", "text", "text/plain", "text/html", "text/markdown"):
            return value.splitlines(keepends=True)
        return [in_lines(one) for one in value] if isinstance(value, list) else value

    return json.dumps(in_lines(notebook), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
