import io
import logging

import numpy as np
import pytest
from PIL import Image, ImageOps

from kfpn.data.annotation_checks import (
    CLIPPED,
    NO_AREA,
    NOT_FINITE,
    OUTSIDE,
    AnnotationFaults,
    in_stored_pixels,
    upright_boxes,
    usable_boxes,
    warn_of_similar_names,
)
from kfpn.data.image_checks import read_headers


def check(boxes, **options):
    faults = AnnotationFaults("set")
    sizes = np.tile([100, 200], (len(boxes), 1))
    return (*usable_boxes(np.asarray(boxes, float), sizes, lambda m: f"file {m}", faults, **options), faults)


def test_good_boxes_are_untouched():
    boxes, usable, faults = check([[0, 0, 100, 200], [10, 20, 30, 40]])
    assert boxes.tolist() == [[0, 0, 100, 200], [10, 20, 30, 40]]
    assert boxes.dtype == np.float32
    assert usable.all()
    assert faults.counts == {}


def test_each_kind_of_bad_box_is_counted_on_its_own():
    _, usable, faults = check(
        [
            [0, 0, 5, 5],
            [np.nan, 0, 5, 5],
            [0, 0, np.inf, 5],
            [5, 5, 5, 9],
            [9, 9, 5, 5],
            [0, 200, 5, 220],
            [90, 190, 120, 230],
        ]
    )
    assert usable.tolist() == [True, False, False, False, False, False, True]
    assert faults.counts == {
        NOT_FINITE: (2, "file 1"), NO_AREA: (2, "file 3"), OUTSIDE: (1, "file 5"), CLIPPED: (1, "file 6"),
    }  # fmt: skip


def test_boxes_are_clipped_to_their_image_and_rounding_is_no_fault():
    boxes, _, faults = check([[-5, 10, 20, 30], [-0.5, 0, 100.5, 200.9]])
    assert boxes.tolist() == [[0, 10, 20, 30], [0, 0, 100, 200]]
    assert faults.counts == {CLIPPED: (1, "file 0")}


def test_an_empty_array_of_boxes_is_accepted():
    boxes, usable, _ = check(np.zeros((0, 4)))
    assert boxes.shape == (0, 4)
    assert usable.shape == (0,)


def test_each_kind_of_fault_has_one_warning_with_count_and_first_file(caplog):
    faults = AnnotationFaults("set", {"boxes askew": (2, "a.jpg")})
    faults.add("boxes askew", "b.jpg", 3)
    with caplog.at_level(logging.WARNING, "kfpn"):
        faults.report()
    assert caplog.messages == ["set: boxes askew: 5 (first: a.jpg)"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(orientation):
    stored = np.zeros((20, 30), np.uint8)
    stored[3:7, 11:24] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "PNG", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(stream)))
    rows, columns = np.nonzero(shown)
    expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    boxes = upright_boxes(np.array([[3.0, 11, 7, 24]]), np.array([shown.shape]), np.array([orientation]))
    assert boxes.tolist() == [expected]


def test_the_declared_size_decides_whether_boxes_refer_to_the_stored_pixels():
    sizes, turned = np.array([[30, 20], [30, 20], [30, 20], [30, 20]]), np.array([6, 6, 6, 1])
    declared = np.array([[30, 20], [20, 30], [0, 0], [30, 20]])
    assert in_stored_pixels(declared, sizes, turned, list("abcd"), "set").tolist() == [False, True, False, False]


def test_one_side_that_is_declared_is_compared_alone():
    sizes, turned = np.array([[30, 20], [30, 20], [30, 20]]), np.array([1, 6, 6])
    declared = np.array([[30, 0], [0, 20], [20, 0]])
    assert in_stored_pixels(declared, sizes, turned, list("abc"), "set").tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"a is 20 x 30, annotated as 21 x \?\nUse the images that were annotated"):
        in_stored_pixels(np.array([[0, 21]]), np.array([[30, 20]]), np.ones(1), ["a"], "set")


def test_the_error_for_a_wrong_size_names_the_file_and_both_sizes():
    with pytest.raises(ValueError, match=r"set: 1 of 2 images(.|\n)*b is 20 x 30, annotated as 30 x 20"):
        in_stored_pixels(np.array([[30, 20], [20, 30]]), np.array([[30, 20], [30, 20]]), np.ones(2), ["a", "b"], "set")


def test_names_of_classes_that_may_be_one_are_said(caplog):
    warn_of_similar_names(["cat", "dog", "Cat", "traffic light", "traffic_light", "cow"], "set")
    assert caplog.messages == [
        "set: classes whose names differ only in case, spaces, hyphens or accents' form: 2 ('cat' and 'Cat', 'traffic light' and 'traffic_light')"
    ]
    warn_of_similar_names(["cat", "cats", "dog", "1", "2"], "set")
    assert len(caplog.messages) == 1
    warn_of_similar_names(["1", "cat", "01", "1.0"], "set")
    assert caplog.messages[1:] == [
        "set: classes whose names are one number in several spellings: 2 ('1' and '01', '1' and '1.0')"
    ]


def test_swapped_width_and_height_are_called_so():
    with pytest.raises(
        ValueError, match=r"a is 20 x 30, annotated as 30 x 20\nWidth and height are swapped: correct them"
    ):
        in_stored_pixels(np.array([[20, 30]]), np.array([[30, 20]]), np.ones(1), ["a"], "set")
    with pytest.raises(ValueError, match="Use the images that were annotated"):
        in_stored_pixels(np.array([[20, 30], [7, 7]]), np.array([[30, 20]] * 2), np.ones(2), ["a", "b"], "set")


def test_five_bad_images_are_listed_and_the_others_are_counted(tmp_path):
    names = [str(tmp_path / f"{i}.jpg") for i in range(7)]
    with pytest.raises(ValueError, match="7 of 7 images") as caught:
        read_headers(names, names, "set")
    assert names[4] in str(caught.value)
    assert names[5] not in str(caught.value)
    assert "and 2 more" in str(caught.value)
