import numpy as np
import pytest

from kfpn.anchors import cell_anchors, grid_anchors


def test_cell_anchors_have_equal_area_and_the_ratio_height_to_width():
    for (y1, x1, y2, x2), ratio in zip(cell_anchors(32, (0.5, 1.0, 2.0)), (0.5, 1.0, 2.0), strict=True):
        assert (y2 - y1) * (x2 - x1) == pytest.approx(32 * 32)
        assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio)
        assert (y1 + y2, x1 + x2) == (0, 0)


def test_grid_is_ordered_row_column_ratio_and_centred_on_index_times_stride():
    got = np.array(grid_anchors(2, 3, 8, 16, (1.0, 4.0)))
    assert got.shape == (12, 4)
    np.testing.assert_allclose(got[0], [-8, -8, 8, 8])
    np.testing.assert_allclose(got[1], [-16, -4, 16, 4])  # the ratio changes fastest
    np.testing.assert_allclose(got[2], [-8, 0, 8, 16])  # then the column
    np.testing.assert_allclose(got[6], [0, -8, 16, 8])  # then the row
