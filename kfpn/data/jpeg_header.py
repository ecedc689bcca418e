"""Reads the size, the rotation and the end of a JPEG file from its markers, ten times as fast as Pillow opens it."""

import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

_FIRST = 8 << 10
"""Bytes that are read first: the headers of most files are shorter."""
_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive frames: those that Pillow decodes."""
_OTHERS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
"""Tables, comments and data of applications, which are passed over."""
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112
_SHORT = b"\0\3"


class JpegHeader(NamedTuple):
    """Holds what the markers of a JPEG file say.

    Attributes:
        height: int, pixels, as stored.
        width: int, pixels, as stored.
        orientation: int, EXIF orientation 1..8.
        ends: bool, whether the image's end marker is there; bytes may follow it.
        several_scans: bool, whether the image may need more than one pass over its pixels: it is progressive, or its colours come
            one after the other.
        length: int, bytes of the file.
        filled: bool, whether there are as many bytes before the end marker as a picture of this size needs at least.
    """

    height: int
    width: int
    orientation: int
    ends: bool
    several_scans: bool
    length: int
    filled: bool


def read_jpeg_header(image: str | os.PathLike[str] | bytes) -> JpegHeader | None:
    """Returns what the markers of a JPEG file say; None: it is no JPEG, or not a plain one, and Pillow must look at it.

    Args:
        image: path of a file, or its encoded bytes.

    Raises:
        OSError: when the file can't be read.
    """
    if isinstance(image, bytes):
        return _read_markers(lambda at, count: image[at : at + count], len(image))
    # Python's own file objects would take longer than all the rest. Without O_NONBLOCK, opening a pipe would wait for ever.
    file = os.open(image, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        return (
            _read_markers(functools.partial(_read_at, file), status.st_size) if stat.S_ISREG(status.st_mode) else None
        )
    finally:
        os.close(file)


def _read_at(file: int, at: int, count: int) -> bytes:
    if at:
        os.lseek(file, at, os.SEEK_SET)
    return os.read(file, count)


def _read_markers(read: Callable[[int, int], bytes], length: int) -> JpegHeader | None:
    data = read(0, _FIRST)
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    segments = _segments(data)
    if segments is None and length > len(data):
        data += read(len(data), length - len(data))
        segments = _segments(data)
    if segments is None:
        return None
    frame, orientation, scan, several = segments
    ends, filled = _ends(read, data, scan, length), _filled(read, data, scan, frame.blocks)
    return JpegHeader(frame.height, frame.width, orientation, ends, several, length, filled)


def _segments(data: bytes) -> tuple["_Frame", int, int, bool] | None:
    """Returns the frame, the orientation, where the first scan's data begin, and `several_scans`; None where anything is unusual."""
    frame, exif, xmp, at, colors = None, None, False, 2, 0
    while at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at] != 0xFF or end > len(data) or end < at + 4:
            return None
        if marker == 0xDA:
            orientation = _exif_orientation(exif, xmp)
            if frame is None or orientation is None:
                return None
            return frame, orientation, end, colors == 0 or data[at + 4] < colors
        if marker in _FRAMES:
            if frame is not None or (frame := _frame(data[at + 4 : end])) is None:
                return None
            colors = data[at + 9] if marker != 0xC2 else 0
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            if exif is not None:
                return None
            exif = data[at + 10 : end]
        elif (marker == 0xDB and (end - at - 4) % 65) or marker not in _OTHERS:
            return None
        elif marker == 0xE1 and data.startswith(_XMP, at + 4):
            xmp = xmp or b"tiff:Orientation" in data[at:end]
        at = end
    return None


class _Frame(NamedTuple):
    """What a frame's segment says.

    Attributes:
        height: int, pixels.
        width: int, pixels.
        blocks: int, blocks of 8 x 8 in the component that has most of them.
    """

    height: int
    width: int
    blocks: int


def _frame(frame: bytes) -> _Frame | None:
    if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3, 4) or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    across, down = [code >> 4 for code in frame[7::3]], [code & 15 for code in frame[7::3]]
    if not (height and width and min(across) and min(down)):
        return None
    sides = zip(down, across, strict=True)
    blocks = (-(-height * y // (8 * max(down))) * -(-width * x // (8 * max(across))) for y, x in sides)
    return _Frame(height, width, max(blocks))


def _filled(read: Callable[[int, int], bytes], data: bytes, scan: int, blocks: int) -> bool:
    """Tells whether a picture of so many blocks can stand between the first scan's beginning and the end marker.

    In baseline and in progressive files each block has a code of its own in its component's first scan, and no Huffman code
    is shorter than a bit.
    """
    least = -(-blocks // 8)
    picture = data[scan : scan + least]
    if len(picture) < least and b"\xff\xd9" not in picture:
        picture = read(scan, least)
    return len(picture) == least and b"\xff\xd9" not in picture


def _exif_orientation(exif: bytes | None, xmp: bool) -> int | None:
    """Returns the orientation of an EXIF block (its TIFF header, then one directory); None where it is not plain to see."""
    if exif is None:
        return None if xmp else 1
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return None

    def number(at: int, length: int) -> int:
        return int.from_bytes(exif[at : at + length], order)  # type: ignore[arg-type]

    at = number(4, 4)
    count = number(at, 2)
    if at < 8 or at + 2 + 12 * count > len(exif):
        return None
    entries = [entry for entry in range(at + 2, at + 2 + 12 * count, 12) if number(entry, 2) == _ORIENTATION]
    if not entries:
        return None if xmp else 1
    short = exif[entries[0] + 2 : entries[0] + 4] == (_SHORT if order == "big" else _SHORT[::-1])
    if len(entries) > 1 or not short or number(entries[0] + 4, 4) != 1:
        return None
    value = number(entries[0] + 8, 2)
    return value if value in range(1, 9) else 1


def _ends(read: Callable[[int, int], bytes], data: bytes, scan: int, length: int) -> bool:
    tail = data if length <= len(data) else read(max(length - 64, scan), 64)
    if tail[-64:].rstrip(b"\0\r\n").endswith(b"\xff\xd9"):
        return True
    # Phones write a film, a depth map or their own notes behind the image. In the data of a scan, a byte 255 is followed by
    # 0 or by the number of a restart, so the first end marker behind the scan's beginning is the image's own.
    if length > len(data):
        data += read(len(data), length - len(data))
    return data.find(b"\xff\xd9", scan) >= 0
