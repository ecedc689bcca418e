"""Lists the image files of a folder by one list of endings, and tells what it passes over."""

import collections
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

NO_PIXELS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
"""Formats that Pillow knows but has no pixels of, or only by starting another program, as it does for PostScript."""
_KINDS_SHOWN = 6


@functools.cache
def image_endings() -> frozenset[str]:
    """Returns the endings of image files, in lower case with their dot: all that Pillow, with its plugins, can open."""
    Image.init()
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if (kind in Image.OPEN and kind not in NO_PIXELS) or kind == "MPO"  # Pillow opens MPO as JPEG
    )


def is_image_name(name: str | os.PathLike[str]) -> bool:
    """Tells whether a file's name is that of an image: it has one of the endings, in any case, and is not hidden."""
    path = Path(name)
    return path.suffix.lower() in image_endings() and not path.name.startswith(".")


class FolderImages(NamedTuple):
    """Holds what a folder has.

    Attributes:
        files: the images, sorted.
        passed_over: what else is there -> how many: an ending with its dot, "folders", "hidden" (such as the ._* of macOS),
            "without ending".
    """

    files: list[Path]
    passed_over: dict[str, int]

    def passed_over_line(self) -> str:
        """Returns what was passed over in words: `2 .txt, 1 .mp4, 3 hidden`; "" where that is nothing."""
        rows = sorted(self.passed_over.items(), key=lambda row: (-row[1], row[0]))
        parts = [f"{count} {kind}" for kind, count in rows[:_KINDS_SHOWN]]
        rest = sum(count for _, count in rows[_KINDS_SHOWN:])
        return ", ".join([*parts, *([f"{rest} others"] if rest else [])])


def images_among(paths: Iterable[Path], is_wanted: Callable[[Path], bool] = is_image_name) -> FolderImages:
    """Picks the image files out of what a folder holds; what lies in folders within it is not looked for.

    Args:
        paths: of a folder, or of a pattern.
        is_wanted: picks files of another kind by their names.

    Returns:
        The images, and what was passed over.
    """
    files: list[Path] = []
    passed_over: collections.Counter[str] = collections.Counter()
    for path in paths:
        if path.name.startswith("."):
            passed_over["hidden"] += 1
        elif path.is_dir():
            passed_over["folders"] += 1
        elif not is_wanted(path):
            passed_over[path.suffix.lower() or "without ending"] += 1
        elif path.is_file():
            files.append(path)
        else:
            passed_over["links or pipes"] += 1
    return FolderImages(sorted(files), dict(passed_over))
