"""Matching in blocks of boxes gives the bits of matching all boxes at once, whatever pads them."""

import keras
import numpy as np
import pytest

from kfpn.config.run import SamplingConfig
from kfpn.losses import matching
from kfpn.losses.matching import MatchRule, match
from kfpn.losses.targets import roi_targets, rpn_targets

RULE = MatchRule(0.7, 0.3, keep_best=True)


def ground_truth(count, rows, batch=2, seed=0):
    """Returns `count` boxes an image, fewer in the last image, crowd regions and twins among them, in `rows` rows."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 90, (batch, count, 2))
    boxes = np.zeros((batch, rows, 4), "float32")
    boxes[:, :count] = np.concatenate([start, start + rng.uniform(4, 40, (batch, count, 2))], -1)
    boxes[:, count // 2] = boxes[:, 0]  # twins: the earlier one counts
    labels = np.full((batch, rows), -1, "int32")
    labels[:, :count] = rng.integers(0, 3, (batch, count))
    labels[-1, (count + 1) // 2 :] = -1
    crowd = np.zeros((batch, rows), bool)
    crowd[:, :count] = rng.random((batch, count)) < 0.1
    crowd[:, 0] = False
    return {"gt_boxes": boxes, "gt_labels": labels, "gt_crowd": crowd}


def candidates(count=500, batch=1, seed=1):
    rng = np.random.default_rng(seed)
    start = np.round(rng.uniform(0, 90, (batch, count, 2)))
    return np.concatenate([start, start + np.round(rng.uniform(4, 40, (batch, count, 2)))], -1).astype("float32")


def call(compiled, function, *arrays):
    if not compiled:
        return keras.tree.map_structure(np.array, function(*arrays))
    import tensorflow as tf

    return keras.tree.map_structure(np.array, tf.function(function, jit_compile=True)(*map(to_tensors, arrays)))


def to_tensors(tree):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, tree)


@pytest.mark.parametrize(("count", "compiled"), [(1, False), (31, False), (33, False), (90, False), (33, True)])
def test_any_padding_and_any_block_give_the_same_bits(monkeypatch, count, compiled):
    anchors = candidates()
    monkeypatch.setattr(matching, "BLOCK", 1000)
    expected = call(compiled, lambda a, gt: match(a, gt, RULE), anchors, ground_truth(count, count))
    assert (expected[0] == 1).any() or count == 1
    for block, rows in ((32, 100), (7, 91), (1, 90)):
        monkeypatch.setattr(matching, "BLOCK", block)
        found = call(compiled, lambda a, gt: match(a, gt, RULE), anchors, ground_truth(count, rows))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"{block} {rows}")


def test_of_equal_boxes_in_two_blocks_the_earlier_is_matched(monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", 2)
    box, other = [0, 0, 10, 10], [50, 50, 60, 60]
    gt = {"gt_boxes": np.array([[other, box, box, other, box]], "float32"), "gt_labels": np.zeros((1, 5), "int32")}
    gt["gt_crowd"] = np.zeros((1, 5), bool)
    matched, index = match(np.array([[box, other, [80, 80, 90, 90]]], "float32"), gt, RULE)
    assert np.array(matched).tolist() == [[1, 1, 0]]
    assert np.array(index).tolist() == [[1, 0, 0]]


def test_rounds_end_at_the_last_block_that_holds_a_box(monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", 4)
    rounds, whole = [], matching._overlap
    monkeypatch.setattr(matching, "_overlap", lambda *args: rounds.append(1) or whole(*args))
    match(candidates(), ground_truth(9, 2000), RULE)
    assert len(rounds) == 3
    nothing = {**ground_truth(9, 2000), "gt_labels": np.full((2, 2000), -1, "int32")}
    matched, index = match(candidates(), nothing, RULE)
    assert len(rounds) == 3
    assert not np.array(matched).any()
    assert not np.array(index).any()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_targets_do_not_depend_on_the_padding(compiled):
    """The samples and their targets of both stages: 50 boxes in 50 rows or in 718."""
    rng = np.random.default_rng(3)
    sampling = SamplingConfig(rpn_batch=64, roi_batch=64)
    noise = {"rpn": rng.random((2, 500), "float32"), "roi": rng.random((2, 40 + 718), "float32")}
    anchors, proposals = candidates(), candidates(40, batch=2, seed=5)

    def both(rows):
        gt = ground_truth(50, rows)
        boxes = np.concatenate([proposals, gt["gt_boxes"]], 1)
        usable = np.concatenate([np.ones((2, 40), bool), gt["gt_labels"] >= 0], 1)
        first = call(
            compiled, lambda a, u, g, n: rpn_targets(a, u, g, sampling, n)._asdict(),
            anchors, np.ones((2, 500), bool), gt, noise["rpn"],
        )  # fmt: skip
        second = call(
            compiled, lambda b, u, g, n: roi_targets(b, u, g, 3, sampling, n)._asdict(),
            boxes, usable, gt, noise["roi"][:, : 40 + rows],
        )  # fmt: skip
        return {**first, **{f"roi_{name}": value for name, value in second.items()}}

    tight, padded = both(50), both(718)
    assert tight["positive"].any()
    assert tight["roi_positive"].any()
    for name, value in tight.items():
        np.testing.assert_array_equal(value, padded[name], err_msg=name)
