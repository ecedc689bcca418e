"""Masks on a contact sheet."""

import numpy as np

from kfpn.plotting.contact_sheet import Tile, _with_masks
from kfpn.plotting.draw_boxes import class_color


def test_masks_have_half_the_colour_of_their_class_and_the_image_stays_as_it_is():
    image = np.full((6, 8, 3), 100, np.uint8)
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:5] = True
    boxes, labels = np.array([[1, 2, 3, 5], [0, 0, 6, 8]], np.float32), np.array([3, 0])
    tile = Tile(image, boxes, labels, np.zeros(2, bool), "a", lambda i: mask if i == 0 else None)
    drawn = _with_masks(tile)
    assert drawn[mask].tolist() == [[50 + channel // 2 for channel in class_color(3)]] * 6
    assert (drawn[~mask] == 100).all()
    assert (image == 100).all()
