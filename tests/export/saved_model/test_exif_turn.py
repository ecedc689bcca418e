"""The graph turns the images that Pillow turns: by EXIF or XMP, in JPEG and PNG files."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.data.image import load_picture
from kfpn.export.saved_model.file_headers import file_header
from kfpn.export.saved_model.image_decoders import decode_image

ATTRIBUTE, ELEMENT = b'<rdf:D tiff:Orientation="%d"/>', b"<tiff:Orientation>%d</tiff:Orientation>"


def exif_of(turn, endian="<"):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "maker"
    if turn is not None:
        exif[0x0112] = turn
    return exif


def jpeg_with_xmp(file, text):
    segment = b"http://ns.adobe.com/xap/1.0/\0" + text
    return file[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + file[2:]


def png_with(file, kind, content, place=33):
    chunk = kind + content
    return file[:place] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + file[place:]


def check(file, turn):
    content = tf.constant(file)
    header = file_header(content)
    expected = load_picture(file, "it")
    assert (int(header.turn), header.size.numpy().tolist()) == (turn, list(expected.shape[:2]))
    np.testing.assert_array_equal(decode_image(content, header).numpy(), expected)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_png_files_are_turned_by_exif_as_pillow_does(photo, encoded, endian):
    for turn in range(1, 10):
        check(encoded(photo(41, 60), "PNG", exif=exif_of(turn, endian)), turn if turn < 9 else 1)


def test_exif_may_stand_behind_the_pixels_of_a_png(photo, encoded):
    file = encoded(photo(41, 60), "PNG")
    check(png_with(file, b"eXIf", exif_of(6).tobytes().removeprefix(b"Exif\0\0"), len(file) - 12), 6)


@pytest.mark.parametrize("form", [ATTRIBUTE, ELEMENT])
def test_xmp_turns_where_exif_does_not_say(photo, encoded, form):
    image, text = photo(41, 60), form % 6
    check(jpeg_with_xmp(encoded(image, "JPEG"), text), 6)
    check(jpeg_with_xmp(encoded(image, "JPEG", exif=exif_of(None)), text), 6)
    check(jpeg_with_xmp(encoded(image, "JPEG", exif=exif_of(3)), text), 3)
    check(jpeg_with_xmp(encoded(image, "JPEG", exif=exif_of(9)), text), 1)
    check(jpeg_with_xmp(encoded(image, "JPEG"), form % 9), 1)
    check(png_with(encoded(image, "PNG"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text), 6)


@pytest.mark.parametrize(
    "tiff", [b"", b"II*", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"text that is none"]
)
def test_a_png_with_broken_exif_is_not_turned(photo, encoded, tiff):
    file = png_with(encoded(photo(41, 60), "PNG"), b"eXIf", tiff)
    assert int(file_header(tf.constant(file)).turn) == 1
    assert int(file_header(tf.constant(file[: 33 + 8 + len(tiff)])).turn) == 1
