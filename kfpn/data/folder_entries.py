"""Lists what a folder holds, without what systems hide in it."""

import os
from collections.abc import Sequence
from pathlib import Path

from kfpn.data.folder_index import is_hidden, plain_spelling


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


class SpeltPaths:
    """Finds paths whose folders and file are spelt otherwise: in case or the form of accents. Each folder is read once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """Returns what is there, None where nothing or more than one thing is spelt alike.

        Args:
            folder: of this machine, where the path begins.
            parts: its folders and the file's name.
        """
        place = folder
        for part in parts:
            if part != ".." and not os.path.lexists(place / part):
                alike = self._alike(place).get(plain_spelling(part), [])
                if len(alike) != 1:
                    return None
                part = alike[0]
            place = place / part
        return place

    def _alike(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            known: dict[str, list[str]] = {}
            for name in names_in(folder):
                known.setdefault(plain_spelling(name), []).append(name)
            self._names[folder] = known
        return self._names[folder]
