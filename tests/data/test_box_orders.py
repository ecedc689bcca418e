import numpy as np
import pytest

from kfpn.data.box_orders import XYWH, XYXY, YXYX, check_box_order
from kfpn.data.formats.coco import CocoSource


def boxes(count=200, seed=0):
    """Returns boxes x, y, width, height that lie anywhere in images of 640 x 480, and the sizes of these."""
    chance = np.random.default_rng(seed)
    sizes = chance.uniform((20, 20), (400, 300), (count, 2))
    corners = chance.uniform(0, 1, (count, 2)) * ((640, 480) - sizes)
    return np.concatenate([corners, sizes], axis=1), np.tile([480.0, 640.0], (count, 1))


def written_as(form, xywh):
    x, y, w, h = xywh.T
    columns = {
        "x1, y1, x2, y2": (x, y, x + w, y + h),
        "y, x, height, width": (y, x, h, w),
        "y1, x1, y2, x2": (y, x, y + h, x + w),
        "center x, center y, width, height": (x + w / 2, y + h / 2, w, h),
    }
    return np.stack(columns[form], axis=1)


FORMS = ("x1, y1, x2, y2", "y, x, height, width", "y1, x1, y2, x2", "center x, center y, width, height")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [40, 2000])
def test_boxes_in_another_form_are_refused_with_its_name(form, count):
    right, sizes = boxes(count)
    with pytest.raises(ValueError, match=f"it: bbox must be {XYWH}, got what looks like {form}: "):
        check_box_order("it", "bbox", XYWH, written_as(form, right), sizes)


@pytest.mark.parametrize("form", FORMS)
def test_some_damaged_boxes_hide_nothing(form):
    right, sizes = boxes()
    odd = np.concatenate(
        [written_as(form, right), [[np.nan, 1, 2, 3], [5, 5, 1e300, 5], [9000, 0, 1, 1], [3, 3, 0, 0]]]
    )
    with pytest.raises(ValueError, match=form):
        check_box_order("it", "bbox", XYWH, odd, np.concatenate([sizes, sizes[:4]]))


def test_boxes_in_the_right_form_say_nothing(caplog):
    right, sizes = boxes()
    check_box_order("it", "bbox", XYWH, right, sizes)
    check_box_order("it", "boxes", YXYX, written_as(YXYX, right), sizes)
    check_box_order("it", "bbox", XYWH, right * 1.3, sizes)  # drawn on larger images: many leave the image
    check_box_order("it", "bbox", XYWH, right - (60, 60, 0, 0), sizes)
    check_box_order("it", "bbox", XYWH, written_as(FORMS[0], right)[:3], sizes[:3])  # too few for a pattern
    check_box_order("it", "bbox", XYWH, np.full((30, 4), np.nan), sizes[:30])
    # A click without a drag that was copied, and three of them beside two good boxes.
    check_box_order("it", "bndbox", XYXY, np.tile([[5.0, 5, 5, 5]], (30, 1)), sizes[:30])
    check_box_order(
        "it", "bndbox", XYXY, np.array([[9.0, 9, 9, 9], [8, 8, 8, 8], [7, 7, 7, 7], [0, 0, 30, 20]]), sizes[:4]
    )
    assert not caplog.messages


def test_where_it_is_not_sure_there_is_a_warning(caplog):
    right, sizes = boxes(400)
    inner = np.array([100.0, 100, 50, 50]) + np.arange(4000)[:, None] % (307, 199, 41, 37)
    mixed = np.concatenate([written_as(FORMS[3], right), inner])
    check_box_order("it", "bbox", XYWH, mixed, np.tile([480.0, 640.0], (len(mixed), 1)))
    assert len(caplog.messages) == 1
    assert f"it: bbox must be {XYWH}, and may be {FORMS[3]}: " in caplog.messages[0]
    few = np.array([[500.0, 300, 200, 20], [500, 200, 200, 20], [500, 100, 200, 20], [300, 300, 20, 200]])
    check_box_order("few", "bbox", XYWH, few, sizes[:4])
    assert f"few: bbox must be {XYWH}, and may be {FORMS[3]}: " in caplog.messages[-1]


def test_real_data_say_nothing_and_are_recognized_in_other_forms(shared, caplog):
    source = CocoSource(shared("data/coco33/instances.json"), shared("data/coco33/images"))
    assert not [message for message in caplog.messages if " may be " in message]
    y0, x0, y1, x1 = source.annotations.boxes.astype(float).T
    sizes = np.repeat(source.sizes, np.diff(source.annotations.offsets), axis=0)
    for form in FORMS:
        with pytest.raises(ValueError, match=form):
            check_box_order("it", "bbox", XYWH, written_as(form, np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)), sizes)
