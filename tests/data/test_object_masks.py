import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kfpn.data.mask_raster import near_part
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.run_lengths import bitmap_of_runs, packed_runs, run_lengths, runs_of_bitmap

SIZE = (20, 30)
BOX = np.array([[4.0, 2.0], [14.0, 2.0], [14.0, 8.0], [4.0, 8.0]])
MIRROR = np.array([[-1.0, 0.0, 30.0], [0.0, 1.0, 0.0]])
UPSIDE_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 20.0]])
QUARTER = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 30.0]])  # numpy.rot90: y is width - x, and x is y


def blob(size=SIZE, seed=0):
    noise = np.random.default_rng(seed).random(size)
    smooth = sum(np.roll(noise, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3))
    return smooth > np.median(smooth)


def filled(top, left, bottom, right, size=SIZE):
    bitmap = np.zeros(size, bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def rle_of(bitmap, compressed=True):
    counts = runs_of_bitmap(bitmap)
    return {"size": list(bitmap.shape), "counts": packed_runs(counts).decode() if compressed else counts.tolist()}


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_those_of_pycocotools_both_ways(seed):
    bitmap = blob((37, 61), seed)
    theirs = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    runs = runs_of_bitmap(bitmap)
    assert packed_runs(runs) == theirs["counts"]
    assert run_lengths(theirs).tolist() == runs.tolist()
    assert (bitmap_of_runs(runs, 37, 61) == bitmap).all()


@pytest.mark.parametrize(
    "bitmap", [np.zeros((5, 4), bool), np.ones((5, 4), bool), filled(0, 0, 1, 1), filled(19, 29, 20, 30)]
)
def test_masks_of_no_pixel_all_pixels_and_one_pixel_come_back(bitmap):
    for outline in (bitmap, rle_of(bitmap), rle_of(bitmap, compressed=False)):
        masks = ObjectMasks.of([outline], bitmap.shape)
        assert (masks.bitmap(0) == bitmap).all()
        assert masks.rle(0) == coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
        assert masks.areas().tolist() == [bitmap.sum()]


def test_runs_of_no_pixel_are_none_wherever_they_stand():
    flat = np.zeros(20, bool)
    flat[5:10], flat[12:13] = True, True
    expected = flat.reshape(5, 4).T
    masks = ObjectMasks.of([{"size": [4, 5], "counts": [3, 0, 2, 2, 0, 3, 2, 1, 0, 0, 7, 0, 0]}], (4, 5))
    assert (masks.bitmap(0) == expected).all()
    assert (coco_mask.decode(masks.rle(0)) == expected).all()
    assert masks.areas().tolist() == [6]


def test_polygons_are_drawn_as_coco_draws_them_several_as_their_union():
    ring = [BOX + 0.3, BOX * 0.5 + 9.7]
    masks = ObjectMasks.of([[polygon.ravel().tolist() for polygon in ring]], SIZE)
    theirs = coco_mask.merge(coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in ring], *SIZE))
    assert masks.rle(0) == theirs
    assert (masks.bitmap(0) == coco_mask.decode(theirs)).all()


@pytest.mark.parametrize("values", [BOX + 0.25, BOX + 1 / 3])
def test_corners_of_polygons_are_kept_to_the_last_bit(values):
    from kfpn.data.mask_content import pack_polygons, unpack_outline

    assert (unpack_outline(pack_polygons([values]))[0] == values).all()


def test_an_object_without_a_mask_has_zeros_and_no_area():
    masks = ObjectMasks.of([None, [BOX]], SIZE)
    assert masks.exists.tolist() == [False, True]
    assert masks.areas().tolist() == [0.0, 60.0]
    assert not masks.bitmap(0).any()
    assert masks.grids(np.array([[2, 4, 8, 14]] * 2), 4).sum((1, 2)).tolist() == [0, 16]


@pytest.mark.parametrize("outline", [[BOX], filled(2, 4, 8, 14)])
@pytest.mark.parametrize(
    ("matrix", "size", "change"),
    [
        (MIRROR, (20, 30), lambda image: image[:, ::-1]),
        (UPSIDE_DOWN, (20, 30), lambda image: image[::-1]),
        (QUARTER, (30, 20), np.rot90),
        (np.array([[2.0, 0, 0], [0, 3.0, 0]]), (60, 60), lambda image: image.repeat(3, 0).repeat(2, 1)),
        (np.array([[1.0, 0, -6.0], [0, 1.0, -3.0]]), (4, 5), lambda image: image[3:7, 6:11]),
    ],
)
def test_masks_move_as_their_image_does(outline, matrix, size, change):
    masks = ObjectMasks.of([outline], SIZE).moved(matrix, size)
    assert (masks.bitmap(0) == change(filled(2, 4, 8, 14))).all()
    assert (coco_mask.decode(masks.rle(0)) == masks.bitmap(0)).all()


def test_bitmaps_of_any_form_move_as_their_image_does():
    bitmap = blob()
    masks = ObjectMasks.of([bitmap], SIZE)
    turned = masks.moved(MIRROR, SIZE).moved(QUARTER, (30, 20)).moved(np.array([[1.0, 0, -4], [0, 1.0, -9]]), (12, 10))
    assert (turned.bitmap(0) == np.rot90(bitmap[:, ::-1])[9:21, 4:14]).all()


@pytest.mark.parametrize("outline", [[BOX], filled(2, 4, 8, 14)])
def test_what_a_window_cut_off_does_not_come_back_when_the_frame_grows(outline):
    window = ObjectMasks.of([outline], SIZE).moved(np.array([[1.0, 0, -6], [0, 1.0, 0]]), (6, 5))
    wide = window.moved(np.array([[1.0, 0, 10], [0, 1.0, 4]]), SIZE)
    assert (wide.bitmap(0) == filled(6, 10, 10, 15)).all()
    assert (coco_mask.decode(wide.rle(0)) == wide.bitmap(0)).all()
    grid = wide.grids(np.array([[4, 10, 12, 20]]), 8)[0]  # cells of 1 x 1.25 pixels
    assert grid.sum(0).tolist() == [4, 4, 4, 4, 0, 0, 0, 0]


@pytest.mark.parametrize("outline", [[BOX], filled(2, 4, 8, 14)])
def test_run_lengths_of_the_upper_left_part_have_its_size(outline):
    part = ObjectMasks.of([outline], SIZE).moved(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (6, 9))
    seen = filled(2, 4, 6, 9, (6, 9))
    assert part.rle(0) == coco_mask.encode(np.asfortranarray(seen.astype(np.uint8)))
    assert (part.bitmap(0) == seen).all()
    assert part.areas().tolist() == [20]


@pytest.mark.parametrize("outline", [[BOX], filled(2, 4, 8, 14)])
@pytest.mark.parametrize("matrix", [None, MIRROR, UPSIDE_DOWN, QUARTER])
def test_the_grid_of_a_box_twice_as_large_as_its_object_is_a_quarter_full(outline, matrix):
    masks, box = ObjectMasks.of([outline], SIZE), np.array([[2.0, 4, 14, 24]])
    if matrix is None:
        half = filled(0, 0, 4, 4, (8, 8))
    elif matrix is QUARTER:
        masks, box = masks.moved(matrix, (30, 20)), np.array([[6.0, 2, 26, 14]])
        half = filled(4, 0, 8, 4, (8, 8))
    else:
        masks = masks.moved(matrix, SIZE)
        box = np.array([[2.0, 6, 14, 26]]) if matrix is MIRROR else np.array([[6.0, 4, 18, 24]])
        half = filled(0, 4, 4, 8, (8, 8)) if matrix is MIRROR else filled(4, 0, 8, 4, (8, 8))
    assert (masks.grids(box, 8)[0] == half).all()


def test_a_grid_of_polygons_is_drawn_as_detectron2_draws_it():
    triangle, box = np.array([[3.3, 2.1], [17.9, 5.5], [6.2, 15.7]]), np.array([2.0, 3.0, 16.0, 18.5])
    theirs = triangle.copy()
    theirs -= box[[1, 0]]
    theirs *= [28 / (box[3] - box[1]), 28 / (box[2] - box[0])]
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([theirs.ravel().tolist()], 28, 28)))
    assert (ObjectMasks.of([[triangle]], SIZE).grids(box[None], 28)[0] == drawn).all()


def test_masks_are_taken_joined_and_come_back_from_bytes():
    masks = ObjectMasks.of([[BOX], None, blob()], SIZE).moved(MIRROR, SIZE)
    for chosen in ([2, 1], np.array([False, True, True])):
        assert masks.take(chosen).exists.sum() == 1
    whole = ObjectMasks.joined([masks, masks.take([0])])
    again = ObjectMasks.from_serialized(whole.serialized())
    assert len(again) == 4
    assert again.size == SIZE
    assert all((again.bitmap(i) == whole.bitmap(i)).all() for i in range(4))
    assert len(ObjectMasks.from_serialized(np.empty(0, object), SIZE)) == 0


def test_what_covers_an_object_is_taken_from_its_mask():
    masks = ObjectMasks.of([[BOX], [BOX]], SIZE).without([None, filled(0, 0, 5, 30)])
    assert (masks.bitmap(0) == filled(2, 4, 8, 14)).all()
    assert (masks.bitmap(1) == filled(5, 4, 8, 14)).all()


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ("polygon", "be polygons or run lengths, got str 'polygon'"),
        ([[1, 1, 5, 5]], "at least three points, got 2 points"),
        ([[1, 1, 5, 5, 3]], "pairs x, y, got 5 numbers"),
        ([["a", "b", "c", "d", "e", "f"]], "polygons of numbers"),
        ([[1, 1, 5, 5, float("nan"), 9]], "finite pixels"),
        ([], "at least one polygon"),
        ([[[1, 1], [5]]], "polygons of numbers"),
        (5, "be polygons or run lengths, got int"),
        ({"size": [20, 30]}, "have size and counts"),
        ({"size": [30, 20], "counts": [600]}, r"image's size 20 x 30 \(height x width\), got a mask of 30 x 20"),
        ({"size": [20, 30], "counts": [599]}, "sum is height x width, 20 x 30 = 600, got 599"),
        ({"size": [20, 30], "counts": [700, -100]}, "at least 0, got -100"),
        ({"size": [20, 30], "counts": [10**400]}, "whole numbers of pixels"),
        ({"size": [20, 30], "counts": ["600"]}, "whole numbers of pixels"),
        ({"size": [20, 30], "counts": [float("inf")]}, "whole numbers of pixels"),
        ({"size": [20, 30], "counts": [[600], []]}, "whole numbers of pixels"),
        ({"size": [20, 30], "counts": [2**62] * 4}, "whole numbers of pixels"),
        ({"size": [20, 30], "counts": "\x01\x02"}, "compressed text"),
        ({"size": [20, 30], "counts": "\ud800"}, "compressed text"),
        ({"size": [20, 30], "counts": "ooooooooooooo0"}, "counts of pixels"),
        ({"size": "20", "counts": []}, "size of height and width"),
        (np.zeros((5, 5), bool), "image's size"),
        (np.zeros(SIZE, np.float32), "be a bitmap of bool or whole numbers, got float32"),
        (np.zeros(SIZE, int).tolist(), "be a NumPy array where it is a bitmap"),
        (np.array(5), "be polygons or run lengths, got ndarray"),
        (np.zeros((*SIZE, 1), bool), r"be a bitmap \(H, W\), or polygons, got bool \(20, 30, 1\)$"),
        ([[1, 1], [5, 5]], "at least three points, got 2 points"),
    ],
)
def test_an_outline_that_is_none_is_refused_in_one_line(outline, said):
    with pytest.raises(ValueError, match=f"mask 1 must .*{said}"):
        ObjectMasks.of([None, outline], SIZE)


@pytest.mark.parametrize("outlines", [None, "polygon", 7, {}])
def test_outlines_that_are_no_list_are_refused(outlines):
    with pytest.raises(ValueError, match="outlines must be a list, one for each object, got"):
        ObjectMasks.of(outlines, SIZE)


def test_a_polygon_may_be_a_list_of_pairs():
    pairs = [[2, 3], [20, 3], [20, 15], [2, 15]]
    flat = [number for pair in pairs for number in pair]
    masks = ObjectMasks.of([[flat], pairs, [pairs], np.array(pairs), [tuple(pair) for pair in pairs]], SIZE)
    assert masks.areas().tolist() == [18 * 12] * 5


@pytest.mark.parametrize("sides", [[20.0, 30.0], ["20", "30"], np.array([20, 30])])
def test_the_size_of_run_lengths_may_be_written_as_other_numbers(sides):
    assert ObjectMasks.of([{"size": sides, "counts": [590, 10]}], SIZE).areas().tolist() == [10]


@pytest.mark.parametrize("sides", [[20.5, 30], [True, 600], [0, 600], [None, 30], ["a", 30], [20, 30, 1]])
def test_a_size_of_run_lengths_that_is_none_is_refused(sides):
    with pytest.raises(ValueError, match="mask 0 must have a size of height and width"):
        ObjectMasks.of([{"size": sides, "counts": [590, 10]}], SIZE)


@pytest.mark.parametrize("size", [None, (0, 5), (-5, 10), (4, 5, 3), "45", (4.0, 5.0)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(
        ValueError, match="size must be height and width of the image, whole numbers of at least 1, got"
    ):
        ObjectMasks.of([[BOX]], size)


def test_a_turn_by_another_angle_is_refused():
    with pytest.raises(ValueError, match="axis-aligned"):
        ObjectMasks.of([[BOX]], SIZE).moved(np.array([[1.0, 0.1, 0], [-0.1, 1.0, 0]]), SIZE)


def test_polygons_far_outside_are_cut_and_draw_the_same_inside():
    far = np.array([[5.0, 5.0], [5e6, 6.0], [5e6, 5e6], [5.0, 15.0]])
    cut = near_part(far, SIZE)
    assert np.abs(cut).max() <= 30 + 2048
    drawn = ObjectMasks.of([[far]], SIZE).bitmap(0)
    assert drawn[6:15, 6:].all()
    assert not drawn[:, :5].any()
    assert not ObjectMasks.of([[far + 1e6]], SIZE).bitmap(0).any()


def test_ten_thousand_corners_are_drawn():
    angle = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    round_one = np.stack([320 + 200 * np.cos(angle), 320 + 200 * np.sin(angle)], -1)
    masks = ObjectMasks.of([[round_one]], (640, 640))
    assert masks.areas()[0] == pytest.approx(np.pi * 200**2, rel=0.01)
    assert masks.grids(np.array([[120.0, 120, 520, 520]]))[0].mean() == pytest.approx(np.pi / 4, abs=0.01)
