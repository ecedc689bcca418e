"""Image files that were changed by chance: an error line, or pixels; never a traceback, a hang or a dead process."""

import io
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from kfpn.data.image import check_image, load_picture, read_header

COUNT = 2000
SLOWEST = 20.0  # seconds for one image of 40 x 48: a hang, not a slow machine


def originals():
    """Returns files of each kind, all of the same picture."""
    y, x = np.mgrid[:40, :48]
    picture = Image.fromarray(np.stack([5 * x, 6 * y, 3 * (x + y) % 256], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray((x * 1300).astype(np.uint16))
    ways = {
        "JPEG": [{}, {"progressive": True}, {"exif": exif}], "PNG": [{}, {"exif": exif}], "GIF": [{}], "BMP": [{}],
        "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"exif": exif}], "WEBP": [{}, {"lossless": True}],
    }  # fmt: skip
    files = []
    for kind, options in ways.items():
        for one in options:
            stream = io.BytesIO()
            picture.save(stream, kind, **one)
            files.append((kind, stream.getvalue()))
    for kind, frames in (("GIF", 3), ("WEBP", 3), ("PNG", 3)):
        stream = io.BytesIO()
        others = [Image.new("RGB", (48, 40), (i * 80, 0, 0)) for i in range(frames)]
        picture.save(stream, kind, save_all=True, append_images=others)
        files.append((kind, stream.getvalue()))
    for kind in ("PNG", "TIFF"):
        stream = io.BytesIO()
        wide.save(stream, kind)
        files.append((kind, stream.getvalue()))
    return files


def changed(content, chance):
    """Returns a file with one to four changes: bytes, bits, numbers of 4 bytes, parts that are cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(chance.integers(1, 5)):
        if not data:
            break
        # Half of the changes hit the first bytes, where sizes and counts stand.
        reach = len(data) if chance.random() < 0.5 else min(len(data), 120)
        at, length = int(chance.integers(reach)), int(chance.integers(1, 40))
        way = chance.integers(8)
        if way == 0:
            data[at] = chance.integers(256)
        elif way == 1:
            data[at] ^= 1 << chance.integers(8)
        elif way == 2:
            numbers = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 65_000]
            value = int(chance.choice(numbers))
            data[at : at + 4] = value.to_bytes(4, ["big", "little"][chance.integers(2)])
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at : at + length]
        elif way == 5:
            data[at:at] = data[at : at + length]
        elif way == 6:
            data[at : at + length] = chance.integers(0, 256, length, dtype=np.uint8).tobytes()
        else:
            to = int(chance.integers(len(data)))
            data[to:to] = data[at : at + length]
    return bytes(data)


def answer(read, content):
    """Returns what a function gives for a file, or the text of its ValueError; all else is a fault."""
    begin = time.monotonic()
    try:
        return read(content)
    except ValueError as error:
        return str(error)
    finally:
        assert time.monotonic() - begin < SLOWEST


@pytest.mark.parametrize("count", [pytest.param(COUNT, marks=pytest.mark.slow, id="all"), pytest.param(120, id="some")])
def test_changed_images_give_one_line_or_pixels_of_the_size_that_was_read(count, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # files that claim more are bombs here
    chance, files, refused = np.random.default_rng(17), originals(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, such as "Corrupt EXIF data"
        for number in range(count):
            kind, whole = files[number % len(files)]
            content = changed(whole, chance)
            header, checked = answer(read_header, content), answer(check_image, content)
            decoded, full = (
                answer(read, content)
                for read in (lambda c: load_picture(c, "it"), lambda c: check_image(c, decode=True))
            )
            if isinstance(decoded, str):
                refused += 1
                assert decoded.startswith("it: "), (kind, number)
                assert isinstance(full, str), (kind, number, full)
            else:
                assert decoded.dtype == np.uint8, (kind, number)
                assert decoded.shape == (*header[:2], 3), (kind, number)
                assert decoded.shape[0] * decoded.shape[1] <= 2_000_000
                assert full.header == header, (kind, number)
            for said in (header, checked, decoded, full):
                assert not isinstance(said, str) or ("\n" not in said and len(said) < 400), (kind, number, said)
    assert count // 4 < refused < count
