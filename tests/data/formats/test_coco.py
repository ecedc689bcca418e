import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.coco_objects import DUPLICATE_ID, UNKNOWN_IMAGE
from kfpn.data.image import load_image

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"


@pytest.fixture
def content():
    def box(number, image, bbox, category=7, **more):
        return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}

    return {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 4, "file_name": "sub/b.png", "height": 20, "width": 30},
            {"id": 5, "file_name": "c.png"},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            box(1, 4, [1, 2, 10, 5], area=33.5),
            box(2, 9, [10, 20, 30, 10], 3),
            box(3, 4, [0, 0, 30, 20], iscrowd=1, segmentation={"counts": [1], "size": [20, 30]}),
        ],
    }


@pytest.fixture
def write(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    Image.new("L", (30, 20)).save(tmp_path / "sub" / "b.png")
    Image.new("L", (8, 9)).save(tmp_path / "c.png")

    def write(content):
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_records_hold_what_the_file_says(write, content):
    source = CocoSource(write(content))
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (3, 7)
    assert source.sizes.tolist() == [[40, 60], [20, 30], [9, 8]]
    assert source.max_boxes == 2
    assert [record.image_id for record in source] == [9, 4, 5]
    record = source[1]
    assert record.boxes.tolist() == [[2, 1, 7, 11], [0, 0, 20, 30]]
    assert record.labels.tolist() == [1, 1]
    assert record.crowd.tolist() == [False, True]
    assert record.areas.tolist() == [33.5, 600]
    assert load_image(record).shape == (20, 30, 3)
    assert source[0].areas.tolist() == [300]
    assert source[2].boxes.shape == (0, 4)


def test_the_folder_of_the_images_can_be_given(write, content, tmp_path):
    path = write(content)
    other = tmp_path / "other"
    other.mkdir()
    moved = other / "moved.json"
    path.rename(moved)
    assert len(CocoSource(moved, tmp_path)) == 3
    with pytest.raises(ValueError, match=f"3 of 3 images do not exist(.|\n)*try coco:{moved},{tmp_path}"):
        CocoSource(moved)


def test_boxes_that_refer_to_the_stored_pixels_are_turned_with_the_image(write, content, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    source = CocoSource(write(content))
    assert (source[0].height, source[0].width) == (60, 40)
    assert source[0].boxes.tolist() == [[10, 10, 40, 20]]


def test_faults_that_can_be_repaired_are_counted_in_a_warning(write, content, caplog):
    content["annotations"] += [
        {"id": 3, "image_id": 4, "category_id": 3, "bbox": [5, 5, 100, 100]},
        {"id": 5, "image_id": 99, "category_id": 3, "bbox": [5, 5, 10, 10]},
        {"id": 6, "image_id": 9, "category_id": 3, "bbox": [5, 5, float("nan"), 10]},
        {"id": 7, "image_id": 9, "category_id": 3, "bbox": [5, 5, 10, 0]},
        {"id": 8, "image_id": 9, "category_id": 3, "bbox": [70, 5, 10, 10]},
    ]
    with caplog.at_level(logging.WARNING, "kfpn"):
        source = CocoSource(write(content))
    assert source[1].boxes[2].tolist() == [5, 5, 20, 30]
    assert len(source[0].boxes) == 1
    assert len(caplog.messages) == 6
    for part in (UNKNOWN_IMAGE, DUPLICATE_ID, "not a finite", "without area", "left out: 1 (first:", "clipped: 1"):
        assert any(part in message for message in caplog.messages)


def test_a_box_with_a_number_too_large_for_a_float_is_left_out(write, content):
    content["annotations"][1].update(bbox=[1, 1, 10**400, 5], area=10**400, id=[2])
    source = CocoSource(write(content))
    assert [len(record.boxes) for record in source] == [0, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), "image ids must be unique, got 9"),
        (lambda c: c["categories"].append({"id": 7, "name": "x"}), "category ids must be unique, got 7"),
        (lambda c: c["categories"].append({"id": 8, "name": "cat"}), "category names must be unique, got 'cat'"),
        (lambda c: c["annotations"][1].update(category_id=1), r"annotation 2 of .*a\.jpg: category_id must be .*3, 7.*got 1"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2]), "annotation 2 .*bbox must be four numbers"),
        (lambda c: c["images"][0].update(height=41), r"a\.jpg is 60 x 40, annotated as 60 x 41"),
        (lambda c: c["images"][0].update(height="40 px"), "height and width must be numbers of pixels, got '40 px'"),
        (lambda c: c["images"][0].update(id=2**70), r"images\[0\]: id must be below 2\^63"),
        (lambda c: c["annotations"][1].update(category_id=[7]), r"category_id must be .*got \[7\]"),
        (lambda c: c["images"].clear(), "at least one image"),
        (lambda c: c["categories"].clear() or c["annotations"].clear(), "at least one class"),
        (lambda c: c.pop("categories"), "must have a list 'categories'"),
        (lambda c: c["images"][0].pop("file_name"), r"images\[0\] must have 'file_name'"),
        (lambda c: c["images"][0].update(file_name="typo.jpg"), r"1 of 3 images do not exist(.|\n)*typo\.jpg(.|\n)*The others are there"),
    ],
)  # fmt: skip
def test_the_error_for_an_unusable_file_gives_the_reason(write, content, change, message):
    change(content)
    with pytest.raises(ValueError, match=message):
        CocoSource(write(content))


def test_a_truncated_image_is_refused_when_the_source_is_opened(write, content, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"1 of 3 images can't be used(.|\n)*a\.jpg can't be read"):
        CocoSource(write(content))


def test_json_errors_name_the_line(write):
    with pytest.raises(ValueError, match=r"instances\.json: is not JSON: line 2, column 1"):
        CocoSource(write('{"images": [],\n]'))
    with pytest.raises(ValueError, match="got a list"):
        CocoSource(write("[]"))


def test_the_error_for_a_folder_or_a_wrong_name_lists_the_json_files_there(write, content):
    path = write(content)
    with pytest.raises(ValueError, match=r"got the folder .*it holds .*instances\.json"):
        CocoSource(path.parent)
    with pytest.raises(ValueError, match=r"instance\.json does not exist .*holds .*instances\.json"):
        CocoSource(path.parent / "instance.json")


@pytest.mark.skipif(not (SHARED / "coco33").is_dir(), reason="needs ../shared/data/coco33")
def test_coco33_opens_without_a_warning(caplog):
    source = CocoSource(SHARED / "coco33" / "instances.json", SHARED / "coco33" / "images")
    assert len(source) == 33
    assert len(source.class_names) == 80
    assert sum(len(record.boxes) for record in source) == 246
    assert caplog.messages == []


@pytest.mark.skipif(not (SHARED / "rbcwbc").is_dir(), reason="needs ../shared/data/rbcwbc")
def test_images_are_looked_for_beside_the_json_by_default():
    source = CocoSource(SHARED / "rbcwbc" / "valid" / "_annotations.coco.json")
    assert len(source) == 20
    assert source.category_ids == (1, 2)  # 0 is Roboflow's group
    assert source.left_out_classes == [("RBC-WBC", 0)]
