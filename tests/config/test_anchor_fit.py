"""Anchors are fitted to the objects: overlaps by hand, limits of the levels, and known ladders."""

import itertools

import numpy as np
import pytest

from kfpn.config.anchor_fit import LEAST_STRIDES, MOST_STRIDES, RISE, best_overlaps, fit_anchor_sizes

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)


def squares(sides, place=(128.0, 128.0)):
    """Returns boxes with centres at `place`, and their images' sizes."""
    half = np.asarray(sides, np.float64)[:, None] / 2.0
    centre = np.broadcast_to(place, (len(half), 2))
    return np.concatenate([centre - half, centre + half], axis=1), np.full((len(half), 2), 320)


def test_an_object_that_is_an_anchor_is_overlapped_by_one():
    boxes, images = squares([32.0, 64.0])
    np.testing.assert_allclose(best_overlaps(boxes, images, (32, 64), (4, 8), (1.0,)), [1.0, 1.0])


def test_the_overlap_counts_how_far_the_next_anchor_lies():
    # Centres lie at 0, 8, 16 ...; the box's at (20, 16): 4 of 16 rows are not shared, so IoU is 12 / (16 + 4).
    boxes = np.array([[12.0, 8.0, 28.0, 24.0]])
    np.testing.assert_allclose(best_overlaps(boxes, np.array([[64, 64]]), (16,), (8,), (1.0,)), [12 / 20])


def test_no_anchor_lies_behind_the_last_cell():
    # An image of 64 pixels has one cell of stride 64, with its centre at (0, 0): of the anchor of 64, a quarter lies in the image.
    boxes = np.array([[32.0, 32.0, 64.0, 64.0]])
    np.testing.assert_allclose(best_overlaps(boxes, np.array([[64, 64]]), (64,), (64,), (1.0,)), [0.0])


def test_aspect_ratios_are_height_over_width():
    tall = np.array([[160 - 16 * 2**0.5, 160 - 8 * 2**0.5, 160 + 16 * 2**0.5, 160 + 8 * 2**0.5]])
    images = np.array([[320, 320]])
    np.testing.assert_allclose(best_overlaps(tall, images, (32,), (4,), (2.0,)), [1.0])
    assert best_overlaps(tall, images, (32,), (4,), (0.5,))[0] < 0.5


def test_objects_of_five_sizes_have_an_anchor_each():
    sides = np.repeat([12.0, 30.0, 60.0, 110.0, 200.0], 20)
    assert fit_anchor_sizes(*squares(sides), STRIDES, (1.0,)) == (12.0, 30.0, 60.0, 110.0, 200.0)


@pytest.mark.parametrize("sides", [[1.0], [5000.0], [40.0] * 9, [3.0, 700.0], list(range(1, 400)), [64.0, 64.1]])
@pytest.mark.parametrize("strides", [STRIDES, STRIDES[:4]])
def test_sizes_rise_and_keep_the_limits_of_their_levels(sides, strides):
    sizes = fit_anchor_sizes(*squares(sides), strides, RATIOS)
    assert len(sizes) == len(strides)
    assert all(
        LEAST_STRIDES * stride <= size <= MOST_STRIDES * stride for size, stride in zip(sizes, strides, strict=True)
    )
    assert all(second >= RISE * first - 1.0 for first, second in itertools.pairwise(sizes))  # they are rounded


def test_a_size_that_no_object_has_leaves_the_others_to_the_objects():
    sides = np.geomspace(10, 60, 200)
    sizes = fit_anchor_sizes(*squares(sides), STRIDES, RATIOS)
    assert sizes[3:] == (64.0, 128.0)  # the least of P5 and P6
    assert sizes[0] < 20 < sizes[2] < 60


def test_fitted_anchors_overlap_more_than_the_papers():
    rng = np.random.default_rng(0)
    centre, side = rng.uniform(60, 260, (500, 2)), rng.lognormal(3.2, 0.4, (500, 2))
    boxes, images = np.concatenate([centre - side / 2, centre + side / 2], axis=1), np.full((500, 2), 320)
    fitted = fit_anchor_sizes(boxes, images, STRIDES, RATIOS)
    before = best_overlaps(boxes, images, (32, 64, 128, 256, 512), STRIDES, RATIOS)
    after = best_overlaps(boxes, images, fitted, STRIDES, RATIOS)
    assert after.mean() > before.mean() + 0.1
    assert (after >= 0.5).mean() > (before >= 0.5).mean()


def test_a_pyramid_of_one_level_may_have_any_larger_size():
    sizes = fit_anchor_sizes(*squares(np.repeat([40.0, 90.0, 200.0, 300.0], 9)), (16, 16, 16, 16), (1.0,))
    assert sizes == (40.0, 90.0, 200.0, 300.0)


def test_the_fit_is_the_same_each_time_and_looks_at_some_of_many_objects():
    boxes, images = squares(np.geomspace(10, 200, 30_000))
    assert fit_anchor_sizes(boxes, images, STRIDES, RATIOS) == fit_anchor_sizes(boxes, images, STRIDES, RATIOS)
