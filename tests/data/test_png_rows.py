"""PNG files whose data end early, but in order: Pillow makes black of the missing rows."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kfpn.data.image import check_image, load_picture
from kfpn.data.png_rows import lacks_rows

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png(size, rows, *, colors=2, bits=8, value=200, split=None):
    """Returns a PNG file of one value of which so many rows are there, with right checksums."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = size
    data = zlib.compress((b"\0" + bytes([value]) * -(-width * CHANNELS[colors] * bits // 8)) * rows)
    parts = [data] if split is None else [data[i : i + split] for i in range(0, len(data), split)]
    table = chunk(b"PLTE", bytes(range(256)) * 3) if colors == 3 else b""
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    body = b"".join(chunk(b"IDAT", part) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + table + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("rows", [1, 7, 39])
@pytest.mark.parametrize(("colors", "bits"), [(0, 8), (0, 1), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 8)])
def test_a_file_that_lacks_rows_is_refused(colors, bits, rows):
    content = png((40, 50), rows, colors=colors, bits=bits, split=20)
    for read in (lambda image: check_image(image, decode=True), lambda image: load_picture(image, "it")):
        with pytest.raises(ValueError, match=r"PNG whose last rows are missing|image file is truncated"):
            read(content)


@pytest.mark.parametrize("value", [0, 200])
@pytest.mark.parametrize(("colors", "bits"), [(0, 8), (0, 1), (2, 8), (2, 16), (3, 8), (6, 8)])
def test_a_whole_file_is_read_also_where_it_is_black(colors, bits, value):
    content = png((40, 50), 40, colors=colors, bits=bits, value=value, split=20)
    assert not lacks_rows(content)
    assert load_picture(content, "it").shape == (40, 50, 3)


def test_of_an_interlaced_file_all_passes_count():
    size = (13, 19)
    passes = [(8, 8, 0, 0), (8, 8, 0, 4), (8, 4, 4, 0), (4, 4, 0, 2), (4, 2, 2, 0), (2, 2, 0, 1), (2, 1, 1, 0)]
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    parts = [pixels[top::down, left::across] for down, across, top, left in passes]
    raw = [b"".join(b"\0" + row.tobytes() for row in part) for part in parts]
    plain = png(size, 13, colors=0)
    for count in (7, 6):
        data = zlib.compress(b"".join(raw[:count]))
        header = plain[:28] + b"\1"
        header += struct.pack(">I", zlib.crc32(header[12:29]))
        body = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
        content = header + body + plain[-12:]
        assert lacks_rows(content) == (count < 7)
        if count == 7:
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
            np.testing.assert_array_equal(load_picture(content, "it")[..., 0], pixels)
