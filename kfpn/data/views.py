"""Chooses what a training sample shows of its image: which part, how much smaller, and which way up.

Whatever is chosen fits the size that the whole image has by the resize rule, so canvases and memory do not grow.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kfpn.config.input_config import InputConfig

TRIES = 10
"""Places of a crop that are looked at for one with an object."""
_STRETCH = 4 / 3
"""Most that a crop's aspect ratio differs from its image's (SSD and Inception crops have up to 2 and 4/3)."""

Window = tuple[int, int, int, int]
"""Top, left, bottom and right of a part of an image, in the image's own pixels."""


class View(NamedTuple):
    """Says what is shown of an image.

    Attributes:
        window: the part that is shown.
        shrink: factor, at most 1, by which it is made smaller than what fits.
        flip_vertical: whether it is turned upside down as in a mirror.
        turns: quarter turns, counter-clockwise, 0..3, after the flips.
    """

    window: Window
    shrink: float = 1.0
    flip_vertical: bool = False
    turns: int = 0

    def resized(self, limit: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width to which the window is resized, before it is turned: the largest that fit, times `shrink`.

        Args:
            limit: height and width of the whole image by the resize rule.
        """
        top, left, bottom, right = self.window
        return fitting_size((bottom - top, right - left), limit[::-1] if self.turns % 2 else limit, self.shrink)


def fitting_size(size: tuple[int, int], room: tuple[int, int], shrink: float = 1.0) -> tuple[int, int]:
    """Returns the largest height and width, at least 1, of one form with `size` that fit into `room`, times `shrink`.

    Args:
        size: height and width in pixels.
        room: the same.
        shrink: factor, at most 1.
    """
    scale = min(room[0] / size[0], room[1] / size[1]) * shrink
    height, width = (max(1, min(most, math.floor(side * scale + 0.5))) for side, most in zip(size, room, strict=True))
    return height, width


def random_numbers(seed: int, sample_index: int, use: str) -> np.random.Generator:
    """Returns the generator of one use of chance for one sample: other uses have other numbers, whether they are on or off.

    Args:
        seed: int, 0 .. 2^31 - 1.
        sample_index: the sample's number since the start of training.
        use: name of what is drawn.
    """
    # Without a type NumPy makes floats of large integers, and different seeds would have one key.
    key = np.array([zlib.crc32(use.encode()) << 32 | seed, sample_index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def training_sizes(sizes: np.ndarray, config: InputConfig) -> np.ndarray:
    """Returns the sizes (..., 2), height and width, of what training sees of images of some sizes before it resizes them: tiles, or all."""
    return np.minimum(sizes, config.tile) if config.tile else np.asarray(sizes)


def draw_tile(view: View, boxes: np.ndarray, config: InputConfig, chance: np.random.Generator) -> View:
    """Cuts a tile of `tile` pixels a side out of the window, all of it along an axis that is shorter.

    Of ten places the first with an object is taken. None has one, but the image does: the place is drawn around one of its objects.
    """
    start, end = np.array(view.window[:2]), np.array(view.window[2:])
    share = np.minimum(1.0, config.tile / (end - start))
    places = chance.random((TRIES, 2))
    which, around = chance.random(), chance.random(2)
    tall, wide = np.full(TRIES, share[0]), np.full(TRIES, share[1])
    tiled = _with_window(view, tall, wide, places, boxes, config.crop_keep)
    if tiled is not view or (share >= 1.0).all():
        return tiled
    side = np.minimum(end - start, config.tile)
    top_left, bottom_right = np.split(boxes[int(which * len(boxes))].astype(np.float64), 2)
    # Where an object is larger than the tile, the tile lies inside of it.
    low, high = np.sort(np.stack([bottom_right - side, top_left]), axis=0)
    corner = np.clip(np.floor(low + around * (high - low) + 0.5).astype(np.int64), start, end - side)
    top, left, bottom, right = np.concatenate([corner, corner + side]).tolist()
    return view._replace(window=(top, left, bottom, right))


def crop(view: View, boxes: np.ndarray, config: InputConfig, chance: np.random.Generator) -> View:
    """Cuts a part of `crop_area` out of the window, with probability `crop`.

    Of ten crops that are drawn the first with an object is taken; there is none: the view stays.
    """
    if chance.random() >= config.crop:
        return view
    draws = chance.random((TRIES, 4))
    low, high = config.crop_area
    side = np.sqrt(low + (high - low) * draws[:, 0])
    stretch = np.clip(_STRETCH ** (draws[:, 1] - 0.5), side, 1.0 / side)  # neither side is longer than the window's
    return _with_window(view, side * stretch, side / stretch, draws[:, 2:], boxes, config.crop_keep)


def large_scale_jitter(view: View, boxes: np.ndarray, config: InputConfig, chance: np.random.Generator) -> View:
    """Shows the window at a factor drawn from `large_scale_jitter`: smaller, or a part of it larger (Ghiasi et al. 2021).

    The part is the first of ten places with an object; there is none: the factor is 1.
    """
    low, high = config.large_scale_jitter
    factor = low + (high - low) * chance.random()
    if factor <= 1.0:
        return view._replace(shrink=view.shrink * factor)
    share = np.full(TRIES, 1.0 / factor)
    return _with_window(view, share, share, chance.random((TRIES, 2)), boxes, config.crop_keep)


def flip_vertical(view: View, _: np.ndarray, config: InputConfig, chance: np.random.Generator) -> View:
    """Turns the view upside down as in a mirror, with probability `flip_vertical`."""
    return view._replace(flip_vertical=bool(chance.random() < config.flip_vertical))


def turn(view: View, _: np.ndarray, config: InputConfig, chance: np.random.Generator) -> View:
    """Turns the view by 90, 180 or 270 degrees, each as likely, with probability `turn`."""
    turned, turns = chance.random() < config.turn, int(chance.integers(1, 4))
    return view._replace(turns=turns if turned else 0)


VIEW_CHANGES: dict[str, Callable[[View, np.ndarray, InputConfig, np.random.Generator], View]] = {
    "tile": draw_tile,
    "crop": crop,
    "large_scale_jitter": large_scale_jitter,
    "flip_vertical": flip_vertical,
    "turn": turn,
}
"""Option -> what it changes of (view, boxes (M, 4) of the objects that are not crowd, options, generator), in this order."""


def choose_view(
    size: tuple[int, int], boxes: np.ndarray, config: InputConfig, seed: int, sample_index: int
) -> View | None:
    """Returns what a sample shows of its image, a pure function of its arguments; None: all of it, as it is, in each sample.

    Args:
        size: height and width of the image.
        boxes: (M, 4) float32 yxyx pixels of its objects, without crowd.
        config: the options.
        seed: int, 0 .. 2^31 - 1.
        sample_index: the sample's number since the start of training.
    """
    names = [name for name in VIEW_CHANGES if getattr(config, name)]
    if not names:
        return None
    view = View((0, 0, *size))
    for name in names:
        view = VIEW_CHANGES[name](view, boxes, config, random_numbers(seed, sample_index, name))
    return view


def cut_boxes(boxes: np.ndarray, crowd: np.ndarray, window: Window, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Cuts boxes to a window.

    Args:
        boxes: (M, 4) float32 yxyx, pixels of the image.
        crowd: (M,) bool. A crowd region stays as long as any part of it is seen: what it holds must not count as background.
        window: the part of the image that is seen.
        least: share of an object's area that must be seen, else its box is dropped.

    Returns:
        boxes (M, 4) float32, pixels of the window, and (M,) bool, which of them stay.
    """
    seen, share = parts_in_windows(boxes, np.array(window, np.float64)[None])
    cut = (seen[0] - np.array([*window[:2], *window[:2]])).astype(np.float32)
    has_area = (cut[:, 2:] > cut[:, :2]).all(-1)
    # Boxes are float32, so a share that is meant to be equal may be less by their rounding.
    return cut, has_area & (crowd | (share[0] >= least - 1e-6))


def parts_in_windows(boxes: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each of some boxes to each of some windows.

    Args:
        boxes: (M, 4) yxyx, pixels of the image.
        windows: (T, 4) yxyx, the same pixels.

    Returns:
        The parts (T, M, 4) float64, in the same pixels, and their shares (T, M) of the boxes' areas, 0..1.
    """
    whole = boxes.astype(np.float64)
    parts = np.concatenate(
        [
            np.maximum(whole[None, :, :2], windows[:, None, :2]),
            np.minimum(whole[None, :, 2:], windows[:, None, 2:]),
        ],
        -1,
    )
    area = np.maximum((whole[:, 2:] - whole[:, :2]).prod(-1), 1e-12)
    return parts, np.maximum(parts[..., 2:] - parts[..., :2], 0.0).prod(-1) / area


def _with_window(
    view: View, tall: np.ndarray, wide: np.ndarray, places: np.ndarray, boxes: np.ndarray, least: float
) -> View:
    """Returns a view of the first of T parts of the window that has an object, or of the first part where there are none at all.

    Args:
        view: what is seen before.
        tall: (T,) the parts' shares of its height.
        wide: (T,) their shares of its width.
        places: (T, 2) in 0..1, where they lie between top and bottom, left and right.
        boxes: (M, 4) of the objects.
        least: share of an object's area that must be seen.
    """
    start, end = np.array(view.window[:2]), np.array(view.window[2:])
    sides = np.clip(np.floor((end - start) * np.stack([tall, wide], -1) + 0.5), 1, end - start).astype(np.int64)
    # Each of the places, which are one more than the pixels that are left, is as likely.
    corners = start + np.floor(places * (end - start - sides + 1)).astype(np.int64)
    windows = np.concatenate([corners, corners + sides], -1)
    if len(boxes):
        good = np.flatnonzero((parts_in_windows(boxes, windows)[1] >= least).any(-1))
        if not len(good):
            return view
        windows = windows[good]
    top, left, bottom, right = windows[0].tolist()
    return view._replace(window=(top, left, bottom, right))
