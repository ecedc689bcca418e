"""Makes image files that lie, are cut short or are of kinds that no decoder may see, and mutates files at random."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png(width, height, *, colors=2, bits=8, rows=None, chunks=()):
    """Returns a PNG file of black pixels whose header says `width` x `height`; `rows` of them are there."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + bytes(width * {0: 1, 2: 3, 6: 4}[colors] * bits // 8)
    data = zlib.compress(row * (height if rows is None else rows), 9)
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in parts)


def bmp(width, height, *, bits=24, pixels=None, **fields):
    """Returns a BMP file of 100 bytes of pixels or as many as are said; `fields` are those of its header."""
    pixels = 100 if pixels is None else pixels
    start = 54 + (1024 if bits == 8 else 0)
    values = {"start": start, "size": 40, "compression": 0, "colors": 0, **fields}
    header = struct.pack("<2sIII", b"BM", start + pixels, 0, values["start"])
    header += struct.pack("<IiiHHII", values["size"], width, height, 1, bits, values["compression"], 0)
    return (
        header
        + struct.pack("<iiII", 0, 0, values["colors"], 0)
        + bytes(start - 54)
        + bytes(range(256)) * (pixels // 256 + 1)
    )


def gif(canvas, frames, *, before=b"", end=b";"):
    """Returns a GIF file of 4 colours.

    Args:
        canvas: width and height of the screen.
        frames: (left, top, width, height, index of the colour that fills it), or bytes.
        before: blocks before the first frame.
        end: bytes behind the last frame.
    """
    table = bytes([10, 20, 30, 200, 100, 0, 0, 255, 128, 7, 7, 7])
    file = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + table + before
    for frame in frames:
        file += frame if isinstance(frame, bytes) else gif_frame(*frame)
    return file + end


def gif_frame(left, top, width, height, color):
    """Returns a frame of one colour: LZW codes of three bits, of which every second one clears the table."""
    codes = [code for _ in range(width * height) for code in (4, color)] + [5]
    bits = sum(code << 3 * i for i, code in enumerate(codes))
    data = bits.to_bytes(len(codes) * 3 // 8 + 1, "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02" + blocks + b"\0"


def many_scans(jpeg, count):
    """Returns a progressive JPEG whose last scan is repeated."""
    start = jpeg.rfind(b"\xff\xda")
    return jpeg[:-2] + jpeg[start:-2] * count + b"\xff\xd9"


def as_pillow(file):
    """Returns the pixels of a file as `kfpn predict` decodes them: the first frame, RGB."""
    with Image.open(io.BytesIO(file)) as picture:
        if picture.mode == "P" and "transparency" in picture.info:
            picture = picture.convert("RGBA")
        return np.array(picture.convert("RGB"))


def mutated(rng, file):
    """Returns a file with some bytes changed, removed, doubled or cut off, mostly near its beginning."""
    content = bytearray(file)
    for _ in range(rng.integers(1, 8)):
        near = len(content) if rng.random() < 0.4 else min(len(content), 80)
        place, kind = int(rng.integers(0, max(near, 1))), rng.integers(0, 6)
        if kind == 0 and content:
            del content[int(rng.integers(0, len(content))) :]
        elif kind == 1:
            del content[place : place + int(rng.integers(1, 20))]
        elif kind == 2:
            content[place:place] = content[place : place + int(rng.integers(1, 300))]
        elif kind == 3:
            extreme = (
                b"\0",
                b"\xff",
                b"\xff\xff",
                b"\0\0\0\0",
                b"\xff\xff\xff\x7f",
                b"\0\0\0\x80",
                b"\xff\xda",
                b"\xff\xd8",
            )
            piece = extreme[rng.integers(0, len(extreme))]
            content[place : place + len(piece)] = piece
        else:
            content[place : place + 1] = bytes([rng.integers(0, 256)])
    return bytes(content)
