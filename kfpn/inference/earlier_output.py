"""Tells files that an earlier `kfpn predict` wrote, which a later one replaces, from a user's own files, which stay."""

import os
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from kfpn.runs.atomic_files import begin_of

MADE_BY = "kfpn predict"
"""Stands in each picture and video that the command writes."""
_PICTURE_ENDS = 65_536  # bytes: the word stands near the beginning of a PNG, and near the end of an MP4
_ROW = 1 << 20  # bytes: the first row of a list of detections is shorter


def png_marks() -> PngInfo:
    """Returns what is written into each picture beside its pixels."""
    marks = PngInfo()
    marks.add_text("Software", MADE_BY)
    return marks


def is_own_picture(path: Path) -> bool:
    """Tells whether a file is a picture or a video that `kfpn predict` made. A damaged one counts as the user's."""
    with open(path, "rb") as file:
        begin = file.read(_PICTURE_ENDS)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _PICTURE_ENDS))
        return MADE_BY.encode() in begin or MADE_BY.encode() in file.read()


def require_own_list(path: Path) -> None:
    """Refuses to replace a file of detections that `kfpn predict` did not write, such as that of a work directory.

    Raises:
        ValueError: naming the file.
        OSError: if it can't be read.
    """
    begin = begin_of(path, _ROW)
    if begin not in (b"", b"[]") and not (begin.startswith(b"[") and b'"file_name"' in begin):
        raise ValueError(
            f"output must be a folder without other files of detections, got {str(path)!r}, which `kfpn predict` did not write: "
            "name another folder"
        )
