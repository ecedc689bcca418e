import numpy as np
import pytest

from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.evaluation.best_thresholds import DEFAULT_THRESHOLD, find_thresholds, threshold_table

RIGHT, WRONG = [0, 0, 10, 10], [50, 50, 60, 60]


def source(*images, names=("cat", "dog")):
    """Returns a source with images of objects, each a label; the objects of an image lie side by side."""
    records = []
    for i, labels in enumerate(images):
        boxes = np.array([[0, 20 * n, 10, 20 * n + 10] for n in range(len(labels))], np.float32).reshape(-1, 4)
        crowd, areas = np.zeros(len(labels), bool), np.full(len(labels), 100, np.float32)
        records.append(
            Record(np.zeros((100, 100, 3), np.uint8), i, 100, 100, boxes, np.array(labels, np.int32), crowd, areas)
        )
    return IterableSource(records, names, name="pets")


def detections(image_id, *rows):
    """Returns detections of rows (box, score, label)."""
    return {
        "image_id": image_id,
        "boxes": np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        "scores": np.array([row[1] for row in rows], np.float32),
        "labels": np.array([row[2] for row in rows], np.int32),
    }


def best(data, found, names=("cat", "dog")):
    return find_thresholds(data, found, names)


def test_the_threshold_has_the_best_f1():
    # In the order of scores: right, wrong, right, wrong. F1 is 2/3, 1/2, 4/5 and 2/3 of two objects.
    rows = [(RIGHT, 0.9, 0), (WRONG, 0.8, 0), ([0, 20, 10, 30], 0.7, 0), ([80, 80, 90, 90], 0.6, 0)]
    cat, dog = best(source([0, 0], [1]), [detections(0, *rows), detections(1, (RIGHT, 0.3, 1))])
    assert cat.threshold == np.float32(0.7)
    assert (cat.precision, cat.recall, cat.f1) == pytest.approx((2 / 3, 1.0, 0.8))
    assert (cat.objects, dog.objects) == (2, 1)
    assert (dog.threshold, dog.f1) == (np.float32(0.3), 1.0)


def test_of_equal_f1_the_higher_threshold_is_taken():
    # One of two objects alone: F1 2/3. Then two wrong ones and the second object: F1 2 * 2 / (4 + 2), the same.
    rows = [(RIGHT, 0.9, 0), (WRONG, 0.8, 0), ([80, 80, 90, 90], 0.7, 0), ([0, 20, 10, 30], 0.6, 0)]
    cat, _ = best(source([0, 0]), [detections(0, *rows)])
    assert cat.f1 == pytest.approx(2 / 3)
    assert cat.threshold == np.float32(0.9)


def test_detections_of_one_score_are_kept_together():
    # The right and the wrong one have the same score, so no threshold separates them.
    cat, _ = best(source([0]), [detections(0, (RIGHT, 0.5, 0), (WRONG, 0.5, 0))])
    assert (cat.precision, cat.recall) == (0.5, 1.0)


def test_a_second_detection_of_one_object_is_wrong_and_too_little_overlap_too():
    cat, _ = best(source([0]), [detections(0, (RIGHT, 0.9, 0), (RIGHT, 0.8, 0))])
    assert (cat.threshold, cat.precision) == (np.float32(0.9), 1.0)
    cat, _ = best(source([0]), [detections(0, ([0, 0, 10, 4.9], 0.9, 0), ([0, 0, 10, 5.1], 0.2, 0))])
    assert (cat.threshold, cat.precision) == (np.float32(0.2), 0.5)


def test_detections_on_a_crowd_do_not_count():
    data = source([0])
    record = data[0]
    crowd = Record(
        record.image, 0, 100, 100, np.array([RIGHT, [40, 40, 100, 100]], np.float32), np.zeros(2, np.int32),
        np.array([False, True]), np.array([100, 3600], np.float32),
    )  # fmt: skip
    data = IterableSource([crowd], ("cat", "dog"), name="pets")
    cat, _ = best(data, [detections(0, (WRONG, 0.9, 0), (RIGHT, 0.6, 0))])
    assert (cat.threshold, cat.precision, cat.objects) == (np.float32(0.6), 1.0, 1)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [([], [(RIGHT, 0.9, 0)]), ([0], []), ([0], [(WRONG, 0.9, 0)])],
    ids=["no object", "no detection", "no right one"],
)
def test_a_class_without_objects_or_right_detections_keeps_the_default_and_is_named(labels, rows):
    found = best(source(labels, [1]), [detections(0, *rows), detections(1, (RIGHT, 0.4, 1))])
    assert (found[0].threshold, found[0].f1) == (DEFAULT_THRESHOLD, None)
    assert threshold_table(found).splitlines()[-1].endswith("without objects or right detections: cat")


def test_a_class_that_the_data_lacks_keeps_the_default_and_the_order_is_the_models():
    found = best(source([0]), [detections(0, (RIGHT, 0.4, 0))], names=("cow", "cat"))
    assert [(row.name, row.threshold) for row in found] == [("cow", DEFAULT_THRESHOLD), ("cat", np.float32(0.4))]


def test_the_table_has_a_line_for_each_class():
    lines = threshold_table(best(source([0], [1]), [detections(0, (RIGHT, 0.75, 0)), detections(1, (RIGHT, 0.5, 1))]))
    assert lines.splitlines()[0].split() == ["class", "threshold", "precision", "recall", "F1", "objects"]
    assert lines.splitlines()[1].split() == ["cat", "0.7500", "1.0000", "1.0000", "1.0000", "1"]
    assert len(lines.splitlines()) == 3
