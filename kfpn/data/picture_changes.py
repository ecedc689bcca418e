"""Changes a training picture that is resized already: its colours, by chance."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from kfpn.config.input_config import InputConfig
from kfpn.data.object_masks import ObjectMasks

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
"""The NTSC matrix: gray, and two axes of colour."""


class Picture(NamedTuple):
    """Holds a training picture and its boxes.

    Attributes:
        image: (h, w, 3) uint8 RGB; it may be read-only.
        boxes: (M, 4) float32 yxyx pixels.
        labels: (M,) int32.
        crowd: (M,) bool.
        masks: of the M objects, in the picture's pixels; None without a mask head.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: ObjectMasks | None = None


def color_jitter(picture: Picture, config: InputConfig, chance: np.random.Generator) -> Picture:
    """Changes brightness, contrast, saturation and hue by factors drawn from the strengths of `color_jitter`."""
    strengths = np.array(four_strengths(config.color_jitter))
    draws = strengths * (2.0 * chance.random(4) - 1.0)
    image = Image.fromarray(picture.image)
    gray = float(np.reshape(image.histogram(), (3, 256)) @ np.arange(256) @ _LUMA) / (image.width * image.height)
    brightness, contrast, saturation = (1.0 + draws[:3]).tolist()
    matrix = color_matrix(brightness, contrast, saturation, float(draws[3]), gray)
    return picture._replace(image=np.asarray(image.convert("RGB", tuple(matrix.reshape(-1).tolist()))))


def four_strengths(strengths: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Returns the strengths of brightness, contrast, saturation and hue; one strength is that of all, and a quarter of it of the hue."""
    if len(strengths) == 1:
        return (strengths[0], strengths[0], strengths[0], strengths[0] / 4)
    brightness, contrast, saturation, hue = strengths
    return brightness, contrast, saturation, hue


def color_matrix(brightness: float, contrast: float, saturation: float, hue: float, gray: float) -> np.ndarray:
    """Returns the one matrix (3, 4) that changes brightness, contrast, saturation and hue of RGB values, in this order.

    Each of the changes is linear, so their product changes a picture in one pass, and values are clipped once, at the end.

    Args:
        brightness: factor of all values.
        contrast: factor of the distance from the picture's mean gray.
        saturation: factor of the distance of a value from its own gray.
        hue: turn of the colours around the gray axis, 1 is a full turn.
        gray: mean gray of the picture, 0..255, before.
    """
    to_gray = np.ones((3, 1)) * _LUMA
    turn = 2.0 * np.pi * hue
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.linalg.inv(_TO_YIQ) @ np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]) @ _TO_YIQ
    colors = turned @ (to_gray + saturation * (np.eye(3) - to_gray)) * (contrast * brightness)
    # Both matrices keep gray as it is, so what contrast adds to all values needs no product.
    return np.concatenate([colors, np.full((3, 1), (1.0 - contrast) * brightness * gray)], -1)


PICTURE_CHANGES: dict[str, Callable[[Picture, InputConfig, np.random.Generator], Picture]] = {
    "color_jitter": color_jitter,
}
"""Option -> what it changes of (picture, options, generator), in this order."""
