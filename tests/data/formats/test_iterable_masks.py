"""Records of one's own with masks."""

import dataclasses

import numpy as np
import pytest

import kfpn

SQUARE = [2.0, 2, 8, 2, 8, 8, 2, 8]


def record(masks, image_id=0):
    return kfpn.Record(
        image=np.zeros((10, 12, 3), np.uint8), image_id=image_id, height=10, width=12,
        boxes=np.array([[2, 2, 8, 8], [0, 0, 4, 4]], np.float32), labels=np.zeros(2, np.int32),
        crowd=np.zeros(2, bool), areas=np.zeros(2, np.float32), name="mine.png", masks=masks,
    )  # fmt: skip


def test_masks_of_own_records_stay_with_their_objects():
    masks = kfpn.ObjectMasks.of([[SQUARE], None], (10, 12))
    source = kfpn.IterableSource([record(masks), record(None, 1)], ["a"])
    assert source[0].masks.exists.tolist() == [True, False]
    assert source[0].masks.areas().tolist() == [36, 0]
    assert not source[1].masks.exists.any()
    assert kfpn.IterableSource([record(None)], ["a"])[0].masks is None


def test_the_masks_of_a_part_are_those_of_its_images():
    flat = kfpn.ObjectMasks.of([None, [SQUARE]], (10, 12))
    source = kfpn.IterableSource([record(None), record(flat, 1), record(None, 2), record(flat, 3)], ["a"])
    part = source.part(np.array([1, 2]), "part")
    assert part[0].masks.areas().tolist() == [0, 36]
    assert not part[1].masks.exists.any()


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (np.zeros((2, 10, 12), bool), "mine.png: masks must be kfpn.ObjectMasks, got ndarray"),
        (kfpn.ObjectMasks.of([[SQUARE]], (10, 12)), "mine.png: masks must be one for each box, got 1 for 2 boxes"),
        (kfpn.ObjectMasks.of([[SQUARE], None], (12, 10)), r"must be of the image's size 10 x 12 .*, got 12 x 10"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, said):
    with pytest.raises(ValueError, match=said):
        kfpn.IterableSource([record(masks)], ["a"])


def test_points_on_one_slanted_line_are_no_mask(caplog):
    line = [2.0, 2, 5, 5, 8, 8]
    with caplog.at_level("WARNING", "kfpn"):
        source = kfpn.IterableSource([record(kfpn.ObjectMasks.of([[line], None], (10, 12)))], ["a"])
    assert not source[0].masks.exists.any()
    assert "masks without a pixel in their image, left out; the boxes stay: 1" in caplog.text


def test_a_polygon_without_a_pixel_is_left_out_and_a_mask_of_another_extent_is_kept_and_both_are_said(caplog):
    speck, corner = [2.1, 2.1, 2.3, 2.1, 2.3, 2.3], [2.0, 2, 5, 2, 5, 5, 2, 5]
    one = record(kfpn.ObjectMasks.of([[speck], [corner]], (10, 12)))
    with caplog.at_level("WARNING", "kfpn"):
        source = kfpn.IterableSource(
            [dataclasses.replace(one, boxes=np.array([[2, 2, 8, 8], [1, 1, 9, 11]], np.float32))], ["a"]
        )
    assert source[0].masks.exists.tolist() == [False, True]
    assert (
        "masks without a pixel in their image, left out; the boxes stay: 1 (first: object 0 of mine.png)" in caplog.text
    )
    assert "another one than their object's box (IoU below .5), kept: 1 (first: object 1 of mine.png)" in caplog.text


def test_masks_without_a_pixel_or_beside_their_box_are_left_out_and_said(caplog):
    empty, beside = np.zeros((10, 12), bool), [8.0, 8, 11, 8, 11, 10, 8, 10]
    cut = kfpn.ObjectMasks.of([[SQUARE], [SQUARE]], (10, 12)).moved(np.array([[1.0, 0, 9], [0, 1.0, 0]]), (10, 12))
    with caplog.at_level("WARNING", "kfpn"):
        source = kfpn.IterableSource(
            [record(kfpn.ObjectMasks.of([empty, [beside]], (10, 12))), record(cut, 1)], ["a"], name="mine"
        )
    assert not source[0].masks.exists.any()
    assert not source[1].masks.exists.any()
    assert (
        "masks without a pixel in their image, left out; the boxes stay: 1 (first: object 0 of mine.png)" in caplog.text
    )
    assert "beside their object's box, left out; the boxes stay: 3 (first: object 1 of mine.png)" in caplog.text
