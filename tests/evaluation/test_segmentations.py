import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.evaluation.segmentations import decoded_part, parts_of, rle_of_part, segmented, truth_parts
from kfpn.ops.mask_paste import Part, paste_masks


def bitmap_of(part, size):
    bitmap = np.zeros(size, bool)
    bitmap[part.window] = part.pixels
    return bitmap


def test_run_lengths_of_a_part_are_those_that_pycocotools_writes_for_the_whole_image():
    chance = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(int(side) for side in chance.integers(1, 9, 2))
        ends = [np.sort(chance.integers(0, side + 1, 2)).tolist() for side in size]
        pixels = chance.random([stop - start for start, stop in ends]) < chance.choice([0.0, 0.3, 0.8, 1.0])
        part = Part(tuple(slice(*pair) for pair in ends), pixels)
        bitmap = bitmap_of(part, size)
        expected = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
        written = rle_of_part(part, size)
        assert written == {"size": list(size), "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(bitmap_of(decoded_part(written), size), bitmap)


@pytest.mark.parametrize("rule", ["sampled", "resized"])
def test_detections_get_the_run_lengths_of_their_pasted_masks(rule):
    masks = np.random.default_rng(1).random((3, 28, 28)).astype(np.float32)
    boxes = np.array([[2, 3, 40, 31], [-5, 20, 9, 70], [8, 8, 8, 8]], np.float32)
    detections = {"image_id": 4, "boxes": boxes, "labels": np.zeros(3, np.int32), "masks": masks}
    rows = segmented(detections, (50, 60), rule)
    assert rows.keys() == {"image_id", "boxes", "labels", "segmentations"}
    pasted = np.stack([coco_mask.decode(one) for one in rows["segmentations"]]).astype(bool)
    np.testing.assert_array_equal(pasted, paste_masks(masks, boxes, 50, 60, rule=rule))
    parts = parts_of(rows)
    np.testing.assert_array_equal(bitmap_of(parts(1), (50, 60)), pasted[1])
    assert not parts(2).pixels.size


def test_detections_without_masks_stay_as_they_are():
    detections = {"boxes": np.zeros((0, 4))}
    assert segmented(detections, (50, 60), "sampled") is detections
    assert parts_of(detections) is None
    none = segmented({"boxes": np.zeros((0, 4)), "masks": np.zeros((0, 28, 28))}, np.array([50, 60]), "sampled")
    assert len(none["segmentations"]) == 0


def test_the_masks_of_a_record_are_drawn_one_at_a_time_and_an_object_may_have_none():
    record = Record(
        image="unused.jpg", image_id=1, height=8, width=9, boxes=np.array([[1, 2, 5, 6], [0, 0, 3, 3]], np.float32),
        labels=np.zeros(2, np.int32), crowd=np.zeros(2, bool), areas=np.full(2, 16, np.float32),
        masks=ObjectMasks.of([[[2, 1, 6, 1, 6, 5, 2, 5]], None], (8, 9)),
    )  # fmt: skip
    parts = truth_parts(record)
    np.testing.assert_array_equal(bitmap_of(parts(0), (8, 9)), record.masks.bitmap(0))
    assert parts(1) is None
