import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.edge_rows import MOST_LINES, EdgeRow, Selection, edge_lines
from kfpn.export.onnx import verify_onnx
from kfpn.export.saved_model.verify_saved_model import verify_trained
from kfpn.export.tf_trt.verify_tf_trt import found_again
from kfpn.export.verify import Difference, ExportMismatch, compare_as_sets, full_float32

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20]], np.float32)
ROWS = (BOXES, np.array([0.9, 0.8], np.float32), np.array([3, 7]))


def changed(boxes=0.0, scores=0.0, classes=0):
    return BOXES + boxes, ROWS[1] + scores, ROWS[2] + classes


def rows(*values):
    """Returns boxes, scores and labels of rows (x1, width, score) or (x1, width, score, label), each 100 pixels high."""
    boxes = [[0, value[0], 100, value[0] + value[1]] for value in values]
    labels = [value[3] if len(value) > 3 else 0 for value in values]
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([value[2] for value in values], np.float32),
        np.array(labels, np.int64),
    )


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
    assert compare_as_sets(ROWS, got) == expected


def test_a_row_at_the_threshold_may_be_there_or_not():
    one, both = rows((0, 50, 0.9)), rows((0, 50, 0.9), (200, 50, 0.0505))
    for expected, got, missing in ((both, one, True), (one, both, False)):
        found = compare_as_sets(expected, got, Selection(0.05))
        assert (found.unmatched, len(found.edge), found.edge[0].missing) == (0, 1, missing)
        assert "threshold 0.05" in str(found.edge[0])
        assert compare_as_sets(expected, got, Selection(0.04)).unmatched == 1
        assert compare_as_sets(expected, got, Selection(0.05), score_limit=1e-4).unmatched == 1


def test_a_row_at_the_last_place_of_a_full_list_may_be_another_one():
    best = [(0, 50, 0.9), (100, 50, 0.8)]
    expected, got = rows(*best, (200, 50, 0.7)), rows(*best, (300, 50, 0.7005))
    found = compare_as_sets(expected, got, Selection(0.05, most=3))
    assert (found.unmatched, [row.missing for row in found.edge]) == (0, [True, False])
    assert "row 3, the last" in str(found.edge[0])
    assert compare_as_sets(expected, got, Selection(0.05, most=4)).unmatched == 2
    # Where the last row is left out because another one came in above it, only that other one needs a reason.
    found = compare_as_sets(expected, rows((300, 50, 0.95), *best), Selection(0.05, most=3))
    assert (found.unmatched, len(found.edge)) == (1, 1)


def test_a_list_that_is_full_of_false_rows_explains_nothing():
    false = rows(*[(0, 50, 0.9)] * 3)
    found = compare_as_sets(rows((0, 50, 0.9), (100, 50, 0.8)), false, Selection(0.05, most=3))
    assert found.unmatched == 2


def test_a_good_row_that_is_missing_is_refused_whatever_came_instead():
    expected = rows((0, 50, 0.9), (100, 50, 0.8), (200, 50, 0.7))
    selection = Selection(0.05, 3, 0.5, expected)
    assert compare_as_sets(expected, rows((0, 50, 0.9), (200, 50, 0.7)), selection).unmatched == 1
    # The next row of Keras' candidates took its place: that one is at the edge, the missing one is not.
    selection = selection._replace(candidates=rows((0, 50, 0.9), (100, 50, 0.8), (200, 50, 0.7), (300, 50, 0.6)))
    found = compare_as_sets(expected, rows((0, 50, 0.9), (200, 50, 0.7), (300, 50, 0.6)), selection)
    assert (found.unmatched, [row.score for row in found.edge]) == (1, [pytest.approx(0.6)])


# Two candidates overlap by an IoU of 2/3, and the second has nearly the score of the first.
RIVALS = rows((0, 50, 0.8000), (10, 50, 0.7998), (200, 50, 0.6))


def test_of_two_rivals_either_may_suppress_the_other():
    expected, got = rows((0, 50, 0.8), (200, 50, 0.6)), rows((10, 50, 0.8001), (200, 50, 0.6))
    found = compare_as_sets(expected, got, Selection(0.05, 100, 0.5, RIVALS))
    assert (found.unmatched, [row.missing for row in found.edge]) == (0, [True, False])
    assert "NMS" in str(found.edge[0])
    for other in (
        Selection(0.05, 100, 0.5),  # what Keras selected from is not known
        Selection(0.05, 100, 0.7, RIVALS),  # they would not suppress each other
    ):
        assert compare_as_sets(expected, got, other).unmatched == 2
    for scores in ((0.8, 0.79), (0.8, 0.81)):  # one is clearly the better one
        clear = (RIVALS[0], np.array([*scores, 0.6], np.float32), RIVALS[2])
        assert compare_as_sets(expected, got, Selection(0.05, 100, 0.5, clear)).unmatched == 2


def test_a_shifted_box_is_no_rival():
    # It overlaps the right one and has its score, but Keras has no such candidate.
    expected = rows((0, 50, 0.8), (200, 50, 0.6))
    for shift in (0.06, 1.0, 10.5):
        got = rows((shift, 50, 0.8), (200, 50, 0.6))
        assert compare_as_sets(expected, got, Selection(0.05, 100, 0.5, RIVALS)).unmatched == 2


def test_a_row_of_another_class_is_no_rival():
    other = rows((10, 50, 0.7998, 1))
    candidates = tuple(np.concatenate(both) for both in zip(RIVALS, other, strict=True))
    found = compare_as_sets(rows((0, 50, 0.8)), other, Selection(0.05, 100, 0.5, candidates))
    assert found.unmatched == 2


def test_a_row_that_a_rival_had_suppressed_may_come_when_the_rival_goes():
    # 0..50 suppresses 10..60 but not 22..72 (IoU .39), which 10..60 would suppress (IoU .61).
    candidates = rows((0, 50, 0.8), (10, 50, 0.7998), (22, 50, 0.5))
    expected, got = rows((0, 50, 0.8), (22, 50, 0.5)), rows((10, 50, 0.7999))
    found = compare_as_sets(expected, got, Selection(0.05, 100, 0.5, candidates))
    assert (found.unmatched, len(found.edge)) == (0, 3)
    back = compare_as_sets(got, expected, Selection(0.05, 100, 0.5, candidates))
    assert (back.unmatched, len(back.edge)) == (0, 3)


def test_overlaps_that_are_nearly_the_threshold_may_suppress_or_not():
    # 100 x 60 boxes 20 pixels apart: IoU 40 / 80 = .5. A thousandth of a pixel decides.
    candidates = rows((0, 60, 0.9), (20, 60, 0.7))
    for expected, got in ((candidates, rows((0, 60, 0.9))), (rows((0, 60, 0.9)), candidates)):
        assert compare_as_sets(expected, got, Selection(0.05, 100, 0.5, candidates)).unmatched == 0
        assert compare_as_sets(expected, got, Selection(0.05, 100, 0.51, candidates)).unmatched == 1
    # 22 pixels apart, the boxes do not suppress each other: the second one must be there.
    apart = rows((0, 60, 0.9), (22, 60, 0.7))
    assert compare_as_sets(apart, rows((0, 60, 0.9)), Selection(0.05, 100, 0.5, apart)).unmatched == 1
    # 18 pixels apart, they do: it must not be there.
    apart = rows((0, 60, 0.9), (18, 60, 0.7))
    assert compare_as_sets(rows((0, 60, 0.9)), apart, Selection(0.05, 100, 0.5, apart)).unmatched == 1


def test_empty_results_are_compared():
    nothing = rows()
    assert compare_as_sets(nothing, nothing, Selection(0.05, 100, 0.5, nothing)) == Difference()
    assert compare_as_sets(rows((0, 50, 0.9)), nothing, Selection(0.05, 100, 0.5, nothing)).unmatched == 1
    assert compare_as_sets(nothing, rows((0, 50, 0.9)), Selection(0.05, 100, 0.5, nothing)).unmatched == 1


def test_tf_trt_does_not_miss_the_last_rows_of_a_full_list():
    def outputs(*scores):
        boxes = [[[0, 100 * i, 50, 100 * i + 50] for i in range(len(scores))]]
        return {
            "detection_boxes_pixels": np.array(boxes, np.float32),
            "detection_scores": np.array([scores], np.float32),
            "detection_classes": np.zeros((1, len(scores)), np.int32),
        }

    full, partly = outputs(0.9, 0.5, 0.4995), outputs(0.9, 0.5, 0.0)
    assert found_again(full, full, 1e-3) == (3, 3, 0.0, 0)
    assert found_again(full, outputs(0.9, 0.0, 0.0), 1e-3) == (1, 1, 0.0, 2)
    assert found_again(full, outputs(0.0, 0.5, 0.4995), 1e-3)[:2] == (2, 3)
    assert found_again(partly, outputs(0.9, 0.0, 0.0), 1e-3)[:2] == (1, 2)  # there was room for more


def test_rows_at_the_edge_are_counted_and_some_of_them_are_printed():
    row = EdgeRow(3, 0.0501, (0.0, 1.0, 2.0, 3.0), True, "its score is at the threshold 0.05")
    assert edge_lines("ONNX Runtime", ()) == []
    first, line = edge_lines("ONNX Runtime", (row,))
    assert first.startswith("verify ONNX Runtime: 1 row at the edge")
    assert line == "  class 3, score 0.0501, box 0.0 1.0 2.0 3.0: only in Keras; its score is at the threshold 0.05"
    lines = edge_lines("ONNX Runtime", (row,) * (MOST_LINES + 7))
    assert (len(lines), lines[-1]) == (MOST_LINES + 2, "  and 7 more")
    assert Difference(edge=(row,)).plus(Difference(edge=(row, row))).edge == (row,) * 3


@pytest.fixture(params=[True, False])
def tf32(request):
    """Sets whether GPUs may round factors to TF32, and returns it."""
    tf.config.experimental.enable_tensor_float_32_execution(request.param)
    yield request.param
    tf.config.experimental.enable_tensor_float_32_execution(True)


def test_full_float32_ends_with_its_block_however_that_ends(tf32):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    with full_float32():
        assert not enabled()
    assert enabled() is tf32
    with pytest.raises(ExportStopped), full_float32():
        raise ExportStopped
    assert enabled() is tf32


class ExportStopped(Exception):
    """Ends a verification where it begins."""


def test_exports_are_verified_without_tf32(monkeypatch, tmp_path):
    seen = []

    def stop(*_):
        seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
        raise ExportStopped

    monkeypatch.setattr(tf.saved_model, "contains_saved_model", stop)
    monkeypatch.setattr(verify_onnx, "in_onnxruntime", stop)
    with pytest.raises(ExportStopped):
        verify_trained(None, tmp_path)
    with pytest.raises(ExportStopped):
        verify_onnx.verify_onnx(None, tmp_path / "a.onnx", (1, 64, 64, 3), True)
    assert seen == [False, False]
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_masks_of_rows_that_belong_together_are_compared():
    masks = np.zeros((2, 4, 4))
    masks[0] = 1.0
    found = compare_as_sets((*ROWS, masks), tuple(values[::-1] for values in (*ROWS, masks)))
    assert (found.mask, found.mask_pairs, found.unmatched) == (0.0, 2, 0)
    assert found.of_masks == ", cell of a mask 0 (of 2 masks)"
    found.require_equal_masks("it")
    other = masks.copy()
    other[1, 2, 2] = 0.25
    found = found.plus(compare_as_sets((*ROWS, masks), (*ROWS, other)))
    assert (found.mask, found.mask_pairs) == (0.25, 4)
    with pytest.raises(ExportMismatch, match=r"it must give masks within 0\.01 of the Keras model, got .* 0\.25"):
        found.require_equal_masks("it")


def test_a_mask_that_is_not_a_number_is_far_away():
    masks = np.zeros((2, 4, 4))
    assert compare_as_sets((*ROWS, masks), (*ROWS, masks * np.nan)).mask > 1e6


def test_rows_without_masks_have_none_to_compare():
    assert compare_as_sets(ROWS, ROWS).of_masks == ""
