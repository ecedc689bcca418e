import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from kfpn.plotting import panels as page
from kfpn.plotting.pyramid_page import between_percentiles, draw_page, level_color, spread_over_image
from kfpn.plotting.pyramid_view import FeatureMap, Objectness, PyramidView, level_counts


def feature_map(name, height, width, at=None):
    strength = np.zeros((height, width), np.float32)
    if at is not None:
        strength[at] = 1.0
    return FeatureMap(name, 2 ** int(name[1:]), 8, strength)


def view_of(height=64, width=96, stages=("C2", "C3"), levels=("P2", "P3"), rois=(), roi_levels=(), **changes):
    """Returns a view of a black image whose maps are zero everywhere."""

    def maps(names):
        return [feature_map(name, -(-height // 2 ** int(name[1:])), -(-width // 2 ** int(name[1:]))) for name in names]

    given = maps(levels) or maps(stages[-1:])
    view = PyramidView(
        image=np.zeros((height, width, 3), np.uint8),
        stages=maps(stages),
        levels=maps(levels),
        objectness=[Objectness(one.name, one.stride, 32.0, one.strength) for one in given],
        rois=np.array(rois, np.float32).reshape(-1, 4),
        roi_scores=np.full(len(rois), 0.5, np.float32),
        roi_levels=np.array(roi_levels, np.int32),
        pooled=[one.name for one in given],
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int32),
        scores=np.zeros(0, np.float32),
        class_names=("cat", "dog"),
    )
    return dataclasses.replace(view, **changes)


def page_of(view, path, **options):
    draw_page(view, path, **options)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def differing(picture, other):
    """Returns where two pages differ: the first row, the row after the last, the first column, the column after the last."""
    rows, columns = np.nonzero((picture != other).any(axis=-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_a_cell_covers_the_pixels_that_are_nearest_to_its_centre():
    strength = feature_map("C2", 8, 12, at=(3, 5)).strength
    rows, columns = np.nonzero(spread_over_image(strength, 4, (32, 48), (32, 48)))
    # The cell's centre is at row 12 and column 20, and the cell reaches half its size to either side.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 13, 18, 21)


def test_the_first_cells_are_half_visible_and_the_last_ones_reach_the_border():
    values = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(spread_over_image(values, 4, (8, 8), (8, 8))[0], [0, 0, 1, 1, 1, 1, 1, 1])
    # 5 pixels have two cells, and the centre of the second cell is inside the image.
    np.testing.assert_array_equal(spread_over_image(values, 4, (5, 5), (5, 5))[:, 0], [0, 0, 2, 2, 2])
    np.testing.assert_array_equal(spread_over_image(values[:1, :1], 64, (33, 40), (3, 2)), np.zeros((3, 2)))


def test_a_map_on_a_larger_panel_is_enlarged_with_the_image():
    values = feature_map("C2", 8, 12, at=(3, 5)).strength
    once, thrice = (spread_over_image(values, 4, (32, 48), shape) for shape in ((32, 48), (96, 144)))
    np.testing.assert_array_equal(thrice[1::3, 1::3], once)


def test_one_strong_cell_does_not_darken_all_other_cells():
    strength = np.linspace(0.0, 1.0, 1001).reshape(7, 143)
    strength[-1, -1] = 1e6
    result = between_percentiles(strength)
    assert (result.min(), result.max()) == (0.0, 1.0)
    assert result[3, 71] == pytest.approx(0.5, abs=0.01)


def test_a_map_that_is_the_same_everywhere_is_dark():
    np.testing.assert_array_equal(between_percentiles(np.full((2, 3), 7.0)), np.zeros((2, 3)))
    np.testing.assert_array_equal(between_percentiles(np.full((1, 1), np.nan)), [[0.0]])


def test_the_strongest_cells_are_bright_at_their_place_on_the_page(tmp_path):
    dark = view_of()
    stages = [feature_map("C2", 16, 24, at=(4, 18)), dark.stages[1]]
    # Several cells are strong, because a single one of 384 cells would be cut off by the percentiles.
    stages[0].strength[4, 17:19], stages[0].strength[3, 17:19] = 1.0, 1.0
    pages = [page_of(one, tmp_path / "page.png") for one in (dark, dataclasses.replace(dark, stages=stages))]
    top, bottom, left, right = differing(*pages)
    row = page.Row("", "", [], 4)
    width, height = row.panel_size(64 / 96)
    above = page.MARGIN + row.height(64 / 96) + 60 + page.GAP + page.HEADING + page.TITLE
    # Rows 3 and 4 and columns 17 and 18 of stride 4 are the pixels 10 to 18 and 66 to 74 of 64 x 96.
    expected = [above + 10 / 64 * height, above + 18 / 64 * height]
    expected += [page.MARGIN + 66 / 96 * width, page.MARGIN + 74 / 96 * width]
    np.testing.assert_allclose([top, bottom, left, right], expected, atol=1.5)


def test_the_legend_counts_the_rois_of_each_level():
    rois = [[0, 0, 10, 10]] * 5
    assert level_counts(view_of(rois=rois, roi_levels=[2, 2, 3, 2, 2])) == {"P2": 4, "P3": 1}
    assert level_counts(view_of(levels=(), stages=("C2", "C3", "C4"), rois=rois, roi_levels=[4] * 5)) == {"C4": 5}
    assert level_counts(view_of()) == {"P2": 0, "P3": 0}


def test_a_roi_has_the_colour_of_its_level(tmp_path):
    box = [[8, 8, 56, 88]]
    two, three = (page_of(view_of(rois=box, roi_levels=[n]), tmp_path / "page.png") for n in (2, 3))
    row = page.Row("", "", [], 4)
    panel = slice(page.MARGIN + page.TITLE, page.MARGIN + row.height(64 / 96))
    differ = (two[panel] != three[panel]).any(axis=-1)
    for number, picture in ((2, two), (3, three)):
        # Lines are smoothed on a black ground. So the colour is compared, and not its brightness.
        color = picture[panel][differ].sum(axis=0)
        np.testing.assert_allclose(color / color.max(), level_color(number), atol=0.02)


def test_only_the_best_proposals_are_drawn_and_a_page_without_proposals_has_the_same_size(tmp_path):
    rois = [[8, 8, 56, 88], [20, 20, 30, 30]]
    full = view_of(rois=rois, roi_levels=[3, 2])
    pages = [page_of(full, tmp_path / "page.png", drawn=count) for count in (2, 1, 0)]
    assert all((a != b).any() for a, b in itertools.pairwise(pages))
    assert page_of(view_of(), tmp_path / "none.png").shape == pages[0].shape


def test_detections_below_the_score_are_left_out(tmp_path):
    detections = {"boxes": np.array([[8, 8, 56, 88]], np.float32), "labels": np.array([1]), "scores": np.array([0.4])}
    empty, hidden, shown = (
        page_of(view, tmp_path / "page.png", min_score=least)
        for view, least in ((view_of(), 0.5), (view_of(**detections), 0.5), (view_of(**detections), 0.3))
    )
    np.testing.assert_array_equal(empty, hidden)
    assert (shown != hidden).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40), (1333, 60), (60, 1333), (800, 1066)], ids=str)
def test_images_of_any_shape_have_a_page_of_the_same_width(tmp_path, height, width):
    picture = page_of(view_of(height, width, rois=[[0, 0, height, width]], roi_levels=[2]), tmp_path / "page.png")
    assert picture.shape[1] == page.WIDTH
    assert picture.shape[0] < 4000
    edge = np.concatenate([picture[:20].reshape(-1), picture[-20:].reshape(-1), picture[:, :20].reshape(-1)])
    assert (edge == 255).all()


@pytest.mark.parametrize(
    ("stages", "levels", "rows"),
    [
        (("C2", "C3", "C4", "C5"), ("P2", "P3", "P4", "P5", "P6"), 4),
        (("C2", "C3", "C4", "C5"), ("P2",), 3),  # P2 stands in the row of the backbone's stages
        (("C2", "C3", "C4"), (), 3),
    ],
    ids=["fpn", "finest", "c4"],
)
def test_the_page_has_as_many_rows_as_the_pyramid_needs(tmp_path, stages, levels, rows):
    sizes = (32.0, 64.0, 128.0, 256.0, 512.0)
    view = view_of(stages=stages, levels=levels)
    if len(view.pooled) == 1:
        one = view.objectness[0]
        view = dataclasses.replace(view, objectness=[dataclasses.replace(one, size=size) for size in sizes])
    picture = page_of(view, tmp_path / "page.png")
    maps, pictures = page.Row("x", "", [], 5), page.Row("", "", [], 4, foot=60)
    height = pictures.height(64 / 96) + (rows - 1) * (maps.height(64 / 96) + page.GAP) + 2 * page.MARGIN
    assert picture.shape == (height, page.WIDTH, 3)
