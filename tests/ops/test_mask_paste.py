import numpy as np
import pytest
from keras import ops

from kfpn.ops.mask_paste import _known_values, paste_masks, paste_one_by_one

RULES = ("sampled", "resized")


def ones(side=2):
    return np.ones((1, side, side), np.float32)


def box(*sides):
    return np.array([sides], np.float32)


def values(masks, boxes, height, width, rule="sampled"):
    return paste_masks(masks, boxes, height, width, threshold=None, rule=rule)


def test_sampled_takes_each_pixel_at_its_centre_between_the_cells_centres():
    # A box of 4 pixels over 2 cells: the pixels' centres lie at .25, .75, 1.25 and 1.75 cells. The cells' centres are .5 and 1.5.
    mask = np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32)
    got = values(mask, box(0, 0, 4, 4), 4, 4)[0]
    # Between the outermost centre and the box's side the value falls towards zero: .75 at a quarter of a cell.
    columns = np.array([0.0, 0.25, 0.75, 0.75])
    rows = np.array([0.75, 1.0, 1.0, 0.75])
    np.testing.assert_allclose(got, rows[:, None] * columns, atol=1e-6)


def test_sampled_follows_fractions_of_a_pixel():
    # The box begins half a pixel later, so each pixel's centre lies .25 cells earlier: at 0, .5, 1 and 1.5 cells.
    mask = np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32)
    got = values(mask, box(0, 0.5, 4, 4.5), 4, 5)[0]
    np.testing.assert_allclose(got[1], [0.0, 0.0, 0.5, 1.0, 0.5], atol=1e-6)


def test_resized_enlarges_the_ringed_cells_to_whole_pixels_both_ends_included():
    # With its ring the mask has 4 cells, and the box 2..6 becomes 0..8. Both ends included, these are 9 pixels of 4/9 cells.
    got = values(ones(), box(2, 2, 6, 6), 9, 9, "resized")[0]
    at = (np.arange(9) + 0.5) * 4 / 9 - 0.5
    expected = np.interp(np.clip(at, 0, 3), range(4), [0, 1, 1, 0])
    np.testing.assert_allclose(got, np.outer(expected, expected), atol=1e-6)


def test_resized_cuts_a_box_to_whole_pixels():
    # Grown by 2, the box 2.4..6.4 is .4..8.4, which is cut to 0..8: the mask does not move.
    moved = values(ones(), box(2.4, 2.4, 6.4, 6.4), 9, 9, "resized")
    np.testing.assert_array_equal(moved, values(ones(), box(2, 2, 6, 6), 9, 9, "resized"))


@pytest.mark.parametrize("rule", RULES)
def test_a_mask_of_ones_fills_its_box(rule):
    pasted = paste_masks(ones(28), box(10, 20, 30, 60), 50, 80, rule=rule)
    assert pasted.shape == (1, 50, 80)
    assert pasted.dtype == bool
    inside = np.zeros((50, 80), bool)
    inside[10:30, 20:60] = True
    # torchvision's rule may move a side by a pixel.
    assert (pasted[0] != inside).sum() <= (0 if rule == "sampled" else 2 * (20 + 40) + 4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sides", [(0, 0, 0, 0), (5, 5, 5, 9), (5, 5, 9, 5), (9, 9, 5, 5)])
def test_an_empty_box_has_an_empty_mask(rule, sides):
    for numbers in (np.asarray, ops.convert_to_tensor):
        pasted = paste_masks(numbers(ones()), numbers(box(*sides)), 12, 12, rule=rule)
        assert not np.asarray(pasted).any()
        got = paste_masks(numbers(ones()), numbers(box(*sides)), 12, 12, threshold=None, rule=rule)
        assert not np.asarray(got).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sides", [(-40, -40, -20, -20), (60, 60, 80, 80), (-40, 2, -20, 9), (2, 60, 9, 80)])
def test_a_box_outside_of_the_image_has_an_empty_mask(rule, sides):
    for numbers in (np.asarray, ops.convert_to_tensor):
        assert not np.asarray(paste_masks(numbers(ones()), numbers(box(*sides)), 40, 40, rule=rule)).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_box_that_is_cut_by_the_image_has_the_pixels_that_it_has_in_a_larger_image(rule):
    mask = np.random.default_rng(0).uniform(size=(1, 28, 28)).astype(np.float32)
    whole = values(mask, box(20, 30, 60, 90), 100, 120, rule)
    part = values(mask, box(20, 30, 60, 90), 45, 60, rule)
    np.testing.assert_allclose(part, whole[:, :45, :60], atol=1e-5)


def test_sampled_is_the_same_wherever_the_box_lies():
    # Not so torchvision's rule, which cuts negative sides upwards and others downwards.
    mask = np.random.default_rng(0).uniform(size=(1, 28, 28)).astype(np.float32)
    whole = values(mask, box(20, 30, 60, 90), 100, 120)
    np.testing.assert_allclose(values(mask, box(-10, -5, 30, 55), 60, 60), whole[:, 30:90, 35:95], atol=1e-5)


def test_no_detections_give_no_masks():
    empty = np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32)
    assert paste_masks(*empty, 30, 40).shape == (0, 30, 40)
    assert list(paste_one_by_one(*empty, 30, 40)) == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("threshold", [0.5, 0.25, None])
def test_tensors_and_arrays_and_one_at_a_time_give_the_same(rule, threshold):
    rng = np.random.default_rng(1)
    masks = rng.uniform(size=(12, 28, 28)).astype(np.float32)
    corners = rng.uniform(-20, 60, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.2, 50, (12, 2))], 1).astype(np.float32)
    boxes[3] = 0.0
    arrays = paste_masks(masks, boxes, 50, 70, threshold, rule)
    tensors = np.asarray(
        paste_masks(ops.convert_to_tensor(masks), ops.convert_to_tensor(boxes), 50, 70, threshold, rule)
    )
    assert arrays.dtype == tensors.dtype == (np.float32 if threshold is None else bool)
    if threshold is None:
        np.testing.assert_allclose(tensors, arrays, atol=1e-5)
    else:
        # A value at the threshold may be rounded to either side of it.
        near = np.abs(values(masks, boxes, 50, 70, rule) - threshold) < 1e-5
        assert ((tensors != arrays) & ~near).sum() == 0
    for row, part in enumerate(paste_one_by_one(masks, boxes, 50, 70, threshold, rule)):
        alone = np.zeros_like(arrays[row])
        alone[part.window] = part.pixels
        np.testing.assert_array_equal(alone, arrays[row])


def test_sides_may_be_tensors_in_a_graph():
    tf = pytest.importorskip("tensorflow")
    mask = np.random.default_rng(2).uniform(size=(2, 28, 28)).astype(np.float32)
    boxes = np.array([[2, 3, 20, 25], [0, 0, 0, 0]], np.float32)
    paste = tf.function(paste_masks, autograph=False)
    got = paste(tf.constant(mask), tf.constant(boxes), tf.constant(30), tf.constant(40))
    np.testing.assert_array_equal(got, paste_masks(mask, boxes, 30, 40))


@pytest.mark.parametrize(
    ("masks", "boxes", "size", "rule", "words"),
    [
        (np.zeros((2, 28, 14)), np.zeros((2, 4)), (9, 9), "sampled", r"masks must be \(D, M, M\), got \(2, 28, 14\)"),
        (np.zeros((1, 2, 28, 28)), np.zeros((2, 4)), (9, 9), "sampled", "paste the detections of one image"),
        (np.zeros((2, 28, 28)), np.zeros((3, 4)), (9, 9), "sampled", r"boxes must be \(2, 4\), a box a mask"),
        (np.zeros((2, 28, 28)), np.zeros((2, 4)), (0, 9), "sampled", "height and width must be at least 1"),
        (np.zeros((2, 28, 28)), np.zeros((2, 4)), np.array([9, 0]), "sampled", "height and width must be at least 1"),
        (
            np.full((2, 28, 28), 255, np.uint8),
            np.zeros((2, 4)),
            (9, 9),
            "sampled",
            "masks must be in 0..1, got 255 to 255",
        ),
        (np.full((2, 28, 28), np.nan), np.zeros((2, 4)), (9, 9), "sampled", "masks must be in 0..1, got NaN"),
        (np.zeros((2, 28, 28)), np.zeros((2, 4)), (9, 9), "nearest", "rule must be 'sampled' or 'resized'"),
        (np.zeros((2, 28, 28)), np.zeros((2, 4)), (9, 9), ["sampled"], "rule must be 'sampled' or 'resized'"),
        (np.zeros((2, 0, 0)), np.ones((2, 4)), (9, 9), "sampled", r"masks must be \(D, M, M\), got \(2, 0, 0\)"),
        ([[[1, 2], [3]]], [[1, 1, 2, 2]], (9, 9), "sampled", "masks must have rows of one length, got"),
        (np.zeros((1, 28, 28)), [[1, 1, 2, 2], [1]], (9, 9), "sampled", "boxes must have rows of one length, got"),
    ],
)
def test_wrong_arguments_are_named(masks, boxes, size, rule, words):
    with pytest.raises(ValueError, match=words):
        paste_masks(masks, boxes, *size, rule=rule)


@pytest.mark.parametrize(
    ("value", "words"),
    [(255.0, "got 0 to 255: divide"), (-0.5, "got -0.5 to 0"), (np.nan, "got NaN"), (1.0, None), (0.25, None)],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_outside_of_0_to_1_are_refused_as_arrays_are(value, words, dtype):
    masks = np.zeros((2, 28, 28), np.float32)
    masks[1, 3, 4] = value
    boxes = np.zeros((2, 4), np.float32)
    for given in (masks, ops.cast(ops.convert_to_tensor(masks), dtype)):
        if words is None:
            assert paste_masks(given, boxes, 9, 9).shape == (2, 9, 9)
        else:
            with pytest.raises(ValueError, match=f"masks must be in 0..1, {words}"):
                paste_masks(given, boxes, 9, 9)


def test_in_a_graph_values_are_not_known_and_the_check_adds_no_operation():
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default() as graph:
        masks = tf.compat.v1.placeholder(tf.float32, (2, 28, 28))
        before = len(graph.get_operations())
        assert _known_values(masks).size == 0
        assert len(graph.get_operations()) == before
    paste = tf.function(paste_masks, autograph=False)
    assert paste(tf.fill((1, 28, 28), 255.0), tf.constant(box(0, 0, 2, 2)), 9, 9).shape == (1, 9, 9)


@pytest.mark.parametrize("size", [(37.0, 53.0), ("37", 53), (None, 53), (np.float32(3), 4), ((3, 4), 5), (True, 5)])
def test_sides_that_are_no_whole_numbers_are_refused(size):
    with pytest.raises(ValueError, match="height and width must be whole numbers, got"):
        paste_masks(ones(), box(0, 0, 2, 2), *size)


@pytest.mark.parametrize(("masks", "name"), [(None, "masks"), ([["a"]], "masks"), (ones(), "boxes")])
def test_what_is_no_array_of_numbers_is_named(masks, name):
    with pytest.raises(ValueError, match=f"{name} must be an array or a tensor of numbers, got"):
        paste_masks(masks, None, 4, 4)


@pytest.mark.parametrize("threshold", [0, 0.0, -1.0, 1.5, float("nan"), np.float32(0), np.array(2.0), "0.5", [0.5]])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1, or None, got"):
        paste_masks(ones(), box(0, 0, 2, 2), 4, 4, threshold)


def test_no_detection_at_all_and_lists_are_pasted():
    assert paste_masks(ops.zeros((0, 28, 28)), ops.zeros((0, 4)), 5, 6).shape == (0, 5, 6)
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), 5, 6).shape == (0, 5, 6)
    assert paste_masks([], [], 5, 6).shape == (0, 5, 6)
    assert paste_masks(ones().tolist(), [[1, 1, 3, 3]], 5, 6).sum() == 4


@pytest.mark.parametrize("side", [np.nan, np.inf])
def test_a_box_that_is_not_finite_is_empty(side):
    not_finite = box(0, 0, side, 2)
    assert not paste_masks(ones(), not_finite, 4, 4).any()
    assert not np.any(
        ops.convert_to_numpy(paste_masks(ops.convert_to_tensor(ones()), not_finite, 4, 4, threshold=None))
    )
