"""Lists the image files of a folder by one list of endings, and tells what it passes over."""

import collections
import functools
import os
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
        passed_over: what else is there -> how many: an ending with its dot, "folders", "hidden files" (such as the ._* of
            macOS) or "files without ending".
    """

    files: list[Path]
    passed_over: dict[str, int]

    def passed_over_line(self) -> str:
        """Returns what was passed over in words: `2 .txt, 1 .mp4, 3 hidden files`; "" where that is nothing."""
        rows = sorted(self.passed_over.items(), key=lambda row: (-row[1], row[0]))
        parts = [f"{count} {kind}" for kind, count in rows[:_KINDS_SHOWN]]
        rest = sum(count for _, count in rows[_KINDS_SHOWN:])
        return ", ".join([*parts, *([f"{rest} others"] if rest else [])])


def images_in(folder: str | os.PathLike[str]) -> FolderImages:
    """Lists the image files that lie in a folder itself; those in folders within it are not looked for.

    Args:
        folder: that exists.

    Returns:
        The images, and what was passed over.
    """
    files: list[Path] = []
    passed_over: collections.Counter[str] = collections.Counter()
    for path in Path(folder).iterdir():
        if path.name.startswith("."):
            passed_over["hidden files"] += 1
        elif path.is_dir():
            passed_over["folders"] += 1
        elif not is_image_name(path):
            passed_over[path.suffix.lower() or "files without ending"] += 1
        elif path.is_file():
            files.append(path)
        else:  # a pipe or a broken link
            passed_over["links or pipes"] += 1
    return FolderImages(sorted(files), dict(passed_over))
