"""Tests the exact targets of the mask head: hand arithmetic, and the numbers of torchvision and detectron2."""

import importlib.util
import json

import numpy as np
import pytest

from kfpn.data.mask_targets_exact import DETECTRON2, TORCHVISION, bitmap_shares, exact_mask_targets
from kfpn.data.object_masks import ObjectMasks

SIDE = 28


def test_shares_of_a_bitmap_are_averages_of_interpolated_samples():
    bitmap = np.zeros((4, 4), bool)
    bitmap[:, :2] = True
    # Cells of 2 x 2 pixels with two samples a side. Pixel 0 has its centre at 0, so torchvision's samples lie at 0.5, 1.5, 2.5, 3.5
    # pixels, where a sample between columns 1 and 2 sees a half; detectron2's lie on the pixels themselves.
    box = np.array([[0.0, 0.0, 4.0, 4.0]])
    np.testing.assert_allclose(bitmap_shares(bitmap, box, 2, TORCHVISION)[0], [[0.75, 0.0]] * 2)
    np.testing.assert_allclose(bitmap_shares(bitmap, box, 2, DETECTRON2)[0], [[1.0, 0.0]] * 2)


def test_samples_beyond_the_image_see_its_border_for_a_pixel_and_then_nothing():
    bitmap = np.ones((2, 2), bool)
    box = np.array([[0.0, -4.0, 1.0, 4.0]])
    np.testing.assert_array_equal(bitmap_shares(bitmap, box, 8, TORCHVISION)[0, 0], [0, 0, 0, 1, 1, 1, 0, 0])
    assert not bitmap_shares(bitmap, box + 50, 8, DETECTRON2).any()


def test_a_box_of_no_size_has_finite_targets():
    for samples in (TORCHVISION, DETECTRON2):
        assert np.isfinite(bitmap_shares(np.ones((5, 5), bool), np.array([[2.0, 2.0, 2.0, 2.0]]), 28, samples)).all()


@pytest.mark.parametrize("rule", ["polygons", "bitmaps", "soft"])
def test_each_roi_gets_its_own_object_and_objects_without_a_mask_give_zeros(rule):
    masks = ObjectMasks.of([[[0, 0, 20, 0, 20, 40, 0, 40]], None, np.ones((40, 40), bool)], (40, 40))
    rois = np.array([[0, 0, 40, 40], [0, 0, 40, 40], [0, 0, 40, 40], [0, 20, 40, 40]], np.float32)
    targets = exact_mask_targets(masks, rois, np.array([0, 1, 2, 0]), SIDE, rule)
    assert targets.shape == (4, SIDE, SIDE)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.mean((1, 2)), [0.5, 0.0, 1.0, 0.0], atol=0.04)
    assert exact_mask_targets(masks, rois[:0], np.zeros(0, int), SIDE, rule).shape == (0, SIDE, SIDE)


@pytest.fixture(params=["torchvision_mask_r50", "detectron2_mask_r50"])
def reference(shared, request):
    folder = shared("parity")
    spec = importlib.util.spec_from_file_location("reference_weights", folder / "weights.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    train = np.load(folder / request.param / "train.npz")
    return request.param.startswith("torchvision"), train, lambda key: rule.expected(train, key)[1:]


def test_they_are_those_of_torchvision_and_detectron2(reference):
    soft, train, expected = reference
    bitmaps = np.asarray(expected("gt_masks")[0]).reshape(4, 320, 416)
    polygons = ObjectMasks.of(json.loads(str(train["gt_polygons"])), (320, 416))
    positive = np.flatnonzero(train["sampled_labels"] != (0 if soft else 80))
    made_up = train["target_rois"][:, [1, 0, 3, 2]], train["target_matched"]
    drawn = train["sampled_rois"][positive][:, [1, 0, 3, 2]], train["sampled_matched"][positive]
    for key, (rois, index) in (("target_masks", made_up), ("mask_targets", drawn)):
        if soft:
            own = exact_mask_targets(ObjectMasks.of(list(bitmaps), (320, 416)), rois, index, SIDE, "soft")
            assert np.abs(own - np.reshape(expected(key)[0], own.shape)).max() < 1e-4
            continue
        for suffix, masks, rule in (("", polygons, "polygons"), ("_bitmask", polygons, "bitmaps")):
            own = exact_mask_targets(masks, rois, index, SIDE, rule)
            assert (own != np.reshape(expected(key + suffix)[0], own.shape)).sum() == 0, key + suffix
