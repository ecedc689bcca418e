import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from kfpn.data.image import check_image, load_picture, read_header
from kfpn.data.jpeg_header import read_jpeg_header

XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'


def noise(height=48, width=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def jpeg(picture=None, **options):
    stream = io.BytesIO()
    (picture or noise()).save(stream, "JPEG", **options)
    return stream.getvalue()


def with_segment(content, marker, data):
    return content[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data + content[2:]


def exif(orientation, order="<", before=()):
    """Returns an EXIF block by hand, of either byte order."""
    entries = [*before, (0x0112, 3, 1, orientation)]
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in entries:
        block += struct.pack(order + "HHI", tag, kind, count) + struct.pack(
            order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value])
        )
    return b"Exif\0\0" + block + struct.pack(order + "I", 0)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 5}, {"subsampling": 0}, {"restart_marker_blocks": 1}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_markers_say_what_pillow_says(options, mode):
    content = jpeg(noise().convert(mode), **options)
    assert tuple(read_jpeg_header(content))[:4] == (48, 64, 1, True)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_rotation_is_that_of_pillow(orientation, order):
    content = with_segment(jpeg(), 0xE1, exif(orientation, order, before=[(0x0100, 4, 1, 64)]))
    found, pixels = read_jpeg_header(content), load_picture(content, "it")
    assert found.orientation == (orientation if orientation in range(1, 9) else 1)
    assert pixels.shape[:2] == read_header(content)[:2] == ((64, 48) if 5 <= orientation <= 8 else (48, 64))


def test_what_is_unusual_is_left_to_pillow_which_answers_the_same_way():
    plain = jpeg()
    odd = {
        "rotated by XMP": (with_segment(plain, 0xE1, XMP), (64, 48, 6)),
        "two EXIF blocks": (with_segment(with_segment(plain, 0xE1, exif(6)), 0xE1, exif(6)), None),
        "EXIF of another kind": (with_segment(plain, 0xE1, b"Exif\0\0" + b"XX" + bytes(20)), None),
        "fill bytes": (plain[:2] + b"\xff" + plain[2:], (48, 64, 1)),
    }
    for what, (content, wanted) in odd.items():
        assert read_jpeg_header(content) is None, what
        assert wanted is None or tuple(read_header(content, whole=True)) == wanted, what
    for content in (b"", b"\xff\xd8\xff", plain[:100], b"\x89PNG\r\n\x1a\n"):
        assert read_jpeg_header(content) is None


def test_bytes_behind_the_end_cost_no_decoding(monkeypatch, tmp_path):
    film = jpeg() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 4000
    path = tmp_path / "phone.jpg"
    path.write_bytes(film)
    monkeypatch.setattr(Image, "open", None)  # nothing below asks Pillow
    for image in (film, str(path), path):
        assert tuple(check_image(image).header) == (48, 64, 1)


def test_two_pictures_in_a_file_and_a_thumbnail_do_not_hide_a_missing_end():
    first = jpeg(progressive=True)
    assert read_jpeg_header(first + jpeg()).ends
    thumbnail = with_segment(first, 0xE0, b"JFXX\0\x10" + jpeg(noise(8, 8)))
    assert read_jpeg_header(thumbnail).ends
    cut = thumbnail[: len(thumbnail) - len(first) // 2]
    assert not read_jpeg_header(cut).ends
    with pytest.raises(ValueError, match="can't be read as an image"):
        check_image(cut)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_jpeg_header(str(tmp_path / "pipe.jpg")) is None


def test_headers_longer_than_the_first_block_are_read():
    content = with_segment(jpeg(), 0xE2, b"ICC_PROFILE\0\x01\x01" + bytes(60_000))
    assert tuple(read_jpeg_header(content))[:4] == (48, 64, 1, True)


def test_changed_headers_never_give_another_size_than_pillow():
    """Bytes of the first 700 are changed by a seeded generator: the markers' answer is Pillow's, or there is none."""
    chance, plain, answered = np.random.default_rng(1), with_segment(jpeg(), 0xE1, exif(6)), 0
    for _ in range(1500):
        content = bytearray(plain)
        for place in chance.integers(2, 700, chance.integers(1, 4)):
            content[place] = chance.integers(256)
        found = read_jpeg_header(bytes(content))
        if found is None:
            continue
        answered += 1
        try:
            with Image.open(io.BytesIO(bytes(content))) as picture:
                said = picture.size[::-1]
                turned = picture.getexif().get(0x0112, 1)
        except Exception:  # a table that is damaged is seen when the image is decoded
            continue
        assert (found.height, found.width) == said
        assert found.orientation == (turned if turned in range(1, 9) else 1)
    assert answered > 500


def first_scan_emptied(content):
    start = content.find(b"\xff\xda")
    return content[: start + 2 + int.from_bytes(content[start + 2 : start + 4])] + b"\xff\xd9"


@pytest.mark.parametrize("behind", [b"", b"\0\r\n", b"film" * 1000 + b"\xff\xd9", jpeg()])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_headers_without_a_picture_are_no_image(options, behind):
    for mode, size in (("RGB", (64, 64)), ("L", (100, 130)), ("CMYK", (40, 50))):
        content = first_scan_emptied(jpeg(noise(*size).convert(mode), **options)) + behind
        for read in (
            check_image,
            lambda image: check_image(image, decode=True),
            lambda image: load_picture(image, "it"),
        ):
            with pytest.raises(ValueError, match="JPEG of headers without the picture"):
                read(content)


def test_a_missing_picture_of_a_large_file_is_seen_behind_long_headers(tmp_path):
    flat = jpeg(Image.new("RGB", (6000, 1200)))
    for content in (flat, with_segment(flat, 0xE2, b"ICC_PROFILE\0\x01\x01" + bytes(60_000))):
        (tmp_path / "a.jpg").write_bytes(content)
        assert read_jpeg_header(tmp_path / "a.jpg").filled
        (tmp_path / "a.jpg").write_bytes(first_scan_emptied(content) + bytes(100_000))
        assert not read_jpeg_header(tmp_path / "a.jpg").filled


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"optimize": True},
        {"progressive": True, "quality": 1},
        {"quality": 1, "optimize": True},
    ],
)
def test_the_smallest_pictures_have_more_than_the_least_bits(options):
    """One colour, whose blocks have the shortest codes, in every mode and at sides that 8 and 16 do not divide."""
    for mode in ("RGB", "L", "CMYK"):
        for size in ((8, 8), (1, 1), (9, 17), (640, 480), (1000, 7), (2001, 1503)):
            assert read_jpeg_header(jpeg(Image.new(mode, size), **options)).filled, (mode, size)
