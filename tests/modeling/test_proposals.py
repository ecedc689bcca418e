import numpy as np
import pytest

from kfpn.modeling.proposals import ProposalRule, Proposals, level_anchors, select_proposals
from tests.modeling import tiny


def maps(height, width, batch=1):
    """Returns empty pyramid levels of a batch."""
    sides = {f"P{n}": (-(-height // 2**n), -(-width // 2**n)) for n in range(2, 7)}
    return {level: np.zeros((batch, *side, 1), "float32") for level, side in sides.items()}


def test_all_images_of_a_batch_share_the_anchors_of_a_level():
    anchors = level_anchors(maps(64, 96, batch=3), np.array([[64, 96]] * 3, "int32"), tiny.config())
    assert [x.shape for x in anchors] == [(1, 3 * cells, 4) for cells in (16 * 24, 8 * 12, 4 * 6, 2 * 3, 1 * 2)]


def test_an_image_has_the_same_anchors_alone_and_in_a_padded_batch():
    config = tiny.config(anchor_strides="image", round_anchors=True)
    sizes = np.array([[75, 101], [160, 192]], "int32")
    together = level_anchors(maps(160, 192, batch=2), sizes, config)
    for i, (height, width) in enumerate(sizes):
        alone = level_anchors(maps(height, width), sizes[i : i + 1], config)
        for n, (one, many) in enumerate(zip(alone, together, strict=True), start=2):
            rows, columns = -(-height // 2**n), -(-width // 2**n)
            many = np.array(many)[i].reshape(-(-160 // 2**n), -(-192 // 2**n), 3, 4)[:rows, :columns]
            np.testing.assert_array_equal(np.array(one)[0], many.reshape(-1, 4))
    # A height of 75 is padded to 96, which is 2 cells of P6: the stride is 48. A height of 160 has 5 cells in P5, so 3 in
    # P6: the stride is 53.
    assert [np.array(together[4])[i, 3 * 3, 0] - np.array(together[4])[i, 0, 0] for i in (0, 1)] == [48, 53]


# Three anchors of one level, far apart: 8 x 8, 8 x 0.5 and 0.001 x 8. Deltas of zero do not move them.
ANCHORS = np.array([[[0, 0, 8, 8], [20, 20, 28, 20.5], [40, 40, 40.001, 48]]], "float32")


@pytest.mark.parametrize(("least", "kept"), [(0.0, 3), (0.5, 2), (0.6, 1), (8.0, 1), (8.5, 0)])
def test_proposals_with_a_side_below_min_size_are_dropped(least, kept):
    outputs = {"logits": [np.array([[3.0, 2, 1]], "float32")], "deltas": [np.zeros((1, 3, 4), "float32")]}
    size = np.array([[64, 64]], "int32")
    rule, usable = ProposalRule(3, 3, 0.7, least), [np.ones((1, 3), bool)]
    boxes, scores, origins = select_proposals(outputs, [ANCHORS], usable, size, rule)
    assert np.isfinite(np.array(scores)).sum() == kept
    np.testing.assert_allclose(np.array(boxes)[0, :kept], ANCHORS[0, :kept], atol=1e-5)
    assert np.array(origins)[0].tolist() == [0, 1, 2][:kept] + [0] * (3 - kept)


def test_proposals_have_the_index_of_their_anchor_among_all_levels():
    far = ANCHORS + 100.0
    outputs = {
        "logits": [np.array([[3.0, 1, 5]], "float32"), np.array([[2.0, 6, 4]], "float32")],
        "deltas": [np.zeros((1, 3, 4), "float32")] * 2,
    }
    size = np.array([[400, 400]], "int32")
    rule, usable = ProposalRule(2, 5, 0.7), [np.ones((1, 3), bool)] * 2
    boxes, scores, origins = select_proposals(outputs, [ANCHORS, far], usable, size, rule)
    assert np.array(scores)[0].tolist() == [6, 5, 4, 3, -np.inf]  # the two best anchors of each level enter NMS
    assert np.array(origins)[0].tolist() == [4, 2, 5, 0, 0]
    every = np.concatenate([ANCHORS, far], axis=1)[0]
    np.testing.assert_allclose(np.array(boxes)[0, :4], every[[4, 2, 5, 0]], atol=1e-5)


def test_empty_proposals_are_dropped_even_if_min_size_is_zero():
    anchors = np.array([[[0, 0, 8, 0], [0, 0, 8, 8]]], "float32")
    outputs = {"logits": [np.array([[3.0, 2]], "float32")], "deltas": [np.zeros((1, 2, 4), "float32")]}
    usable, size = [np.ones((1, 2), bool)], np.array([[64, 64]])
    _, scores, _ = select_proposals(outputs, [anchors], usable, size, ProposalRule(2, 2, 0.7))
    assert np.array(scores)[0].tolist() == [2.0, -np.inf]


def test_the_layer_is_the_same_after_its_config_and_reads_an_older_config_without_newer_arguments():
    layer = Proposals((8.0,) * 5, (1.0,), 10, 5, 0.7, 1e-3, True, "image")
    values = layer.get_config()
    assert Proposals.from_config(values).get_config() == values
    old = {k: v for k, v in values.items() if k not in ("min_size", "round_anchors", "anchor_strides")}
    loaded = Proposals.from_config(old)
    assert (loaded.min_size, loaded.round_anchors, loaded.anchor_strides) == (0.0, False, "level")
