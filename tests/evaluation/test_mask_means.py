import numpy as np
import pytest

from kfpn.config.model import ModelConfig
from kfpn.evaluation.mask_means import compact_masks
from kfpn.evaluation.merged import merge_detections

SIDE = 28
CONFIG = ModelConfig(nms_iou=0.5, score_threshold=0.05)


def look(*rows, **more):
    """Returns the detections of one look: rows of box, score, label and mask (a number or an array)."""
    masks = [np.broadcast_to(np.float32(mask), (SIDE, SIDE)) for *_, mask in rows]
    return {
        "boxes": np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        "scores": np.array([row[1] for row in rows], np.float32),
        "labels": np.array([row[2] for row in rows], np.int32),
        "masks": np.array(masks, np.float32).reshape(-1, SIDE, SIDE),
        **more,
    }


BOX = (10, 20, 38, 48)  # 28 pixels a side: a cell is a pixel


def test_the_mask_of_a_merged_object_is_the_mean_over_the_looks_at_it():
    looks = [look((BOX, 0.9, 0, 1.0)), look((BOX, 0.8, 0, 0.5)), look((BOX, 0.7, 0, 0.0))]
    merged = merge_detections(looks, CONFIG)
    assert merged["masks"].shape == (1, SIDE, SIDE)
    np.testing.assert_allclose(merged["masks"], 0.5)
    assert merged["masks"].dtype == np.float32


def test_other_classes_other_objects_and_other_parts_of_the_image_do_not_join():
    far = (100, 100, 128, 128)
    looks = [look((BOX, 0.9, 0, 1.0)), look((BOX, 0.8, 1, 0.2), (far, 0.7, 0, 0.4)), look((BOX, 0.6, 0, 0.0), view=7)]
    merged = merge_detections(looks, CONFIG)
    np.testing.assert_allclose(merged["masks"][:, 0, 0], [1.0, 0.2, 0.4])


def test_of_each_other_look_only_the_detection_that_overlaps_most_joins():
    # NMS of the second look leaves both of its boxes: their IoU with each other is 14 / 42, and with the kept one 21 / 35.
    above, below = (3, 20, 31, 48), (17, 20, 45, 48)
    looks = [
        look((BOX, 0.9, 0, 1.0)),
        look((above, 0.8, 0, 0.5), ((11, 20, 39, 48), 0.7, 0, 0.0), (below, 0.6, 0, 0.5)),
    ]
    (mask,) = merge_detections(looks, CONFIG)["masks"]
    np.testing.assert_allclose(mask, 0.5)


def test_a_mask_of_a_shifted_box_is_moved_into_the_kept_one():
    # The object fills columns 24..40 of the image. The second box begins 4 pixels, which are 4 cells, to the left.
    first, second = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    first[:, 4:20], second[:, 8:24] = 1.0, 1.0
    looks = [look((BOX, 0.9, 0, first)), look(((10, 16, 38, 44), 0.8, 0, second))]
    np.testing.assert_allclose(merge_detections(looks, CONFIG)["masks"][0], first, atol=1e-5)


def test_what_lies_outside_of_the_other_box_counts_as_not_of_the_object():
    looks = [look((BOX, 0.9, 0, 1.0)), look(((10, 20, 38, 41), 0.8, 0, 1.0))]
    (mask,) = merge_detections(looks, CONFIG)["masks"]
    np.testing.assert_allclose(mask[5:-5, :20], 1.0, atol=1e-6)
    np.testing.assert_allclose(mask[:, 22:], 0.5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_masks_of_a_byte_give_the_same_within_a_255th(count):
    chance = np.random.default_rng(0).random((SIDE, SIDE))
    looks = [look((BOX, 0.9, 0, chance)), look((BOX, 0.8, 0, chance**2))][:count]
    exact, compact = (
        merge_detections(rows, CONFIG)["masks"] for rows in (looks, [compact_masks(one) for one in looks])
    )
    assert compact.dtype == np.float32
    np.testing.assert_allclose(exact, compact, atol=0.51 / 255)


def test_looks_that_find_nothing_give_no_masks():
    for looks in ([look()], [look(), look()]):
        assert merge_detections(looks, CONFIG)["masks"].shape == (0, SIDE, SIDE)
