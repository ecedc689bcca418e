"""Tells whether a PNG file holds all of its rows: where its data end early but in order, Pillow shows black without a word."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from kfpn.data.file_kinds import IMAGES

_BLOCK = 1 << 20
"""Bytes that are unpacked at a time."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column and steps of the seven passes of an interlaced file."""


def may_lack_rows(picture: Image.Image) -> bool:
    """Tells whether a decoded PNG needs a closer look: its last row is all 0, as a missing one would be, or it is interlaced."""
    width, height = picture.size
    return bool(picture.info.get("interlace")) or not np.asarray(picture.crop((0, height - 1, width, height))).any()


def lacks_rows(content: bytes) -> bool:
    """Tells whether a PNG file unpacks to fewer bytes than its rows have. Nothing of it is kept.

    Args:
        content: of a file that Pillow decodes.
    """
    width, height, bits, colors, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])

    def needed(rows: int, columns: int) -> int:
        return rows * (1 + -(-columns * bits * _CHANNELS[colors] // 8)) if columns else 0

    passes = [needed(-(-(height - top) // down), -(-(width - left) // across)) for top, left, down, across in _ADAM7]
    missing = sum(passes) if interlaced else needed(height, width)
    unpacker = zlib.decompressobj()
    try:
        for packed in (data for kind, data in png_chunks(content) if kind == b"IDAT"):
            while missing > 0 and packed:
                missing -= len(unpacker.decompress(packed, _BLOCK))
                packed = unpacker.unconsumed_tail
    except zlib.error:  # Pillow was content, so only what stands behind the rows is damaged, or the rows are not there
        pass
    return missing > 0


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the data of each chunk of a PNG file up to its end, or to the first that reaches past the end of the file."""
    at = len(IMAGES["PNG"])
    kind = b""
    while at + 8 <= len(content) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length
