import numpy as np
import pytest

from kfpn.export import verify
from kfpn.export.verify import Difference, Different, compare


def test_an_export_is_equal_to_its_model_and_one_of_other_weights_is_not(
    trained, exported, reference, monkeypatch, capsys
):
    monkeypatch.setattr(verify, "Reference", lambda _: reference)
    found = verify.verify_trained(trained, exported)
    assert set(found) == {"serving_default", "image_tensor", "proposals"}
    assert all(difference.rows > 50 and difference.unmatched == 0 for difference in found.values())
    assert "verify image_tensor: 120 rows; largest differences: box " in capsys.readouterr().out
    batches = list(verify.image_batches(trained.config))
    monkeypatch.setattr(verify, "image_batches", lambda _: batches[:1])
    bias = trained.unfolded.heads["box"].get_layer("head_logits").bias
    before = np.array(bias)
    bias.assign(before + np.array([0.0, 0.1, 0.0, 0.0]))
    try:
        with pytest.raises(
            Different, match=r"must give boxes within 0.05 pixels and .* of 20 rows without counterpart"
        ):
            verify.verify_trained(trained, exported)
    finally:
        bias.assign(before)


def test_a_folder_without_a_model_cannot_be_verified(trained, tmp_path):
    with pytest.raises(ValueError, match="must be a SavedModel, got a folder without one"):
        verify.verify_trained(trained, tmp_path)


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
    np.testing.assert_allclose(compare(ROWS, got), expected)


def test_a_detection_at_the_cut_may_be_there_or_not():
    assert compare(ROWS, tuple(values[:1] for values in ROWS), cut=0.8).unmatched == 0
    assert compare(tuple(values[:1] for values in ROWS), ROWS, cut=0.8).unmatched == 0
    assert compare(ROWS, tuple(values[:0] for values in ROWS), cut=0.8).unmatched == 1
