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
from kfpn.evaluation.coco_figures import evaluate_coco, ground_truth, to_xywh
from kfpn.evaluation.detect import SourcePass
from kfpn.evaluation.recall import RECALLS, evaluate_proposals, proposal_recall, propose_source, recall_line

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
    # Image 1: A, 20 x 20 = 400 pixels: small; B, 50 x 50 = 2500: medium; a crowd of 100 x 100.
    # Image 2: C, 100 x 100: large. Image 3: nothing. Three objects of three classes count.
    first = record(1, [[0, 0, 20, 20], [100, 100, 150, 150], [300, 300, 400, 400]], [0, 1, 2], [0, 0, 1])
    second, third = record(2, [[0, 0, 100, 100]], [2]), record(3)
    # A: IoU 15.5 / 20 = .775 reaches .50 ... .75, six of the ten IoUs: recall .6.
    # B: 31 / 50 = .62 reaches .50, .55, .60: .3. The exact box behind it ranks 101st: from .65 on it is B's, and B's
    # recall is 1. Between them 98 boxes in the crowd, which is neither found nor missed.
    boxes = [[0, 0, 20, 15.5], [100, 100, 150, 131], *[[310, 310, 330, 330]] * 98, [100, 100, 150, 150]]
    # C: 91 / 100 reaches .50 ... .90: .9. Another one on C finds nothing more.
    proposals = [proposed(1, boxes), proposed(2, [[0, 0, 100, 91], [0, 0, 90, 100]]), proposed(3, [[0, 0, 9, 9]])]
    answer = proposal_recall([first, second, third], proposals)
    assert tuple(answer) == RECALLS
    # At 100: (.6 + .3 + .9) / 3; at 1000: (.6 + 1 + .9) / 3, and of the small, the medium and the large one.
    assert recalls(answer) == pytest.approx([0.6, 2.5 / 3, 0.6, 1.0, 0.9])


def test_bounds_of_the_areas_can_be_moved():
    # 400 and 2500 pixels: small and medium by COCO; with bounds of 500 and 2000 small and large.
    truth = record(1, [[0, 0, 20, 20], [100, 100, 150, 150]])
    answer = proposal_recall([truth], [proposed(1, [[0, 0, 20, 20]])], areas=(500.0, 2000.0))
    assert recalls(answer) == [0.5, 0.5, 1.0, None, 0.0]


def test_one_proposal_finds_one_object():
    truth = record(1, [[0, 0, 50, 50], [0, 0, 50, 50]])
    assert proposal_recall([truth], [proposed(1, [[0, 0, 50, 50]])])["AR@1000"] == pytest.approx(0.5)
    assert proposal_recall([truth], [proposed(1, [[0, 0, 50, 50]] * 2)])["AR@1000"] == pytest.approx(1.0)


def test_the_best_count_whatever_their_order_and_of_equal_ones_the_first():
    truth = record(1, [[0, 0, 50, 50]])
    junk, hit = [[200, 200, 220, 220]], [[0, 0, 50, 50]]
    # The hit stands last; with the highest score it is the first of all.
    answer = proposal_recall([truth], [proposed(1, junk * 1000 + hit, [0.1] * 1000 + [0.9])])
    assert recalls(answer)[:2] == [1.0, 1.0]
    # Of equal scores the hit is the 101st, then the 1001st.
    assert recalls(proposal_recall([truth], [proposed(1, junk * 100 + hit, [0.5] * 101)]))[:2] == [0.0, 1.0]
    assert recalls(proposal_recall([truth], [proposed(1, junk * 1000 + hit, [0.5] * 1001)]))[:2] == [0.0, 0.0]


def scattered(seed, images=6):
    """Objects of three classes, crowds among them, and 1200 proposals an image, many of them near an object."""
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
    # (IoU thresholds, one class, all small medium large, maxDets)
    return evaluation.eval["recall"][:, 0].mean(axis=0)


def test_the_figures_are_those_of_pycocotools_given_every_proposal():
    for seed in range(3):
        records, proposals = scattered(seed)
        expected = by_pycocotools(records, proposals, [100, 1000])
        assert recalls(proposal_recall(records, proposals)) == pytest.approx(
            [expected[0, 0], *expected[:, 1]], abs=1e-12
        )


def test_of_one_class_and_100_boxes_recall_is_that_of_detections():
    records, proposals = scattered(7)
    records = [record(r.image_id, r.boxes, None, r.crowd) for r in records]
    best = [np.argsort(-row["scores"], kind="stable")[:100] for row in proposals]
    proposals = [
        proposed(row["image_id"], row["boxes"][b], row["scores"][b]) for row, b in zip(proposals, best, strict=True)
    ]
    detections = [{**row, "labels": np.zeros(100, np.int32)} for row in proposals]
    expected = evaluate_coco(records, detections, ["thing"])
    assert recalls(proposal_recall(records, proposals)) == pytest.approx(
        [expected[name] for name in ("AR100", "AR100", "ARs", "ARm", "ARl")]
    )


def test_no_proposals_find_nothing():
    truth = record(1, [[0, 0, 20, 20], [100, 100, 150, 150]])
    for nothing in ([], [proposed(1)]):
        assert recalls(proposal_recall([truth], nothing)) == [0.0, 0.0, 0.0, 0.0, None]


def test_without_objects_there_is_nothing_to_measure():
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
def test_what_does_not_fit_is_refused(records, proposals, areas, message):
    with pytest.raises(ValueError, match=message):
        proposal_recall(records, proposals, areas)


def left_half(inputs):
    """Stands for a proposals model: the left half of the true image, the whole of it, and an empty row."""
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
    # The shapes preset resizes to 128 a side: both images are scaled, and one is padded.
    return IterableSource(
        [record(5, [[0, 0, 60, 40]], size=(60, 80)), record(9, [[0, 0, 256, 200]], size=(256, 256))], ("thing",)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_proposals_come_in_original_pixels_without_empty_rows(batch_size):
    found = {
        row["image_id"]: row for row in propose_source(left_half, SourcePass(sized_source(), CONFIG, batch_size, False))
    }
    np.testing.assert_allclose(found[5]["boxes"], [[0, 0, 60, 40], [0, 0, 60, 80]], atol=1e-4)
    np.testing.assert_allclose(found[9]["boxes"], [[0, 0, 256, 128], [0, 0, 256, 256]], atol=1e-4)
    assert found[9]["scores"] == pytest.approx([0.9, 0.8])
    assert found[9]["boxes"].dtype == found[9]["scores"].dtype == np.float32


def test_a_source_is_measured_image_by_image():
    # Image 5: exact, recall 1. Image 9, 256 x 200: its best is the whole, IoU 200 / 256 = .78: six of ten. The first is
    # medium (2400 pixels), the second large.
    answer = evaluate_proposals(left_half, sized_source(), CONFIG, progress=False)
    assert recalls(answer)[:2] + recalls(answer)[3:] == pytest.approx([0.8, 0.8, 1.0, 0.6])
    assert answer["ARs@1000"] is None


def test_a_batch_of_no_images_is_refused():
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        evaluate_proposals(left_half, sized_source(), CONFIG, 0, progress=False)
