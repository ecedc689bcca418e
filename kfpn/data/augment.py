"""Changes image and boxes together: the resize rule, flips, quarter turns, scale jitter and short sides that are drawn."""

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.data.jpeg_fraction import AnyImage, SizeRule, as_decoded
from kfpn.data.philox import integer_below, uniform

# Other users of (seed, sample_index), as the samplers, must draw other numbers.
_SALT = 0x617567
_SHORT_SIDE_SALT = 0x736964


class Draws(NamedTuple):
    """Holds what chance decides for one sample: whether it is mirrored, and the factor of its size.

    Attributes:
        flip: bool.
        factor: float, within `input.scale_jitter`.
    """

    flip: bool
    factor: float


def draw(config: InputConfig, seed: int, sample_index: int) -> Draws:
    """Draws the augmentation of one sample, a pure function of (seed, sample_index).

    Args:
        config: gives the probability of a flip and the range of the factor.
        seed: int, 0 .. 2^31 - 1.
        sample_index: the sample's number since the start of training.
    """
    # The indices of samples follow one another. The generator scrambles its seeds, so neighbours differ as much as any.
    chance = uniform((2,), (seed ^ (_SALT << 32), int(sample_index)), np.float64)
    low, high = config.scale_jitter
    # Rounding can make the product larger than `high`, and the canvas is made for `high`.
    return Draws(bool(chance[0] < config.flip), min(float(low + (high - low) * chance[1]), float(high)))


def draw_short_side(config: InputConfig, seed: int, sample_index: int) -> int:
    """Draws one of `input.train_short_sides` for a sample, each as likely, a pure function of (seed, sample_index).

    It has random numbers of its own, so that flips and factors are the same with and without it.

    Args:
        config: gives the sides; without them it is `short_side`.
        seed: int, 0 .. 2^31 - 1.
        sample_index: the sample's number since the start of training.

    Returns:
        Pixels.
    """
    if not config.train_short_sides:
        return config.short_side
    seeds = seed ^ (_SHORT_SIDE_SALT << 32), int(sample_index)
    return config.train_short_sides[integer_below(seeds, len(config.train_short_sides))]


def largest_training_input(config: InputConfig) -> InputConfig:
    """Returns the resize rule with the largest short side that training may draw. Canvases must hold its images; scale jitter is apart."""
    return dataclasses.replace(config, short_side=max(config.train_short_sides or (config.short_side,)))


def resized_sizes(
    sizes: np.ndarray, config: InputConfig, factor: float = 1.0, short_side: int | None = None
) -> np.ndarray:
    """Applies the resize rule to image sizes.

    Both sides are multiplied by s = min(short_side / shorter, long_side / longer) x factor and rounded, halves up,
    to at least 1 pixel. This is detectron2's `ResizeShortestEdge` (Fast R-CNN, section 2.3, trains the same way).

    Args:
        sizes: (..., 2) int, height and width.
        config: gives short_side and long_side.
        factor: what scale jitter drew.
        short_side: what was drawn of `train_short_sides`; None: that of `config`.

    Returns:
        (..., 2) int32, height and width.
    """
    exact = np.asarray(sizes, np.float64)
    short = config.short_side if short_side is None else short_side
    scale = np.minimum(short / exact.min(-1), config.long_side / exact.max(-1)) * factor
    return np.maximum(np.floor(exact * scale[..., None] + 0.5), 1.0).astype(np.int32)


def size_rule(config: InputConfig, factor: float = 1.0, short_side: int | None = None) -> SizeRule:
    """Returns the resize rule of `resized_sizes` as a function of one size, by which large JPEGs are decoded at a fraction."""

    def needed(size: tuple[int, int]) -> tuple[int, int]:
        height, width = (int(side) for side in resized_sizes(np.array(size), config, factor, short_side))
        return height, width

    return needed


def resize_image(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resizes (H, W, 3) uint8 to `size` (height, width), bilinear; antialiased where it shrinks (Pillow's filter).

    Args:
        image: (H, W, 3) uint8.
        size: height and width of the result.
        box: top, left, bottom, right of what becomes the result; None: the whole image.
    """
    if image.shape[:2] == tuple(size) and box in (None, (0, 0, *size)):
        return image
    part = None if box is None else (box[1], box[0], box[3], box[2])
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR, part))


def resize_boxes(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Scales boxes (M, 4) float32 yxyx pixels from an image of size `old` (height, width) to one of size `new`."""
    limit = np.array([*new, *new], np.float32)
    scale = np.array([new[0] / old[0], new[1] / old[1]] * 2, np.float64)
    return np.clip((boxes * scale).astype(np.float32), 0.0, limit)


def prepare_image(image: AnyImage, config: InputConfig) -> tuple[np.ndarray, tuple[int, int]]:
    """Resizes one image for inference, exactly as evaluation does (without padding).

    Args:
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it.
        config: gives the resize rule, see `resized_sizes`.

    Returns:
        (h, w, 3) uint8 and (h, w).

    Raises:
        ValueError: when `image` is not such an array.
    """
    decoded = as_decoded(image)
    height, width = size_rule(config)(decoded.size)
    return resize_image(decoded.pixels, (height, width), decoded.box), (height, width)


def flip_image(image: np.ndarray) -> np.ndarray:
    """Mirrors (H, W, 3) left to right."""
    return image[:, ::-1]


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Mirrors boxes (M, 4) yxyx in an image of `width` pixels: x -> width - x, left and right edge swapped."""
    return np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], -1).astype(np.float32)


def turn_boxes(boxes: np.ndarray, size: tuple[int, int], turns: int) -> np.ndarray:
    """Turns boxes (M, 4) yxyx as `numpy.rot90` turns their image, counter-clockwise.

    Args:
        boxes: (M, 4) yxyx pixels.
        size: height and width of the image before it is turned.
        turns: quarter turns.
    """
    height, width = size
    for _ in range(turns % 4):
        # What was at the right is on top: y is width - x, and x is y.
        boxes = np.stack([width - boxes[:, 3], boxes[:, 0], width - boxes[:, 1], boxes[:, 2]], -1)
        height, width = width, height
    return boxes.astype(np.float32)


def flip_boxes_vertical(boxes: np.ndarray, height: int) -> np.ndarray:
    """Turns boxes (M, 4) yxyx upside down in an image of `height` pixels: y -> height - y, upper and lower edge swapped."""
    return np.stack([height - boxes[:, 2], boxes[:, 1], height - boxes[:, 0], boxes[:, 3]], -1).astype(np.float32)
