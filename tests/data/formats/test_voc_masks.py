"""VOC's pictures of objects: a number for each, and a border."""

import logging
import os
import re

import numpy as np
import pytest
from PIL import Image

from kfpn.data.formats import open_source
from kfpn.data.formats.voc import VocSource

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def folder(tmp_path):
    for part in ("ImageSets/Main", "Annotations", "JPEGImages", "SegmentationObject"):
        (tmp_path / part).mkdir(parents=True)
    objects = OBJECT.format("dog", 1, 1, 10, 20) + OBJECT.format("cat", 11, 1, 20, 10)
    for stem in "ab":
        Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    write(tmp_path, numbered())
    return tmp_path


def numbered():
    """Returns a picture in which object 1 is 10 x 20 pixels without its border of 255, and object 2 a square of 8."""
    numbers = np.zeros((20, 30), np.uint8)
    numbers[:, :10] = 255
    numbers[1:19, 1:9] = 1
    numbers[1:9, 11:19] = 2
    return numbers


def write(folder, numbers, mode="P"):
    picture = _with_palette(numbers) if mode == "P" else Image.fromarray(numbers).convert(mode)
    picture.save(folder / "SegmentationObject" / "a.png")


def _with_palette(numbers):
    picture = Image.frombytes("P", numbers.shape[::-1], numbers.tobytes())
    picture.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
    return picture


@pytest.mark.parametrize("mode", ["P", "L"])
def test_each_number_is_the_mask_of_its_object_and_the_border_is_of_none(folder, mode):
    write(folder, numbered(), mode)
    source = VocSource(folder, masks=True)
    masks = source[0].masks
    assert (masks.bitmap(0) == (numbered() == 1)).all()
    assert (masks.bitmap(1) == (numbered() == 2)).all()
    assert not source[1].masks.exists.any()  # it has no picture, and is trained on for boxes
    assert VocSource(folder)[0].masks is None


@pytest.mark.parametrize(
    ("numbers", "mode", "said"),
    [
        (numbered()[:, :20], "P", "masks of another size than their image.*a.png: 20 x 20 for an image of 30 x 20"),
        (numbered() * 100, "P", "pictures of masks with more numbers than the annotation has objects.*a.png"),
        (
            np.where(numbered() > 0, 255, 0),
            "P",
            "masks without a pixel of an object .0 is outside, 255 a border.*a.png",
        ),
        (numbered(), "RGB", "a.png must have a palette or be gray, got mode RGB"),
    ],
)
def test_a_picture_that_does_not_fit_is_left_out_in_one_line(folder, caplog, numbers, mode, said):
    write(folder, np.minimum(numbers, 255).astype(np.uint8), mode)
    with caplog.at_level(logging.WARNING, "kfpn"):
        record = VocSource(folder, masks=True)[0]
    assert not record.masks.exists.any()
    assert len(record.boxes) == 2
    assert len([message for message in caplog.messages if "masks" in message]) == 1
    assert re.search(said, caplog.text)


def test_a_damaged_picture_is_left_out(folder, caplog):
    (folder / "SegmentationObject" / "a.png").write_bytes(b"\x89PNG broken")
    with caplog.at_level(logging.WARNING, "kfpn"):
        assert not VocSource(folder, masks=True)[0].masks.exists.any()
    assert "a.png must be a picture" in caplog.text


@pytest.mark.parametrize("names", [("SegmentationObject", "a.png"), ("segmentationobject", "A.PNG")])
def test_a_picture_that_changes_is_read_again_in_whatever_case_its_name_is(folder, names):
    (folder / "SegmentationObject" / "a.png").rename(folder / "SegmentationObject" / names[1])
    picture = (folder / "SegmentationObject").rename(folder / names[0]) / names[1]
    for file in folder.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    assert open_source(f"voc:{folder},train", masks=True)[0].masks.areas().tolist() == [144, 64]
    changed = numbered()
    changed[1:3, 11:19] = 0
    _with_palette(changed).save(picture)
    assert open_source(f"voc:{folder},train", masks=True)[0].masks.areas().tolist() == [144, 48]


def test_numbers_of_another_order_than_the_objects_are_left_out_and_said(folder, caplog):
    numbers = np.zeros((20, 30), np.uint8)
    numbers[1:19, 1:9], numbers[1:9, 11:19] = 2, 1
    write(folder, numbers)
    with caplog.at_level(logging.WARNING, "kfpn"):
        assert not VocSource(folder, masks=True)[0].masks.exists.any()
    assert re.search("masks that lie beside their object's box.*: 2 .*a.png: object 1", caplog.text)
