import numpy as np
import pytest

from kfpn.export.verify import Difference, compare_as_sets

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20]], np.float32)
ROWS = (BOXES, np.array([0.9, 0.8], np.float32), np.array([3, 7]))


def changed(boxes=0.0, scores=0.0, classes=0):
    return BOXES + boxes, ROWS[1] + scores, ROWS[2] + classes


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (ROWS, Difference(rows=2)),
        (tuple(values[::-1] for values in ROWS), Difference(rows=2)),
        (changed(boxes=0.03125), Difference(box=0.03125, rows=2)),
        (changed(boxes=0.0625), Difference(unmatched=4, rows=2)),
        (changed(scores=0.002), Difference(unmatched=4, rows=2)),
        (changed(classes=1), Difference(unmatched=4, rows=2)),
        (tuple(values[:1] for values in ROWS), Difference(unmatched=1, rows=2)),
        (tuple(np.concatenate([values, values[:1]]) for values in ROWS), Difference(unmatched=1, rows=2)),
    ],
)
def test_detections_are_compared_as_sets(got, expected):
    np.testing.assert_allclose(compare_as_sets(ROWS, got), expected)


def test_a_detection_at_the_lowest_score_may_be_missing():
    assert compare_as_sets(ROWS, tuple(values[:1] for values in ROWS), cut=0.8).unmatched == 0
    assert compare_as_sets(tuple(values[:1] for values in ROWS), ROWS, cut=0.8).unmatched == 0
    assert compare_as_sets(ROWS, tuple(values[:0] for values in ROWS), cut=0.8).unmatched == 1
