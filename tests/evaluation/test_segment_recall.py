"""Tests the recall of segments on known answers, and against pycocotools with nothing left out."""

import numpy as np
import pytest

from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.evaluation.coco_rows import ground_truth, masked
from kfpn.evaluation.recall import COUNT, area_ranges, recalls_of_ranges
from kfpn.evaluation.segment_recall import (
    SEGMENT_RECALLS,
    original_segments,
    rows_near_objects,
    segment_recall,
    segment_rows,
)

SIZE = (100, 120)


def record(boxes, crowd=None, image_id=1, outlines=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    if outlines is None:
        outlines = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for y1, x1, y2, x2 in boxes.tolist()]
    masks = ObjectMasks.of(outlines, SIZE)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    labels = np.arange(len(boxes), dtype=np.int32)
    return Record(np.zeros((*SIZE, 3), np.uint8), image_id, *SIZE, boxes, labels, crowd, areas, "one", masks=masks)


def segments(boxes, filled=True):
    """Segments whose masks fill their windows, or their middle half."""
    masks = np.ones((len(boxes), 14, 14), np.float32)
    if not filled:
        masks[:] = 0
        masks[:, 3:11, 3:11] = 1
    scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32)
    return {"boxes": np.array(boxes, np.float32), "scores": scores, "masks": masks}


def recall_of(one, proposed):
    return segment_recall([one], rows_near_objects(one, proposed, "sampled"))


def test_a_segment_that_covers_its_object_is_found_at_all_overlaps_whatever_the_class():
    one = record([[10, 10, 30, 40], [50, 60, 90, 100]])
    recall = recall_of(one, segments([[50, 60, 90, 100]]))
    assert recall["AR@10"] == recall["AR@100"] == recall["AR@1000"] == pytest.approx(0.5)
    # 600 pixels are small, 1600 medium.
    assert (recall["ARs@1000"], recall["ARm@1000"], recall["ARl@1000"]) == (0.0, 1.0, None)


def test_recall_is_the_mean_over_the_overlaps_from_50_to_95():
    # 40 x 33 of 40 x 40 pixels: an overlap of .825, which is enough at .50 to .80, 7 of 10.
    recall = recall_of(record([[50, 60, 90, 100]]), segments([[50, 60, 90, 93]]))
    assert recall["AR@100"] == pytest.approx(0.7)


def test_the_best_10_and_100_are_counted_by_rank_among_all_segments():
    one = record([[50, 60, 90, 100]])
    elsewhere = [[0, 0, 8, 8]] * 10
    recall = recall_of(one, segments([*elsewhere, [50, 60, 90, 100]]))
    assert (recall["AR@10"], recall["AR@100"]) == (0.0, 1.0)
    recall = recall_of(one, segments([*elsewhere * 10, [50, 60, 90, 100]]))
    assert (recall["AR@100"], recall["AR@1000"]) == (0.0, 1.0)


def test_crowd_and_objects_without_a_mask_do_not_count():
    boxes = [[10, 10, 30, 40], [50, 60, 90, 100], [0, 0, 9, 9]]
    outlines = [[[10, 10, 40, 10, 40, 30, 10, 30]], [[60, 50, 100, 50, 100, 90, 60, 90]], None]
    one = record(boxes, crowd=[False, True, False], outlines=outlines)
    assert recall_of(one, segments([[10, 10, 30, 40]]))["AR@100"] == 1.0
    none = record([[0, 0, 9, 9]], outlines=[None])
    assert recall_of(none, segments([[0, 0, 9, 9]])) == dict.fromkeys(SEGMENT_RECALLS)
    assert recall_of(record([]), segments([[0, 0, 9, 9]])) == dict.fromkeys(SEGMENT_RECALLS)


def test_a_mask_that_reaches_beyond_its_objects_box_is_found_by_its_own_extent():
    # The box is a quarter of the mask, as after a wrong scale.
    outline = [[20, 10, 60, 10, 60, 50, 20, 50]]
    recall = recall_of(record([[10, 20, 30, 40]], outlines=[outline]), segments([[10, 20, 50, 60]]))
    assert recall["AR@100"] == 1.0


def test_what_is_left_out_changes_no_figure():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 60, (12, 2))
    one = record(np.concatenate([low, low + rng.uniform(8, 40, (12, 2))], 1).round())
    low = rng.uniform(-10, 80, (400, 2))
    near = one.boxes[rng.integers(0, 12, 200)] + rng.normal(0, 2, (200, 4))
    proposed = segments(np.concatenate([np.concatenate([low, low + rng.uniform(4, 60, (400, 2))], 1), near]))
    proposed["masks"] *= rng.uniform(0.3, 1, proposed["masks"].shape).astype(np.float32)
    rows = rows_near_objects(one, proposed, "sampled")
    every = segment_rows(1, proposed, SIZE, "sampled", np.arange(len(proposed["scores"])))
    assert 0 < len(rows) < len(every) // 2
    truth = masked(ground_truth([record(one.boxes)], [str(i) for i in range(12)], True))
    for annotation in truth["annotations"]:
        annotation["category_id"] = 0
    whole = recalls_of_ranges(truth, every[:COUNT], area_ranges((32.0**2, 96.0**2)), "segm")
    recall = segment_recall([one], rows)
    assert [recall[name] for name in SEGMENT_RECALLS[2:]] == pytest.approx(whole)
    assert 0 < recall["AR@1000"] < 1


def test_windows_are_mapped_to_the_original_image_and_not_cut_to_it():
    row = {
        "boxes": np.array([[-10, 20, 30, 60], [0, 0, 0, 0]], np.float32), "scores": np.array([0.7, 0.0], np.float32),
        "masks": np.zeros((2, 14, 14), np.float32), "levels": np.array([2, 0]), "windows": np.array([5, 0]),
        "image_sizes": np.array([50, 40]), "original_sizes": np.array([100, 120]),
    }  # fmt: skip
    found = original_segments(row)
    np.testing.assert_allclose(found["boxes"], [[-20, 60, 60, 180]])
    assert found["scores"].tolist() == pytest.approx([0.7])
    (drawn,) = segment_rows(5, {**found, "masks": np.ones((1, 14, 14), np.float32)}, SIZE, "sampled", np.array([0]))
    assert drawn["segmentation"]["size"] == [100, 120]
    assert drawn["bbox"] == [60.0, 0.0, 60.0, 60.0]
    assert (drawn["image_id"], drawn["rank"]) == (5, 0)
