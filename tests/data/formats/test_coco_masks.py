"""COCO's annotations with their masks."""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from kfpn.data.dataset_checks import check_training_set
from kfpn.data.formats import open_source
from kfpn.data.formats.coco import CocoSource

SIZE = (30, 40)
TRIANGLE = [5, 6, 25.5, 7, 10, 20]
SQUARE = [30, 2, 36, 2, 36, 8, 30, 8]


def drawn(*polygons):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(list(polygons), *SIZE))).astype(bool)


def rle(bitmap, compressed=True):
    packed = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    if compressed:
        return {"size": list(bitmap.shape), "counts": packed["counts"].decode()}
    flat = np.concatenate([[0], bitmap.ravel(order="F"), [2]])
    counts = np.diff(np.flatnonzero(np.diff(flat) != 0) + 1, prepend=1)
    return {"size": list(bitmap.shape), "counts": counts.tolist()}


def written(root, *segmentations, exif=None, **fields):
    Image.new("RGB", (40, 30)).save(root / "a.png", **({"exif": exif} if exif else {}))
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 36, 20]}
    rows = [{"id": i, "segmentation": own, **box, **fields} for i, own in enumerate(segmentations)]
    size = {} if exif is None else {"width": 40, "height": 30}
    content = {
        "images": [{"id": 1, "file_name": "a.png", **size}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "a"}],
    }
    (root / "a.json").write_text(json.dumps(content))
    return root / "a.json"


def test_polygons_and_both_kinds_of_run_lengths_become_masks(tmp_path):
    both = drawn(TRIANGLE, SQUARE)
    path = written(tmp_path, [TRIANGLE, SQUARE], rle(both), rle(both, compressed=False), [TRIANGLE], TRIANGLE)
    masks = CocoSource(path, masks=True)[0].masks
    assert all((masks.bitmap(i) == both).all() for i in range(3))
    assert all((masks.bitmap(i) == drawn(TRIANGLE)).all() for i in (3, 4))
    assert masks.rle(0) == {"size": [30, 40], "counts": rle(both)["counts"].encode()}


def test_polygons_of_swapped_axes_are_warned_of_where_they_are_most(tmp_path, caplog):
    wide, bbox = [2, 20, 36, 20, 36, 26, 2, 26], [2, 20, 34, 6]
    swapped = [20, 2, 20, 36, 26, 36, 26, 2]
    check_training_set(CocoSource(written(tmp_path, [wide], [wide], [swapped], bbox=bbox), masks=True))
    assert "elsewhere" not in caplog.text
    check_training_set(CocoSource(written(tmp_path, [swapped], [swapped], [swapped], [wide], bbox=bbox), masks=True))
    assert "3 masks lie elsewhere than their objects' boxes, more than half of them: are x and y" in caplog.text


def test_a_crowd_region_has_its_mask(tmp_path):
    record = CocoSource(written(tmp_path, rle(drawn(SQUARE), compressed=False), iscrowd=1), masks=True)[0]
    assert record.crowd.all()
    assert record.masks.areas().tolist() == [36]


def test_masks_are_kept_only_where_they_are_asked_for(tmp_path):
    path = written(tmp_path, [TRIANGLE])
    assert CocoSource(path)[0].masks is None
    assert open_source(f"coco:{path}")[0].masks is None
    for _ in range(2):  # the second one is recalled
        assert open_source(f"coco:{path}", masks=True)[0].masks.exists.all()
    assert open_source(f"coco:{path}")[0].masks is None


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1, 1, 9, 9]], "annotation 1 of {}/a.png must have polygons of at least three points, got 2 points"),
        ("polygon", "must be polygons or run lengths, got str 'polygon'"),
        ({"size": [40, 30], "counts": [1200]}, "masks of another size .*: 30 x 40 in an image of 40 x 30"),
        ({"size": [30, 40], "counts": [7]}, "annotation 1 of .*a.png must have counts whose sum is height x width"),
        ({"size": [30, 40]}, "annotation 1 of .*a.png must have size and counts, got size"),
        ([[100, 100, 120, 100, 110, 120]], "masks without a pixel in their image.*annotation 1 of .*a.png"),
        ({"size": [30, 40], "counts": [1200]}, "masks without a pixel in their image"),
        ([[5, 22, 20, 22, 20, 29]], "masks that lie beside their object's box, left out.*annotation 1 of .*a.png"),
        ({"size": [30, 40], "counts": [1190, 10]}, "masks that lie beside their object's box"),
        (17, "must be polygons or run lengths, got int"),
        ([["x"] * 6], "must have polygons of numbers"),
        ([[True, 2, 9, 2, 9, 9]], "must have polygons of numbers, which true and false are not, got .True, 2, 9"),
        ([[True, 2], [9, 2], [9, 9]], "must have polygons of numbers, which true and false are not"),
        (
            {"size": [30, 40], "counts": [True, 1199]},
            "must have counts that are whole numbers of pixels, or text, got .True",
        ),
    ],
)
def test_a_mask_that_cannot_be_used_is_left_out_in_one_line_and_its_box_stays(tmp_path, caplog, segmentation, said):
    path = written(tmp_path, [SQUARE], segmentation, segmentation)
    with caplog.at_level(logging.WARNING, "kfpn"):
        record = CocoSource(path, masks=True)[0]
    assert record.masks.exists.tolist() == [True, False, False]
    assert len(record.boxes) == 3
    lines = [message for message in caplog.messages if "asks" in message and "kept" not in message]
    assert len(lines) == 1
    assert ": 2 (first: " in lines[0]
    assert re.search(said.format(tmp_path), lines[0])


def test_a_polygon_of_pairs_is_read(tmp_path):
    pairs = [SQUARE[i : i + 2] for i in range(0, len(SQUARE), 2)]
    masks = CocoSource(written(tmp_path, [SQUARE], pairs, [pairs]), masks=True)[0].masks
    assert all((masks.bitmap(i) == drawn(SQUARE)).all() for i in range(3))


@pytest.mark.parametrize("bbox", [[10, 10, 0, 0], [50, 50, 5, 5], [float("nan"), 1, 5, 5]])
def test_of_an_object_whose_box_is_left_out_nothing_is_said_of_its_mask(tmp_path, caplog, bbox):
    with caplog.at_level(logging.WARNING, "kfpn"):
        source = CocoSource(written(tmp_path, [SQUARE], bbox=bbox), masks=True)
    assert not len(source[0].boxes)
    assert not len(source[0].masks)
    assert len([message for message in caplog.messages if "left out" in message]) == 1
    assert "asks" not in caplog.text


def test_a_segmentation_with_a_capital_is_read(tmp_path):
    path = written(tmp_path, [SQUARE])
    path.write_text(path.read_text().replace('"segmentation"', '"Segmentation"'))
    assert (CocoSource(path, masks=True)[0].masks.bitmap(0) == drawn(SQUARE)).all()


def test_of_several_polygons_those_that_can_be_read_stay(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "kfpn"):
        masks = CocoSource(written(tmp_path, [[1, 1, 9, 9], SQUARE]), masks=True)[0].masks
    assert (masks.bitmap(0) == drawn(SQUARE)).all()
    assert len([message for message in caplog.messages if "polygons of them" in message]) == 1


def test_objects_without_a_mask_have_none_and_nothing_is_said(tmp_path, caplog):
    path = written(tmp_path, [], None, [SQUARE])
    with caplog.at_level(logging.WARNING, "kfpn"):
        assert CocoSource(path, masks=True)[0].masks.exists.tolist() == [False, False, True]
    assert not [message for message in caplog.messages if "left out" in message]


def test_masks_of_annotations_of_an_unknown_image_are_left_out_with_them(tmp_path):
    path = written(tmp_path, [TRIANGLE], [SQUARE])
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 8
    path.write_text(json.dumps(content))
    masks = CocoSource(path, masks=True)[0].masks
    assert (masks.bitmap(0) == drawn(SQUARE)).all()
    assert len(masks) == 1


def test_masks_of_a_missing_class_are_an_error_that_names_the_image(tmp_path):
    with pytest.raises(ValueError, match=r"annotation 0 of .*a.png: category_id must be one of"):
        CocoSource(written(tmp_path, [TRIANGLE], category_id=5), masks=True)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_stored_pixels_turn_with_their_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, rle(drawn(SQUARE)), [SQUARE], exif=exif, bbox=[30, 2, 6, 6])
    record = CocoSource(path, masks=True)[0]
    if orientation < 5:
        # A size that is the same both ways does not tell a turn by 180 degrees or a mirror: the masks lie in the image as it is seen.
        assert (record.masks.bitmap(1) == drawn(SQUARE)).all()
        return
    y1, x1, y2, x2 = record.boxes[0].astype(int)
    seen = np.zeros((40, 30), bool)
    seen[y1:y2, x1:x2] = True
    assert (record.masks.bitmap(0) == seen).all()
    assert (record.masks.bitmap(1) == seen).all()
