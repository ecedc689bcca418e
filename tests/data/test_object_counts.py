import json

import numpy as np
import pytest
from PIL import Image

from kfpn.config.model import ModelConfig
from kfpn.data.formats import open_source
from kfpn.data.object_counts import objects_of_images, warn_of_crowded_images


@pytest.fixture
def crowded(tmp_path):
    """Opens two images: one with 150 objects and 10 of crowd, 100 of the first class, and one with 3."""
    rows = [(1, 1 + (n >= 100), int(n >= 150)) for n in range(160)] + [(2, 1, 0)] * 3
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / "2.png")
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 200} for i in (1, 2)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": n + 1, "image_id": image, "category_id": category, "iscrowd": crowd, "area": 4,
             "bbox": [n % 90 * 2, n // 90 * 2, 2, 2]}
            for n, (image, category, crowd) in enumerate(rows)
        ],
    }  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(truth))
    return open_source(f"coco:{tmp_path}/t.json,{tmp_path}", "validation", "none")


def test_objects_are_counted_by_image_and_by_its_fullest_class_without_crowd(crowded):
    objects, of_one_class = objects_of_images(crowded)
    assert objects.tolist() == [150, 3]
    assert of_one_class.tolist() == [100, 3]


def test_images_with_more_objects_than_the_detector_gives_are_warned_of_in_one_line_with_the_options(crowded, caplog):
    warn_of_crowded_images(crowded, ModelConfig())
    assert [record.getMessage() for record in caplog.records] == [
        f"{crowded.name}: images with more objects than the detector can give (model.max_detections 100): 1 of 2, up to 150 "
        "objects: use --model.max-detections 200"
    ]


def test_proposals_limit_as_well(crowded, caplog):
    warn_of_crowded_images(crowded, ModelConfig(max_detections=300, post_nms_test=120))
    assert "(model.post_nms_test 120): 1 of 2" in caplog.text
    assert "use --model.post-nms-test 400" in caplog.text


def test_a_limit_of_as_many_as_there_are_is_enough(crowded, caplog):
    warn_of_crowded_images(crowded, ModelConfig(max_detections=150))
    assert not caplog.records
