import numpy as np

from kfpn.plotting.draw_boxes import class_color
from kfpn.plotting.draw_masks import FILLED, patch_of
from kfpn.plotting.error_panels import GAP_BETWEEN, LARGEST, SMALLEST, error_panel, in_one_row


def test_a_panel_has_a_side_within_bounds_and_marks_what_is_wrong_in_black_and_white():
    truth = {"boxes": np.array([[10, 10, 30, 30], [50, 50, 70, 70]]), "labels": np.array([0, 0])}
    panels = [
        error_panel(np.full((side, side, 3), 128, np.uint8), truth, [0, 1], wrong, ["cat"])
        for side, wrong in ((100, []), (100, [1]), (2000, []))
    ]
    assert [panel.shape for panel in panels] == [(SMALLEST, SMALLEST, 3)] * 2 + [(LARGEST, LARGEST, 3)]
    different = (panels[0] != panels[1]).any(-1)
    rows, columns = np.nonzero(different)
    zoom = SMALLEST / 100
    assert rows.min() >= 50 * zoom - 5
    assert columns.max() <= 70 * zoom + 5
    assert {tuple(pixel) for pixel in panels[1][different].tolist()} == {(0, 0, 0), (255, 255, 255)}
    assert in_one_row(panels[:2]).shape == (SMALLEST, 2 * SMALLEST + GAP_BETWEEN, 3)


def test_a_panel_shows_the_masks_of_its_rows_alone_at_their_places():
    image, bitmaps = np.full((100, 100, 3), 90, np.uint8), np.zeros((2, 100, 100), bool)
    bitmaps[0, 10:30, 10:30], bitmaps[1, 50:70, 50:70] = True, True
    drawn = {
        "boxes": np.array([[10, 10, 30, 30], [50, 50, 70, 70]]), "labels": np.array([0, 1]), "scores": np.array([0.9, 0.8]),
        "masks": lambda row: patch_of(bitmaps[row]),
    }  # fmt: skip
    panel = error_panel(image, drawn, [1], [], ["cat", "dog"])
    zoom = SMALLEST / 100
    middles = [tuple(panel[round(place * zoom), round(place * zoom)].tolist()) for place in (20, 64)]
    filled = np.round(90 + (np.array(class_color(1)) - 90) * FILLED).astype(int).tolist()
    assert middles == [(90, 90, 90), tuple(filled)]
