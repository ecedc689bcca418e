import dataclasses

import numpy as np
import pytest

from kfpn.plotting.draw_boxes import class_color, draw_detections, side_by_side
from kfpn.plotting.draw_masks import FILLED, OUTLINED, enlarged_masks, patch_of
from kfpn.plotting.mask_row import LONGEST_NAME, MOST, mask_logits, rows_of_logits, title_of
from tests.plotting.test_pyramid_page import differing, page_of, view_of

GRAY = np.full((200, 300, 3), 90, np.uint8)
BOX = np.array([[50, 60, 150, 260]])


def bitmap(top, left, bottom, right):
    filled = np.zeros(GRAY.shape[:2], bool)
    filled[top:bottom, left:right] = True
    return filled


def mixed(label, share):
    return tuple(np.round(90 + (np.array(class_color(label)) - 90) * share).astype(int).tolist())


def test_a_mask_is_filled_and_outlined_in_the_colour_of_its_class_and_all_else_is_unchanged():
    picture = draw_detections(GRAY, BOX, np.array([2]), masks=bitmap(80, 100, 120, 200)[None])
    assert tuple(picture[100, 150]) == mixed(2, FILLED)
    for y, x in ((80, 150), (119, 150), (100, 100), (100, 199)):
        assert tuple(picture[y, x]) == mixed(2, OUTLINED)
    without = draw_detections(GRAY, BOX, np.array([2]), masks=np.zeros((1, 200, 300), bool))
    np.testing.assert_array_equal(np.where(bitmap(80, 100, 120, 200)[..., None], without, picture), without)
    assert (GRAY == 90).all()


def test_the_best_mask_lies_on_top_and_a_row_may_have_none():
    masks = [bitmap(50, 60, 150, 160), bitmap(50, 60, 150, 160), None]
    for scores, top in (((0.9, 0.1, 0.5), 0), ((0.1, 0.9, 0.5), 1)):
        picture = draw_detections(
            GRAY,
            np.repeat(BOX, 3, 0),
            np.array([0, 1, 2]),
            np.array(scores),
            masks=lambda row: (masks[row] is not None and patch_of(masks[row])) or None,
        )
        color = np.array(class_color(top), float)
        shown, under = picture[100, 110].astype(float), np.array(mixed(1 - top, FILLED), float)
        np.testing.assert_allclose(shown, under + (color - under) * FILLED, atol=1.0)


def test_masks_of_another_size_than_the_image_are_refused():
    with pytest.raises(
        ValueError, match=r"masks must be \(1, 200, 300\), a picture of .*, got \(1, 28, 28\): use kfpn\.paste_masks"
    ):
        draw_detections(GRAY, BOX, np.array([2]), masks=np.zeros((1, 28, 28)))


def test_a_bitmap_is_cut_to_what_is_filled():
    window, pixels = patch_of(bitmap(80, 100, 120, 200))
    assert window == (slice(80, 120), slice(100, 200))
    assert pixels.all()
    assert patch_of(np.zeros((4, 5), bool))[1].size == 0


@pytest.mark.parametrize("edges", [(80, 100, 120, 200), (0, 0, 10, 300), (190, 290, 200, 300), (0, 0, 200, 300)])
@pytest.mark.parametrize("size", [(400, 600), (300, 450), (100, 150), (333, 500)])
def test_an_enlarged_mask_covers_the_same_part_of_the_picture(edges, size):
    window, pixels = enlarged_masks(lambda row: patch_of(bitmap(*edges)), GRAY.shape[:2], size)(0)
    y, x = np.nonzero(pixels)
    reached = (
        y.min() + window[0].start,
        x.min() + window[1].start,
        y.max() + 1 + window[0].start,
        x.max() + 1 + window[1].start,
    )
    np.testing.assert_allclose(reached, np.array(edges) * np.tile(np.divide(size, GRAY.shape[:2]), 2), atol=1.0)
    assert pixels.sum() == pytest.approx((y.max() + 1 - y.min()) * (x.max() + 1 - x.min()), abs=8)
    assert enlarged_masks(lambda row: None, GRAY.shape[:2], size)(0) is None


def test_ground_truth_and_detections_are_drawn_with_their_masks():
    truth = {"boxes": BOX, "labels": [0], "masks": lambda row: patch_of(bitmap(60, 70, 140, 250))}
    detections = {"boxes": np.repeat(BOX, 2, 0), "labels": [3, 1], "scores": [0.2, 0.9]}
    shown = [bitmap(0, 0, 200, 300), bitmap(60, 70, 140, 250)]
    sheet = side_by_side(GRAY, truth, detections | {"masks": lambda row: patch_of(shown[row])}, ["a", "b", "c", "d"])
    colors = [set(map(tuple, half.reshape(-1, 3).tolist())) for half in np.array_split(sheet, 2, axis=1)]
    assert mixed(0, FILLED) in colors[0]
    assert mixed(1, FILLED) in colors[1]
    assert mixed(3, FILLED) not in colors[1]  # its score is below the least score that is drawn


def test_logits_are_those_of_the_probabilities_up_to_the_last_colour():
    np.testing.assert_allclose(mask_logits(1 / (1 + np.exp(-np.array([[-3.0, 0.0, 2.0]])))), [[-3.0, 0.0, 2.0]])
    np.testing.assert_allclose(mask_logits(np.array([[0.0, 1.0]])), [[-MOST, MOST]])


def test_the_page_has_a_row_of_the_mask_logits_of_the_best_detections(tmp_path):
    boxes, scores = np.array([[8, 8, 40, 56], [20, 40, 60, 90], [0, 0, 9, 9]], np.float32), np.array([0.9, 0.6, 0.1])
    masks = np.zeros((3, 28, 28), np.float32)
    masks[:, 7:21, 7:21] = 0.99
    view = view_of(boxes=boxes, labels=np.array([0, 1, 0]), scores=scores)
    assert rows_of_logits(view, 0.5) == []
    view = dataclasses.replace(view, masks=masks, parts=lambda row: patch_of(bitmap(10, 10, 30, 50)[:64, :96]))
    (row,) = rows_of_logits(view, 0.5)
    assert [panel.title for panel in row.panels] == ["cat 90%", "dog 60%"]
    assert rows_of_logits(view, 0.95) == []
    page = page_of(view, tmp_path / "page.png")
    other = page_of(dataclasses.replace(view, masks=1 - masks), tmp_path / "page.png")
    top, bottom, _, right = differing(page, other)
    assert page.shape[0] - row.height(64 / 96) - 40 < top < bottom
    assert right < page.shape[1] / 2


def test_the_title_of_a_class_is_short_has_no_formula_and_is_its_number_where_the_font_lacks_signs():
    assert title_of("traffic\nlight", 9) == "traffic light"
    assert title_of("a $5 note and a $10 note", 3) == r"a \$5 note and a \$10 note"
    assert title_of("猫", 4) == "4"
    assert len(title_of("x" * 99, 5)) == LONGEST_NAME
