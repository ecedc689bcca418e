"""A JPEG of headers alone is refused by the graph, and by the rule that training and prediction have."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.data.jpeg_header import read_jpeg_header
from kfpn.export.saved_model.file_headers import file_header
from kfpn.export.saved_model.jpeg_picture import has_picture

PICTURE = tf.function(has_picture, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def jpeg(picture, **options):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def noise(*size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))


def kept(content, count):
    """Returns a JPEG with so many bytes behind its first start of scan, and the end marker."""
    start = content.find(b"\xff\xda")
    return content[: start + 2 + int.from_bytes(content[start + 2 : start + 4]) + count] + b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True, "quality": 1}])
def test_the_graph_and_the_markers_agree_at_every_length(options):
    for mode, size in (("RGB", (100, 131)), ("L", (64, 64)), ("CMYK", (70, 90)), ("RGB", (1, 1))):
        for picture in (noise(*size).convert(mode), Image.new(mode, size[::-1])):
            content = jpeg(picture, **options)
            assert PICTURE(content)
            for count in (0, 1, 5, 7, 8, 27, 28, 30):
                part = kept(content, count)
                assert bool(PICTURE(part)) == read_jpeg_header(part).filled, (mode, size, count)
                assert bool(PICTURE(part + content)) == read_jpeg_header(part + content).filled


def test_a_file_of_headers_alone_is_named():
    thumbnail = jpeg(noise(40, 40))
    content = jpeg(noise(64, 64), exif=b"Exif\0\0" + thumbnail)
    assert file_header(tf.constant(content)).fault == b""
    without_thumbnail = content.replace(thumbnail, bytes(len(thumbnail)))
    fault = file_header(tf.constant(kept(without_thumbnail, 0))).fault
    assert fault == b"a JPEG file without the picture behind its headers"


@pytest.mark.parametrize(
    "content",
    [b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0\2", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8" + b"\xff\xe0\0\2" * 3000],
)
def test_what_is_no_usual_header_is_left_to_the_decoder(content):
    assert PICTURE(content)
