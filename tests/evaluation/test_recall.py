import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kfpn.config.presets import preset
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import evaluate_coco
from kfpn.evaluation.coco_rows import ground_truth, to_xywh
from kfpn.evaluation.recall import RECALLS, evaluate_proposals, proposal_recall, propose_source, recall_line
from kfpn.evaluation.source_pass import SourcePass

CONFIG = preset("shapes")


def record(image_id, boxes=(), labels=None, crowd=None, size=(400, 400)):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return Record(
        image=np.zeros((*size, 3), np.uint8),
        image_id=image_id,
        height=size[0],
        width=size[1],
        boxes=boxes,
        labels=np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32),
        crowd=np.zeros(count, bool) if crowd is None else np.asarray(crowd, bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )


def proposed(image_id, boxes=(), scores=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return {
        "image_id": image_id,
        "boxes": boxes,
        "scores": np.linspace(1.0, 0.1, len(boxes)).astype(np.float32) if scores is None else np.asarray(scores),
    }


def recalls(answer):
    return [answer[name] for name in RECALLS]


def test_the_figures_are_those_worked_out_by_hand():
    # Image 1 has A of 20 x 20 = 400 pixels (small), B of 50 x 50 = 2500 (medium), and a crowd of 100 x 100.
    # Image 2 has C of 100 x 100 (large). Image 3 has no object. Three objects of three classes count.
    first = record(1, [[0, 0, 20, 20], [100, 100, 150, 150], [300, 300, 400, 400]], [0, 1, 2], [0, 0, 1])
    second, third = record(2, [[0, 0, 100, 100]], [2]), record(3)
    # A has a box of IoU 15.5 / 20 = .775, enough for six of the ten thresholds (.50 to .75): recall .6.
    # B has a box of IoU 31 / 50 = .62, enough for .50, .55 and .60: recall .3 with 100 proposals. The exact box of B is
    # the 101st: with 1000 proposals it matches B from .65 on, so B's recall is 1. Between the two boxes of B stand 98
    # boxes in the crowd, and a crowd does not count.
    boxes = [[0, 0, 20, 15.5], [100, 100, 150, 131], *[[310, 310, 330, 330]] * 98, [100, 100, 150, 150]]
    # C has a box of IoU 91 / 100, enough for .50 to .90: recall .9. The second box on C changes nothing.
    proposals = [proposed(1, boxes), proposed(2, [[0, 0, 100, 91], [0, 0, 90, 100]]), proposed(3, [[0, 0, 9, 9]])]
    answer = proposal_recall([first, second, third], proposals)
    assert tuple(answer) == RECALLS
    # With 100 proposals: (.6 + .3 + .9) / 3. With 1000: (.6 + 1 + .9) / 3; then the small, the medium and the large object.
    assert recalls(answer) == pytest.approx([0.6, 2.5 / 3, 0.6, 1.0, 0.9])


def test_the_bounds_between_small_medium_and_large_can_be_set():
    # By COCO's bounds 400 and 2500 pixels are small and medium. By the bounds 500 and 2000 they are small and large.
    truth = record(1, [[0, 0, 20, 20], [100, 100, 150, 150]])
    answer = proposal_recall([truth], [proposed(1, [[0, 0, 20, 20]])], areas=(500.0, 2000.0))
    assert recalls(answer) == [0.5, 0.5, 1.0, None, 0.0]


def test_one_proposal_matches_one_object():
    truth = record(1, [[0, 0, 50, 50], [0, 0, 50, 50]])
    assert proposal_recall([truth], [proposed(1, [[0, 0, 50, 50]])])["AR@1000"] == pytest.approx(0.5)
    assert proposal_recall([truth], [proposed(1, [[0, 0, 50, 50]] * 2)])["AR@1000"] == pytest.approx(1.0)


def test_the_proposals_of_the_highest_scores_count_and_the_first_ones_of_equal_scores():
    truth = record(1, [[0, 0, 50, 50]])
    junk, hit = [[200, 200, 220, 220]], [[0, 0, 50, 50]]
    # The right box stands last. It has the highest score, so it counts first.
    answer = proposal_recall([truth], [proposed(1, junk * 1000 + hit, [0.1] * 1000 + [0.9])])
    assert recalls(answer)[:2] == [1.0, 1.0]
    # All scores are equal. The right box is the 101st, and then the 1001st.
    assert recalls(proposal_recall([truth], [proposed(1, junk * 100 + hit, [0.5] * 101)]))[:2] == [0.0, 1.0]
    assert recalls(proposal_recall([truth], [proposed(1, junk * 1000 + hit, [0.5] * 1001)]))[:2] == [0.0, 0.0]


def scattered(seed, images=6):
    """Makes objects of three classes, some of them crowds, and 1200 proposals an image, many of them near an object."""
    rng = np.random.default_rng(seed)
    records, proposals = [], []
    for image_id in range(1, images + 1):
        start = rng.uniform(0, 250, (7, 2))
        boxes = np.concatenate([start, start + rng.uniform(8, 140, (7, 2))], axis=1)
        records.append(record(image_id, boxes, rng.integers(0, 3, 7), rng.uniform(size=7) < 0.2))
        near = boxes[rng.integers(0, 7, 1200)] + rng.normal(0, 12, (1200, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        proposals.append(proposed(image_id, near, rng.uniform(size=1200).round(2)))
    return records, proposals


def by_pycocotools(records, proposals, max_dets, **params):
    truth = ground_truth(records, ["a", "b", "c"])
    results = [
        {"image_id": row["image_id"], "category_id": 0, "bbox": box, "score": float(score)}
        for row in proposals
        for box, score in zip(to_xywh(row["boxes"]), row["scores"], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(results), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = max_dets
        evaluation.evaluate()
        evaluation.accumulate()
    # The axes of "recall": IoU thresholds; classes (one); all, small, medium and large; maxDets.
    return evaluation.eval["recall"][:, 0].mean(axis=0)


def test_the_figures_are_those_that_pycocotools_gives_for_all_proposals():
    for seed in range(3):
        records, proposals = scattered(seed)
        expected = by_pycocotools(records, proposals, [100, 1000])
        assert recalls(proposal_recall(records, proposals)) == pytest.approx(
            [expected[0, 0], *expected[:, 1]], abs=1e-12
        )


def test_with_one_class_and_100_proposals_the_recall_is_that_of_detections():
    records, proposals = scattered(7)
    records = [record(r.image_id, r.boxes, None, r.crowd) for r in records]
    best = [np.argsort(-row["scores"], kind="stable")[:100] for row in proposals]
    proposals = [
        proposed(row["image_id"], row["boxes"][b], row["scores"][b]) for row, b in zip(proposals, best, strict=True)
    ]
    detections = [{**row, "labels": np.zeros(100, np.int32)} for row in proposals]
    expected = evaluate_coco(records, detections, ["cat"])
    assert recalls(proposal_recall(records, proposals)) == pytest.approx(
        [expected[name] for name in ("AR100", "AR100", "ARs", "ARm", "ARl")]
    )


def test_without_proposals_the_recall_is_zero():
    truth = record(1, [[0, 0, 20, 20], [100, 100, 150, 150]])
    for nothing in ([], [proposed(1)]):
        assert recalls(proposal_recall([truth], nothing)) == [0.0, 0.0, 0.0, 0.0, None]


def test_without_objects_the_recall_is_none():
    crowd = record(1, [[0, 0, 20, 20]], crowd=[True])
    for records, proposals in (
        ([], []),
        ([record(1)], []),
        ([record(1)], [proposed(1, [[0, 0, 9, 9]])]),
        ([crowd], []),
    ):
        assert recalls(proposal_recall(records, proposals)) == [None] * 5
    assert recall_line(dict.fromkeys(RECALLS)) == ("proposals: AR@100 -  AR@1000 -  ARs@1000 -  ARm@1000 -  ARl@1000 -")


@pytest.mark.parametrize(
    ("records", "proposals", "areas", "message"),
    [
        ([record(1)], [proposed(2)], (1, 2), "proposals: image_id must be the id of a record, got 2"),
        ([record(1)], [proposed(1), proposed(1)], (1, 2), "proposals: image_id must occur once, got 1 twice"),
        ([record(1), record(1)], [], (1, 2), "records: image_id must be unique, got 1 twice"),
        ([record(1)], [proposed(1, [[0, 0, 1, 1]], [])], (1, 2), "boxes and scores must be of one length, got 1 and 0"),
        ([record(1)], [], (2, 1), "areas must be two rising positive numbers of square pixels, got 2 and 1"),
    ],
)
def test_ids_scores_and_areas_that_do_not_fit_are_refused(records, proposals, areas, message):
    with pytest.raises(ValueError, match=message):
        proposal_recall(records, proposals, areas)


def left_half(inputs):
    """Stands in for a proposals model: proposes the left half of the image without its padding, all of it, and an empty row."""
    sizes = tf.cast(inputs["image_sizes"], tf.float32)
    height, width = sizes[:, 0], sizes[:, 1]
    none = tf.zeros_like(height)
    boxes = [[none, none, height, width / 2], [none, none, height, width], [none] * 4]
    rows = tf.shape(height)[0]
    return {
        "boxes": tf.stack([tf.stack(box, axis=1) for box in boxes], axis=1),
        "scores": tf.tile(tf.constant([[0.9, 0.8, 0.0]]), [rows, 1]),
    }


def sized_source():
    # The preset `shapes` resizes to 128 a side. So both images are scaled, and one is padded.
    return IterableSource(
        [record(5, [[0, 0, 60, 40]], size=(60, 80)), record(9, [[0, 0, 256, 200]], size=(256, 256))], ("cat",)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_proposals_are_in_original_pixels_and_have_no_empty_rows(batch_size):
    by_image = {
        row["image_id"]: row for row in propose_source(left_half, SourcePass(sized_source(), CONFIG, batch_size, False))
    }
    np.testing.assert_allclose(by_image[5]["boxes"], [[0, 0, 60, 40], [0, 0, 60, 80]], atol=1e-4)
    np.testing.assert_allclose(by_image[9]["boxes"], [[0, 0, 256, 128], [0, 0, 256, 256]], atol=1e-4)
    assert by_image[9]["scores"] == pytest.approx([0.9, 0.8])
    assert by_image[9]["boxes"].dtype == by_image[9]["scores"].dtype == np.float32


def test_the_recall_of_a_source_counts_the_objects_of_all_its_images():
    # The object of image 5 is proposed exactly: recall 1. The best box for the object of image 9, 256 x 200, is the whole
    # image: IoU 200 / 256 = .78, enough for six of the ten thresholds. The first object is medium (2400 pixels), the
    # second is large.
    answer = evaluate_proposals(left_half, sized_source(), CONFIG, progress=False)
    assert recalls(answer)[:2] + recalls(answer)[3:] == pytest.approx([0.8, 0.8, 1.0, 0.6])
    assert answer["ARs@1000"] is None


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        evaluate_proposals(left_half, sized_source(), CONFIG, 0, progress=False)
