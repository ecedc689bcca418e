"""Pastes objects of one picture into another by their masks, as simple copy-paste does (Ghiasi et al. 2021)."""

from typing import NamedTuple

import numpy as np

from kfpn.data.object_masks import ObjectMasks
from kfpn.data.picture_changes import Picture
from kfpn.data.views import cut_boxes

TAKEN = 0.5
"""Probability that an object of the other picture is pasted."""


def paste_objects(picture: Picture, other: Picture, least: float, chance: np.random.Generator) -> Picture:
    """Returns a picture with some objects of another one in it.

    The other picture is laid over this one at a place that chance chooses, and the pixels of its chosen objects are copied. What they
    cover is taken from the masks below, and boxes shrink to what is left.

    Args:
        picture: below, with masks.
        other: with masks; only objects that have one with a pixel in the picture, and are not crowd, are pasted.
        least: share of an object that must be seen, below and on top, else it is dropped.
        chance: generator of this sample.
    """
    draws = chance.random(2)
    taken = chance.random(len(other.boxes)) < TAKEN
    if picture.masks is None or other.masks is None:
        return picture
    laid = _laid_over(other, other.masks, (picture.image.shape[0], picture.image.shape[1]), draws, least)
    chosen = taken[laid.places] & laid.masks.exists & ~other.crowd[laid.places]
    cover = np.zeros(picture.image.shape[:2], bool)
    for i in np.flatnonzero(chosen).tolist():
        drawn = laid.masks.bitmap(i)
        chosen[i] = drawn.any()  # A part of a box may hold nothing of its object.
        cover |= drawn
    if not chosen.any():
        return picture
    places, masks = laid.places[chosen], laid.masks.take(chosen)
    below = _under(picture, picture.masks, cover, least)
    image = picture.image.copy()
    image[cover] = laid.image[cover]
    return Picture(
        image,
        np.concatenate([below.boxes, laid.boxes[chosen]]),
        np.concatenate([below.labels, other.labels[places]]),
        np.concatenate([below.crowd, other.crowd[places]]),
        ObjectMasks.joined([part for part in (below.masks, masks) if part is not None]),
    )


class LaidOver(NamedTuple):
    """Holds a picture in the frame of another one.

    Attributes:
        image: (h, w, 3) uint8, zeros where the picture does not reach.
        boxes: (M, 4) float32 yxyx of the objects that are seen.
        masks: of them.
        places: (M,) which objects of the picture they are.
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: ObjectMasks
    places: np.ndarray


def _laid_over(other: Picture, masks: ObjectMasks, size: tuple[int, int], draws: np.ndarray, least: float) -> LaidOver:
    """Lays a picture over a frame of a size, height and width, at a place drawn so that the smaller side lies within the larger one."""
    room = np.array(size) - np.array(other.image.shape[:2])
    top, left = (int(side) for side in np.floor(draws * (np.abs(room) + 1)).astype(int) * np.sign(room))
    height, width = other.image.shape[:2]
    image = np.zeros((*size, 3), np.uint8)
    begin_y, begin_x, end_y, end_x = max(top, 0), max(left, 0), min(top + height, size[0]), min(left + width, size[1])
    image[begin_y:end_y, begin_x:end_x] = other.image[begin_y - top : end_y - top, begin_x - left : end_x - left]
    boxes, kept = cut_boxes(other.boxes, other.crowd, (-top, -left, size[0] - top, size[1] - left), least)
    moved = masks.moved(np.array([[1.0, 0.0, left], [0.0, 1.0, top]]), size)
    places = np.flatnonzero(kept)
    return LaidOver(image, boxes[places], moved.take(places), places)


def _under(picture: Picture, masks: ObjectMasks, cover: np.ndarray, least: float) -> Picture:
    """Returns the objects of a picture of which enough is left beside what covers them, (h, w) bool."""
    covers: list[np.ndarray | None] = [None] * len(masks)
    boxes, stays, exists = picture.boxes.copy(), np.ones(len(masks), bool), masks.exists
    for i, (top, left, bottom, right) in enumerate(picture.boxes.astype(np.float64)):
        window = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
        if picture.crowd[i] or not cover[window].any():
            continue
        if not exists[i]:
            stays[i] = 1.0 - cover[window].mean() >= least
            continue
        whole = masks.bitmap(i)
        rest = whole & ~cover
        stays[i] = rest.sum() >= max(1.0, least * whole.sum())
        if stays[i] and rest.sum() < whole.sum():
            covers[i] = cover
            boxes[i] = _box_of_rest(rest, picture.boxes[i])
    return picture._replace(
        boxes=boxes[stays],
        labels=picture.labels[stays],
        crowd=picture.crowd[stays],
        masks=masks.without(covers).take(stays),
    )


def _box_of_rest(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the box around a mask with a pixel, within the box that it had."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.float32)
    around = np.concatenate([np.maximum(tight[:2], box[:2]), np.minimum(tight[2:], box[2:])])
    return around if (around[2:] > around[:2]).all() else tight
