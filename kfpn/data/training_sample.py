"""Makes the arrays of one training sample from its record: decoded, cut, resized, turned, coloured and padded."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from kfpn.config.run import Config
from kfpn.data.augment import (
    flip_boxes,
    flip_boxes_vertical,
    flip_image,
    largest_training_input,
    resize_boxes,
    resize_image,
    size_rule,
    turn_boxes,
)
from kfpn.data.copy_paste import paste_objects
from kfpn.data.image import decode_record
from kfpn.data.jpeg_fraction import DecodedImage, SizeRule
from kfpn.data.mask_moves import (
    are_out_of_sight,
    batch_masks,
    batch_outlines,
    flip_masks,
    flip_masks_vertical,
    resize_masks,
    seen_masks,
    turn_masks,
)
from kfpn.data.own_augment import OwnAugment, load_function
from kfpn.data.picture_changes import PICTURE_CHANGES, Picture
from kfpn.data.record import Record, Source
from kfpn.data.views import View, choose_view, cut_boxes, fitting_size, random_numbers, training_sizes

ROOM = 2
"""With a function of one's own or copy-paste a training image has rows for this many times the most boxes of one image: both may
paste objects."""

_OTHERS = 1 << 62
"""Is added to the number of a sample for the image that is pasted into it: its view has other random numbers."""


def box_rows(source: Source, config: Config) -> int:
    """Returns how many rows of boxes each training image has, at least 1."""
    return max(1, source.max_boxes) * (ROOM if config.augment or config.input.copy_paste else 1)


def training_sample(source: Source, config: Config) -> Callable[..., tuple[np.ndarray, ...]]:
    """Returns the function that makes the arrays of one training sample from its record and what chance drew.

    Call:
        record_index, sample_index: int; flip: bool; factor: float; short_side: int; canvas: (2,) int32.

    Raises:
        ValueError: if `config.augment` names no function that can be called.
    """
    options, rows = config.input, box_rows(source, config)
    # What chance draws makes images of several sizes. The largest counts, so that an image is always decoded in one way,
    # unless a part of it is enlarged. Tiles are cut from the whole image, as they are in evaluation.
    largest = size_rule(largest_training_input(options), options.scale_jitter[1])
    changes = [(name, change) for name, change in PICTURE_CHANGES.items() if getattr(options, name)]
    own = None
    if config.augment:
        own = OwnAugment(config.augment, load_function(config.augment), len(source.class_names), rows)

    def seen(
        record: Record, sample: int, flip: bool, factor: float, short_side: int
    ) -> tuple[Picture, tuple[int, int]]:
        if not config.model.learns_masks:
            record = dataclasses.replace(record, masks=None)
        view = choose_view((record.height, record.width), record.boxes[~record.crowd], options, config.seed, sample)
        rule = size_rule(options, factor, short_side)
        needed = largest if view is None else _larger(largest, rule, view)
        decoded = decode_record(record, None if options.tile else needed)
        height, width = training_sizes(np.array(decoded.size), options).tolist()
        limit = rule((height, width))
        return _turned(_seen_picture(decoded, record, view, limit, options.crop_keep), flip, view), limit

    def with_pasted(picture: Picture, sample: int, factor: float, short_side: int) -> Picture:
        chance = random_numbers(config.seed, sample, "copy_paste")
        if chance.random() >= options.copy_paste:
            return picture
        flip = bool(chance.random() < options.flip)
        record = source[int(chance.integers(len(source)))]
        other, _ = seen(record, sample + _OTHERS, flip, factor, short_side)
        return paste_objects(picture, other, options.crop_keep, chance)

    def load(
        record_index: int, sample_index: int, flip: bool, factor: float, short_side: int, canvas: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        record, sample = source[int(record_index)], int(sample_index)
        picture, limit = seen(record, sample, bool(flip), float(factor), int(short_side))
        if options.copy_paste:
            picture = with_pasted(picture, sample, float(factor), int(short_side))
        for name, change in changes:
            picture = change(picture, options, random_numbers(config.seed, sample, name))
        if own is not None:
            name = record.name or f"image {record.image_id}"
            picture = own(picture, random_numbers(config.seed, sample, "augment"), name)
            picture = _fitted(picture, limit)
        return (*_arrays(record, picture, canvas, rows), *_arrays_of_masks(picture, rows, config))

    return load


def _larger(largest: SizeRule, rule: SizeRule, view: View) -> SizeRule:
    """Returns the rule of the size that a whole image must be decoded for, where a part of it is enlarged."""

    def needed(size: tuple[int, int]) -> tuple[int, int]:
        top, left, bottom, right = view.window
        height, width = view.resized(rule(size))
        plain = largest(size)
        return (
            max(plain[0], math.ceil(size[0] * height / (bottom - top))),
            max(plain[1], math.ceil(size[1] * width / (right - left))),
        )

    return needed


def _seen_picture(
    decoded: DecodedImage, record: Record, view: View | None, limit: tuple[int, int], least: float
) -> Picture:
    """Returns the part of an image that is seen, resized, with its objects.

    Of an object that the part cuts, as much of the box as `cut_boxes` asks for must be seen, and a pixel of the mask where it has one:
    the corner of a box may hold nothing of its object.
    """
    whole = (0, 0, *decoded.size)
    if view is None or view.window == whole:
        size = limit if view is None else view.resized(limit)
        image = resize_image(decoded.pixels, size, decoded.box)
        masks = resize_masks(record.masks, size)
        return Picture(image, resize_boxes(record.boxes, decoded.size, size), record.labels, record.crowd, masks)
    size, window = view.resized(limit), view.window
    boxes, kept = cut_boxes(record.boxes, record.crowd, window, least)
    masks = seen_masks(record.masks, window, size)
    if masks is not None:
        is_cut = (record.boxes[:, :2] < window[:2]).any(-1) | (record.boxes[:, 2:] > window[2:]).any(-1)
        kept &= ~are_out_of_sight(masks, kept & is_cut & ~record.crowd)
    sides = window[2] - window[0], window[3] - window[1]
    return Picture(
        resize_image(decoded.pixels, size, _part(decoded, window)),
        resize_boxes(boxes[kept], sides, size),
        record.labels[kept],
        record.crowd[kept],
        None if masks is None else masks.take(kept),
    )


def _part(decoded: DecodedImage, window: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Returns where a window of the whole image lies in what was decoded."""
    top, left, bottom, right = decoded.box
    tall, wide = (bottom - top) / decoded.size[0], (right - left) / decoded.size[1]
    height, width = decoded.pixels.shape[:2]
    return (
        top + window[0] * tall,
        left + window[1] * wide,
        min(top + window[2] * tall, float(height)),
        min(left + window[3] * wide, float(width)),
    )


def _turned(picture: Picture, flip: bool, view: View | None) -> Picture:
    image, boxes, masks = picture.image, picture.boxes, picture.masks
    if flip:
        image, boxes = flip_image(image), flip_boxes(boxes, image.shape[1])
        masks = flip_masks(masks)
    if view is not None and view.flip_vertical:
        image, boxes = image[::-1], flip_boxes_vertical(boxes, image.shape[0])
        masks = flip_masks_vertical(masks)
    if view is not None and view.turns:
        boxes = turn_boxes(boxes, (image.shape[0], image.shape[1]), view.turns)
        image = np.rot90(image, view.turns)
        masks = turn_masks(masks, view.turns)
    return picture._replace(image=image, boxes=boxes, masks=masks)


def _fitted(picture: Picture, limit: tuple[int, int]) -> Picture:
    """Makes a picture smaller if it is larger than a size (height, width); its sides keep their ratio."""
    height, width = picture.image.shape[:2]
    if height <= limit[0] and width <= limit[1]:
        return picture
    size = fitting_size((height, width), limit)
    image = resize_image(np.ascontiguousarray(picture.image), size)
    masks = resize_masks(picture.masks, size)
    return picture._replace(image=image, boxes=resize_boxes(picture.boxes, (height, width), size), masks=masks)


def padded(image: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Returns an image (h, w, 3) with zeros below and right of it, up to a canvas (height, width)."""
    if image.shape[0] == canvas[0] and image.shape[1] == canvas[1]:
        return np.ascontiguousarray(image)
    whole = np.zeros((*canvas, 3), np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    return whole


def _arrays(record: Record, picture: Picture, canvas: np.ndarray, rows: int) -> tuple[np.ndarray, ...]:
    """Returns the padded image, its size, and the rows of boxes, labels and crowd."""
    size = np.array(picture.image.shape[:2], np.int32)
    return padded(picture.image, canvas), size, *_rows_of_boxes(record, picture, rows)


def _arrays_of_masks(picture: Picture, rows: int, config: Config) -> tuple[np.ndarray, ...]:
    """Returns the rows of masks and which of them exist, in the form that the run's targets are made from; nothing without masks."""
    if not config.model.learns_masks:
        return ()
    if config.masks_on_host:
        return batch_outlines(picture.masks, rows)
    return batch_masks(picture.masks, picture.boxes, rows)


def _rows_of_boxes(record: Record, picture: Picture, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = len(picture.boxes)
    if count > rows:
        raise ValueError(f"{record.name}: has {count} boxes, more than its source's max_boxes {rows}")
    gt_boxes = np.zeros((rows, 4), np.float32)
    gt_labels = np.full(rows, -1, np.int32)
    gt_crowd = np.zeros(rows, np.bool_)
    gt_boxes[:count], gt_labels[:count], gt_crowd[:count] = picture.boxes, picture.labels, picture.crowd
    return gt_boxes, gt_labels, gt_crowd
