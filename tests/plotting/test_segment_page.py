"""Tests the page of segments: its panels, and the squares of a window and of the objects that it is meant for."""

import numpy as np
import pytest
from PIL import Image

from kfpn.plotting.segment_page import OBJECT_COLOR, WINDOW_COLOR, DrawnSegments, LevelSegments, draw_segment_page


def extent_of(page, color):
    """Returns top, left, bottom and right of what has a colour, and fails where nothing has it."""
    near = (np.abs(page.astype(float) - 255 * np.array(color)) < 2).all(-1)
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def segments(windows):
    windows = np.array(windows, np.float32).reshape(-1, 4)
    patch = (slice(40, 60), slice(40, 60)), np.ones((20, 20), bool)
    count = len(windows)
    boxes = np.tile(np.array([40.0, 40.0, 60.0, 60.0]), (count, 1))
    return DrawnSegments(["P2"] * count, np.linspace(0.9, 0.5, count), boxes, windows, lambda row: patch)


def test_the_surest_segment_has_its_window_and_the_size_of_its_objects_around_it(tmp_path):
    image = np.full((100, 100, 3), 90, np.uint8)
    best = segments([[10, 10, 90, 90], [0, 0, 20, 20]])
    none = segments([])
    levels = [
        LevelSegments("5x5", "P2", 64.0, 1.25, 7, best),
        LevelSegments("5x5", "P3", 128.0, 1.25, 0, none),
        LevelSegments("7x7", "P2", 91.0, 1.25, 0, none),
    ]
    draw_segment_page(image, levels, none, tmp_path / "page.png")
    page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert page.shape[1] == 2000
    top, left, bottom, right = extent_of(page, WINDOW_COLOR)
    inner = extent_of(page, OBJECT_COLOR)
    # A panel is (2000 - 2 * 36 - 4 * 26) // 5 = 364 pixels wide, and its image 100.
    assert right - left == pytest.approx(0.8 * 364, abs=5)
    assert bottom - top == pytest.approx(0.8 * 364, abs=5)
    assert inner[3] - inner[1] == pytest.approx(0.64 * 364, abs=5)
    assert inner[0] - top == pytest.approx(0.08 * 364, abs=4)
    assert left == pytest.approx(36 + 0.1 * 364, abs=4)
    assert (page[top + 5 : top + 25, left + 5 : left + 25] == 90).all()  # the image, beside the mask
    middle = page[(top + bottom) // 2, (left + right) // 2]
    assert (middle != 90).any()
