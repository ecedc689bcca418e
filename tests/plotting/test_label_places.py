"""Tests where labels are put: they hide neither one another nor other objects."""

import numpy as np
import pytest

from kfpn.plotting.draw_boxes import draw_detections
from kfpn.plotting.label_places import LabelPlaces

SHAPE = (100, 200, 3)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ([50, 20, 90, 80], (40, 20)),  # above the box
        ([5, 20, 90, 80], (5, 20)),  # no room above: inside its top
        ([50, 190, 90, 200], (40, 170)),  # moved to the left, into the picture
        ([-20, -20, 90, 80], (0, 0)),
    ],
)
def test_a_label_alone_stands_above_its_box_or_inside_its_top(box, place):
    assert LabelPlaces(np.array([box], float), SHAPE).take(0, 10, 30) == place


def test_labels_of_boxes_in_one_place_stand_above_inside_and_below_and_a_fourth_is_left_out():
    places = LabelPlaces(np.array([[50, 20, 80, 80]] * 4, float), SHAPE)
    assert [places.take(row, 10, 30) for row in range(4)] == [(40, 20), (50, 20), (80, 20), None]


def test_a_label_does_not_cover_more_than_a_quarter_of_another_object():
    small = [42, 25, 48, 40]
    places = LabelPlaces(np.array([[50, 20, 80, 80], small], float), SHAPE)
    assert places.take(0, 10, 30) == (50, 20)
    half = [36, 25, 45, 40]  # 5 of its 9 rows would be under the label if that stood above
    assert LabelPlaces(np.array([[50, 20, 80, 80], half], float), SHAPE).take(0, 10, 30) == (50, 20)
    less = [30, 25, 43, 40]  # 3 of its 13 rows
    assert LabelPlaces(np.array([[50, 20, 80, 80], less], float), SHAPE).take(0, 10, 30) == (40, 20)


def test_a_crowd_of_small_objects_stays_visible():
    image = np.zeros((300, 300, 3), np.uint8)
    corners = np.stack(np.meshgrid(np.arange(4, 290, 20), np.arange(4, 290, 20)), -1).reshape(-1, 2)
    boxes = np.concatenate([corners, corners + 14], axis=1)
    rng = np.random.default_rng(0)
    labels, scores = np.zeros(len(boxes), int), rng.uniform(0.5, 1, len(boxes))
    drawn = draw_detections(image, boxes, labels, scores, ["mushroom"])
    centres = drawn[corners[:, 0] + 7, corners[:, 1] + 7]
    assert not centres.any()  # what was in the middle of each object is to be seen
    two = draw_detections(image, boxes[:1], labels[:1], scores[:1], ["mushroom"])
    assert two.any(axis=-1).sum() > 14 * 4 * 2 + 100  # one object alone has its label
