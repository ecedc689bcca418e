"""Recognizes in which order and form the four numbers of boxes were written, by which of the readings lie in their images."""

from typing import NamedTuple

import numpy as np

from kfpn.data.opening_warnings import warn_of_data

_FEW, _MANY = 4, 20
"""Fewer boxes than `_FEW` are no pattern; below `_MANY`, most of them must say so."""
_SLACK = 2.0  # pixels: annotation tools round, and count from 0 or 1
_MATRICES = {
    # rows: y0, x0, y1, x1 from the four numbers
    "x, y, width, height": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0)),
    "x1, y1, x2, y2": ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)),
    "y, x, height, width": ((1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 1, 0), (0, 1, 0, 1)),
    "y1, x1, y2, x2": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
    "center x, center y, width, height": ((0, 1, 0, -0.5), (1, 0, -0.5, 0), (0, 1, 0, 0.5), (1, 0, 0.5, 0)),
}
"""The forms that tools write boxes in."""
XYWH, XYXY, YXYX = "x, y, width, height", "x1, y1, x2, y2", "y1, x1, y2, x2"
CENTERS = "center x, center y, width, height"
_CORNERS = (XYXY, YXYX)
"""In other forms few boxes leave their images, so a few such boxes are not sure."""


class _Rival(NamedTuple):
    form: str
    gained: int  # boxes that lie in their image in this form alone
    lost: int  # boxes that lie in their image in the right form alone


def check_box_order(name: str, field: str, form: str, numbers: np.ndarray, sizes: np.ndarray) -> None:
    """Refuses boxes that were written in another form than the format's, or warns where that is not sure.

    Of each other form it counts the boxes that lie in their image in that form alone, and those that do so in the right form
    alone. A set in the right form has many of the second kind, however carelessly it was drawn: boxes of any form but its own
    reach over a border, or have no area. Boxes of the same numbers in images of the same size count once: a careless box that
    was copied is no pattern.

    Args:
        name: what messages call the data set.
        field: what messages call the boxes.
        form: a key of the table of forms: what the format means.
        numbers: (M, 4), four numbers a box.
        sizes: (M, 2) height and width of each box's image.

    Raises:
        ValueError: when more than a tenth of the boxes (and more than 4) lie in their images in another form alone, and next
            to none (one for 50) in the right form alone. Of less than 20 boxes most must do so (and at least 4), as two corners or
            in place of two corners, and none may in the right form alone.
    """
    numbers, limits = np.asarray(numbers, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    plain = np.isfinite(numbers).all(axis=1) & (np.abs(numbers) < 1e9).all(axis=1)
    distinct = np.unique(np.concatenate([numbers, limits], axis=1)[plain], axis=0)
    numbers, limits = distinct[:, :4], distinct[:, 4:]
    count = len(numbers)
    if count < _FEW:
        return
    own = _lies_inside(form, numbers, limits)
    if own.all():
        return
    rivals = [
        _Rival(other, int((inside & ~own).sum()), int((own & ~inside).sum()))
        for other in _MATRICES
        if other != form
        for inside in [_lies_inside(other, numbers, limits)]
    ]
    best = max(rivals, key=lambda rival: rival.gained - rival.lost)
    said = f"{best.gained} of {count} boxes lie in their image only as {best.form}, and {best.lost} only as {form}"
    # Of corners that are none, many have no area.
    corners = best.form in _CORNERS or (form in _CORNERS and best.form == XYWH)
    if count >= _MANY:
        sure = best.gained > max(_FEW, count / 10)
    else:
        sure = corners and best.gained >= _FEW and best.gained > count / 2
    if sure and best.lost <= best.gained // 50:
        raise ValueError(f"{name}: {field} must be {form}, got what looks like {best.form}: {said}. Convert them")
    if best.gained >= _FEW and best.gained > count / 50 and best.lost <= best.gained // 10:
        warn_of_data(f"{name}: {field} must be {form}, and may be {best.form}: {said}")


def check_corner_order(
    name: str, field: str, form: str, corners: np.ndarray, sizes: np.ndarray, orientations: np.ndarray
) -> None:
    """Checks boxes that were read as corners as `check_box_order` does, those of turned images left out.

    In a turned image x and y are swapped for another reason.

    Args:
        name: what messages call the data set.
        field: what messages call the boxes.
        form: a key of the table of forms: what the numbers of the boxes were.
        corners: (M, 4) yxyx pixels, as they were read.
        sizes: (M, 2) height and width of each box's image.
        orientations: (M,) EXIF orientation of each box's image.
    """
    upright = orientations == 1
    y0, x0, y1, x1 = corners[upright].T
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = {
            XYWH: (x0, y0, x1 - x0, y1 - y0),
            XYXY: (x0, y0, x1, y1),
            CENTERS: ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
        }[form]
    check_box_order(name, field, form, np.stack(numbers, axis=1), sizes[upright])


def _lies_inside(form: str, numbers: np.ndarray, limits: np.ndarray) -> np.ndarray:
    corners = numbers @ np.asarray(_MATRICES[form], np.float64).T
    has_area = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    inside = has_area & (corners[:, :2] >= -_SLACK).all(axis=1) & (corners[:, 2:] <= limits + _SLACK).all(axis=1)
    return np.asarray(inside)
