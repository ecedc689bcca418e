"""COCO's annotations with polygons and no box."""

import json

import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.coco_outlines import FROM_OUTLINE, box_around


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[5, 6, 25.5, 7, 10, 20]], [5, 6, 20.5, 14]),
        ([[5, 6, 25, 7, 10, 20], [1, 1, 2, 1, 2, 30]], [1, 1, 24, 29]),
        ([5, 6, 25, 7, 10, 20], [5, 6, 20, 14]),
        ([[5, 6], [25, 7], [10, 20]], [5, 6, 20, 14]),
        ([[[5, 6], [25, 7], [10, 20]], [1, 1, 2, 1, 2, 30]], [1, 1, 24, 29]),
        ([[5, 6], [25, 7]], None),
        ({"counts": [3, 4], "size": [7, 1]}, None),
        ([], None),
        ([[1, 2, 3, 4]], None),
        ([[1, 2, 3, 4, 5]], None),
        ([[1, 2, 3, 4, 5, "6"]], None),
        ([[1, 2, 3, 4, 5, float("nan")]], None),
        ([[1, 2, 3, 4, 5, 10**400]], None),
        ([[1, 2, 3, 4, 5, 6], 7], None),
        ("text", None),
    ],
)
def test_the_box_around_polygons(segmentation, box):
    assert box_around(segmentation) == box


def opened(root, *objects):
    Image.new("RGB", (40, 30)).save(root / "a.png")
    rows = [{"id": i, "image_id": 1, "category_id": 1, **own} for i, own in enumerate(objects)]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows, "categories": [{"id": 1, "name": "a"}]}
    (root / "a.json").write_text(json.dumps(content))
    return CocoSource(root / "a.json")


def test_annotations_without_bbox_get_the_box_around_their_polygons_and_it_is_said(tmp_path, caplog):
    polygon = [[5, 6, 25, 7, 10, 20]]
    source = opened(tmp_path, {"segmentation": polygon}, {"segmentation": polygon, "bbox": []}, {"segmentation": polygon, "bbox": None}, {"segmentation": polygon, "bbox": [1, 2, 3, 4]})  # fmt: skip
    assert source[0].boxes.tolist() == [[6, 5, 20, 25]] * 3 + [[2, 1, 6, 4]]
    assert f"{FROM_OUTLINE}: 3 (first: annotation 0 of " in caplog.text


@pytest.mark.parametrize("mask", [{"counts": "abc", "size": [30, 40]}, [], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]]])
def test_a_mask_without_bbox_is_refused_with_what_to_do(tmp_path, mask):
    with pytest.raises(
        ValueError,
        match=r"annotation 0 of .*a\.png: bbox must be four numbers .* beside a segmentation that is not polygons of at "
        "least three points each: write the box around it",
    ):
        opened(tmp_path, {"segmentation": mask})
