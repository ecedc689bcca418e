import numpy as np
import pytest

from kfpn.ops.anchors import cell_anchors, grid_anchors, image_strides

STRIDES = (4, 8, 16, 32, 64)


def test_cell_anchors_have_equal_area_and_the_ratio_height_to_width():
    for (y1, x1, y2, x2), ratio in zip(cell_anchors([32], (0.5, 1.0, 2.0)), (0.5, 1.0, 2.0), strict=True):
        assert (y2 - y1) * (x2 - x1) == pytest.approx(32 * 32)
        assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio)
        assert (y1 + y2, x1 + x2) == (0, 0)


def test_the_half_sides_of_rounded_anchors_are_whole_and_a_half_is_rounded_to_the_even_number():
    # The half sides of size 32 are 11.3 and 22.6 at ratio 0.5. Those of 33 and 35 are 16.5 and 17.5 at ratio 1.
    assert cell_anchors([32], (0.5, 1.0), rounded=True) == [(-11, -23, 11, 23), (-16, -16, 16, 16)]
    assert cell_anchors([33], (1.0,), rounded=True) == [(-16, -16, 16, 16)]
    assert cell_anchors([35], (1.0,), rounded=True) == [(-18, -18, 18, 18)]


def test_grid_anchors_are_ordered_by_row_column_and_ratio_and_centred_on_index_times_stride():
    got = np.array(grid_anchors(2, 3, [[8, 8]], [16], (1.0, 4.0)))
    assert got.shape == (1, 12, 4)
    np.testing.assert_allclose(got[0, 0], [-8, -8, 8, 8])
    np.testing.assert_allclose(got[0, 1], [-16, -4, 16, 4])  # the ratio changes fastest
    np.testing.assert_allclose(got[0, 2], [-8, 0, 8, 16])  # then the column
    np.testing.assert_allclose(got[0, 6], [0, -8, 16, 8])  # then the row


def test_each_image_has_its_own_strides_in_rows_and_columns():
    got = np.array(grid_anchors(2, 2, [[8, 8], [5, 7]], [2], (1.0,)))
    np.testing.assert_array_equal(got[0], [[-1, -1, 1, 1], [-1, 7, 1, 9], [7, -1, 9, 1], [7, 7, 9, 9]])
    np.testing.assert_array_equal(got[1], [[-1, -1, 1, 1], [-1, 6, 1, 8], [4, -1, 6, 1], [4, 6, 6, 8]])


def test_the_stride_of_an_image_is_its_padded_side_divided_by_its_cells_rounded_down():
    # 416 pixels are 13 cells of P5, so 7 cells of P6: the stride is 416 // 7. 800 pixels are 25 and 13 cells. One pixel is
    # padded to 32, which is one cell in P6.
    sizes = np.array([[320, 416], [800, 1344], [801, 1], [64, 97]], "int32")
    assert np.array(image_strides(sizes, 64)).tolist() == [[64, 59], [61, 64], [64, 32], [64, 64]]
    for stride in STRIDES[:-1]:
        assert np.array(image_strides(sizes, stride)).tolist() == [[stride, stride]] * 4


@pytest.mark.parametrize(
    ("library", "like_torchvision", "atol"), [("torchvision_r50", True, 0.0), ("detectron2_r50", False, 1e-4)]
)
def test_anchors_are_those_of_the_library(shared, library, like_torchvision, atol):
    want = np.load(shared(f"parity/{library}") / "infer.npz")["anchors"][:, [1, 0, 3, 2]]
    size, grids = np.array([[320, 416]], "int32"), []
    for stride, side in zip(STRIDES, (32, 64, 128, 256, 512), strict=True):
        strides = image_strides(size, stride) if like_torchvision else [[stride, stride]]
        cells = -(-320 // stride), -(-416 // stride)
        grids.append(np.array(grid_anchors(*cells, strides, [side], (0.5, 1.0, 2.0), rounded=like_torchvision)))
    np.testing.assert_allclose(np.concatenate(grids, axis=1)[0], want, rtol=0, atol=atol)
