"""Lists what a folder holds, without what systems hide in it."""

import os
from pathlib import Path

from kfpn.data.folder_index import is_hidden


def names_in(folder: str | Path) -> list[str]:
    """Returns the names of what a folder holds, sorted; none where it can't be read.

    Hidden files and macOS's folder of notes on files are left out.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not is_hidden(name) and name != "__MACOSX")
    except OSError:
        return []


def entries_of(folder: Path) -> list[Path]:
    """Returns the paths of what `names_in` lists."""
    return [folder / name for name in names_in(folder)]


def folders_in(folder: Path) -> list[Path]:
    """Returns the paths of the folders among them."""
    return [path for path in entries_of(folder) if path.is_dir()]
