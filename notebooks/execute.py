"""Executes the notebooks and writes them anew with their outputs, as they are committed.

python notebooks/execute.py                          # all of them, at full size: minutes
python notebooks/execute.py own_data                 # one
python notebooks/execute.py --small --output FOLDER  # with the small values of each notebook, as the tests do

A cell that fails, or an output that must not be published, is said in one line, and the old file stays. What a notebook must be is
what faults.py checks; CONTRIBUTING.md says how to add one.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # of the checkout, for a script

from notebooks.faults import faults_of
from notebooks.notebook_files import (
    NOTEBOOKS,
    Notebook,
    code_cells,
    notebook_paths,
    read_notebook,
    tidied,
    with_small_values,
    written,
)

CELL_SECONDS, START_SECONDS = 900, 300
"""A cell that takes longer is stopped; a kernel that does not answer for so long at its start is given up."""


def executed(notebook: Notebook, name: str, folder: Path) -> Notebook:
    """Returns a notebook with the outputs of all its cells.

    Args:
        notebook: the notebook.
        name: what messages call it.
        folder: where it runs; what it writes stays there.

    Raises:
        ValueError: if nbclient is not there, or a cell fails; it names the cell.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
        from traitlets.config import Config
    except ImportError as error:
        raise ValueError(
            f'nbclient must be installed to execute notebooks, got none ({error}): pip install "kfpn[notebooks]"'
        ) from error
    fresh = copy.deepcopy(notebook)
    for cell in code_cells(fresh):
        cell.update(outputs=[], execution_count=None)
    node = nbformat.from_dict(fresh)
    search = os.pathsep.join(filter(None, (str(NOTEBOOKS.parent), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as sockets:  # in the place of ports; their path must be the same for the kernel
        client = NotebookClient(
            node,
            timeout=CELL_SECONDS,
            startup_timeout=START_SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
        try:
            client.execute(env={**os.environ, "PYTHONPATH": search})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise ValueError(f"{name}, {_failed_cell(node)}: must run, got {_said(error)}") from error
    return tidied(json.loads(nbformat.writes(node, version=4)))


def _failed_cell(node: Any) -> str:
    """Returns the number and the first line of the last cell that has begun."""
    begun = [
        number
        for number, cell in enumerate(code_cells(node), start=1)
        if cell["execution_count"] or cell["outputs"] or number == 1
    ]
    first_line = code_cells(node)[begun[-1] - 1]["source"].partition("\n")[0]
    return f"code cell {begun[-1]} ({first_line!r})"


def _said(error: Exception) -> str:
    if hasattr(error, "ename"):
        return f"{error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"


def main(args: Sequence[str] | None = None) -> int:
    """Executes notebooks and returns the exit code: 1 if one of them is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a notebook; none: all of them")
    parser.add_argument("--small", action="store_true", help="take the small values of each notebook")
    parser.add_argument(
        "--output", type=Path, default=NOTEBOOKS, help="the folder to write into; notebooks/ itself at full size"
    )
    asked = parser.parse_args(args)
    try:
        if asked.small and asked.output.resolve() == NOTEBOOKS:
            raise ValueError(
                "output must be another folder with --small, got notebooks/: name one with --output FOLDER"
            )
        asked.output.mkdir(parents=True, exist_ok=True)
        for path in notebook_paths(asked.names):
            notebook = read_notebook(path)
            with tempfile.TemporaryDirectory() as folder:
                done = executed(
                    with_small_values(notebook, path.name) if asked.small else notebook, path.name, Path(folder)
                )
            if faults := faults_of(done, path.name):
                raise ValueError("\n".join(faults))
            (asked.output / path.name).write_text(written(done), encoding="utf-8")
            print(f"{asked.output / path.name}: {(asked.output / path.name).stat().st_size / 1e6:.2f} MB")
    except (ValueError, OSError) as error:
        print(f"execute.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
