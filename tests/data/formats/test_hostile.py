"""Tests input that someone made to do harm, or that no tool should write: it is refused with a ValueError, or read rightly."""

import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image
from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.voc import VocSource
from kfpn.data.image import load_picture, read_header
from kfpn.data.memory_limit import memory_limit
from kfpn.inference.images_of_user import find_images


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(height, width, pixels, *more):
    """Returns the bytes of an 8-bit gray PNG, whose header need not fit the compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


ZEROS = zlib.compress(bytes(200_000_000), 9)  # 200 kB that become 200 MB


def test_an_image_of_too_many_pixels_is_refused_by_its_header():
    with pytest.raises(ValueError, match=r"has more pixels than the 178,956,970 that are safe to decode"):
        read_header(png(20000, 20000, zlib.compress(b"")))


def test_an_image_whose_text_grows_to_200_mb_is_refused():
    for kind, data in ((b"zTXt", b"a\0\0" + ZEROS), (b"iTXt", b"a\0\1\0\0\0" + ZEROS)):
        with pytest.raises(ValueError, match="can't be read as an image"):
            load_picture(png(8, 8, zlib.compress(bytes(72)), chunk(kind, data)), "bomb.png")


def test_pixels_beyond_the_size_in_the_header_are_ignored():
    assert load_picture(png(8, 8, ZEROS), "long.png").shape == (8, 8, 3)


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (800, 800)), ((1, 20000), (1, 1333)), ((20000, 1), (1333, 1))])
def test_images_of_extreme_shape_keep_at_least_one_pixel_a_side(size, expected):
    resized, resized_size = prepare_image(np.zeros((*size, 3), np.uint8), InputConfig())
    assert resized.shape[:2] == resized_size == expected


def test_a_pipe_a_link_to_itself_and_a_folder_are_refused_as_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "loop.png", "folder.png"):
        with pytest.raises(ValueError, match=r"^is not a file$|can't be read as an image"):
            read_header(tmp_path / name)
    with pytest.raises(ValueError, match=r"must hold images .*, got none"):
        find_images([str(tmp_path)])


def test_names_that_are_not_utf8_are_found_and_read(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write(png(8, 8, zlib.compress(bytes(72))))
    (path,) = find_images([str(tmp_path)])
    assert load_picture(path, str(path)).shape == (8, 8, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 20)).save(folder / "images" / name)
    Image.new("RGB", (30, 20)).save(folder / "secret.png")
    return folder


def good():
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 5], "area": 50, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 30, 20]},
        ],
    }


def opened(folder, text):
    path = folder / "a.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8", errors="surrogatepass")
    return CocoSource(path, folder / "images")


@pytest.mark.parametrize("name", ["../secret.png", "{}/secret.png", "x/../../secret.png"])
def test_images_outside_their_folder_are_refused(folder, name):
    content = good()
    content["images"][1]["file_name"] = name.format(folder)
    with pytest.raises(ValueError, match=r"images\[1\] must lie in the folder of images, .*secret\.png"):
        opened(folder, content)
    content["images"][0]["file_name"] = "images/a.png"
    (folder / "a.json").write_text(json.dumps(content))
    if not name.startswith(("..", "x")):
        assert len(CocoSource(folder / "a.json", folder)) == 2  # a folder above all images


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ('{"images": ' + "9" * 5000 + "}", "can't be read"),
    ],
)
def test_text_that_no_tool_writes_is_refused_with_the_file(folder, text, message):
    with pytest.raises(ValueError, match=rf"coco:.*a\.json: .*{message}"):
        opened(folder, text)


def test_json_larger_than_the_memory_is_refused_before_it_is_read(folder):
    path = folder / "large.json"
    path.touch()
    os.truncate(path, memory_limit())  # the file is a hole, which takes no room on the disk
    with pytest.raises(
        ValueError, match=r"coco:.*large\.json: can't be read: is too large for the memory, [\d,]+ bytes"
    ):
        CocoSource(path)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_the_memory_that_it_was_given(tmp_path, name):
    machine = memory_limit(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    for text, limit in (("1048576\n", 2**20), ("max\n", machine), (f"{2**63 - 4096}\n", machine), ("0\n", machine)):
        file.write_text(text)
        assert memory_limit(tmp_path) == limit


LIMITED = """
import os, resource, sys
from kfpn.data.coco import CocoSource
os.truncate(sys.argv[1], 2**30)
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.RLIM_INFINITY))
try:
    CocoSource(sys.argv[1])
except ValueError as error:
    print(error)
"""


def test_a_gigabyte_of_json_in_half_a_gigabyte_of_memory_is_an_error_and_no_traceback(tmp_path):
    path = tmp_path / "large.json"
    path.write_text("{")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True)
    assert "large.json: can't be read: is too large for the memory, 1,073,741,824 bytes" in done.stdout, done.stderr


def require_usable(source):
    """Asserts that every record can be trained on: boxes are finite, inside the image, with area; labels are of known classes."""
    for index in range(len(source)):
        record = source[index]
        limit = [record.height, record.width] * 2
        assert np.isfinite(record.boxes).all()
        assert (record.boxes >= 0).all()
        assert (record.boxes <= limit).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        assert set(record.labels.tolist()) <= set(range(len(source.class_names)))
        assert (record.areas > 0).all()


KEYS = st.sampled_from(
    ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "file_name", "height", "width", "name"]
)
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([2**63, -(2**63), 10**400]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 1e-308]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.sampled_from(["a.png", "../x", "/", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_refused_with_the_file_or_read_rightly(folder, data):
    content = good()
    for _ in range(data.draw(st.integers(1, 3))):
        rows = content[data.draw(st.sampled_from(sorted(content)))]
        row = data.draw(st.integers(0, len(rows) - 1))
        if data.draw(st.booleans()):
            rows[row] = {**rows[row], data.draw(KEYS): data.draw(VALUES)} if isinstance(rows[row], dict) else {}
        else:
            rows[row] = data.draw(st.one_of(VALUES, st.just({"bbox": [data.draw(NUMBERS) for _ in range(4)]})))
    try:
        source = opened(folder, content)
    except ValueError as error:
        refused = str(error)
    else:
        refused = None
    if refused is not None:
        assert str(folder) in refused
        return
    require_usable(source)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2), *[st.integers(0, 30)] * 4, st.booleans()), max_size=8))
def test_random_annotations_are_read_as_a_plain_reader_reads_them(folder, rows):
    content = good()
    content["annotations"] = [
        {"id": i, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "iscrowd": int(crowd)}
        for i, (image, category, x, y, w, h, crowd) in enumerate(rows)
    ]
    source = opened(folder, content)
    for index, image in enumerate((1, 2)):
        expected = []
        for owner, category, x, y, w, h, crowd in rows:
            box = (min(y, 20), min(x, 30), min(y + h, 20), min(x + w, 30))
            if owner == image and box[2] > box[0] and box[3] > box[1]:
                expected.append((*box, category - 1, crowd))
        record = source[index]
        read = [
            (*box, label, crowd) for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)
        ]
        assert read == expected


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lollollollol">{}]><annotation><object><name>&l9;</name></object></annotation>"""
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>"""


@pytest.mark.parametrize(
    "text",
    [
        BOMB.format("".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))),
        OUTSIDE,
        "<a>" * 100_000,
    ],
    ids=["entities", "outside", "deep"],
)
def test_xml_that_would_grow_or_read_files_is_refused(tmp_path, text):
    for inner in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / inner).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.xml: is not XML"):
        VocSource(tmp_path)
