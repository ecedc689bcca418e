"""Draws the pictures of the built-in data set `shapes`: one seeded scene at a time, NumPy and Pillow only."""

import colorsys
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 192
"""Side of a scene in pixels: a multiple of 32, so that batches need no padding and, with `input.short_side` 192, no
resizing; large enough for objects of a dozen pixels and of 150, small enough to train on a CPU in minutes."""
CLASS_NAMES = ("circle", "square", "triangle", "star", "ring")
MIN_SIDE, MAX_SIDE = 14.0, 150.0
"""Range of an object's size (square root of the area of the box round the whole object), pixels."""
MAX_OBJECTS = 10
MIN_VISIBLE = 0.6
"""At least this share of the pixels of every object stays in sight: with less, the classes cannot be told apart for sure."""
_SUPERSAMPLE = 4
_PLACES = 24
_MIN_CONTRAST = 70.0


class Scene(NamedTuple):
    """Holds one picture and its objects, in drawing order (a later one covers earlier ones).

    Attributes:
        image: (SIZE, SIZE, 3) uint8 RGB.
        mask: (SIZE, SIZE) uint8, 0 for background, i + 1 where object i is what one sees.
        boxes: (M, 4) int32 yxyx half-open pixels, tight around the visible part of each object.
        labels: (M,) int32 index into CLASS_NAMES.
        areas: (M,) int32 visible pixels of each object.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray


def scene(rng: np.random.Generator) -> Scene:
    """Draws one scene: 1 to MAX_OBJECTS objects over a textured background.

    An object is left out when no place is found where MIN_VISIBLE of every other object stays in sight.
    """
    image = _background(
        rng
    )  # (3, SIZE, SIZE): NumPy works several times faster on three planes than on pixels of three values
    mask = np.zeros((SIZE, SIZE), np.uint8)
    labels: list[int] = []
    full: list[int] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        label = int(rng.integers(len(CLASS_NAMES)))
        alpha = _shape(rng, label, _log_uniform(rng, MIN_SIDE, MAX_SIDE))
        solid = alpha >= 0.5
        place = _find_place(rng, mask, solid, np.array(full, np.int64))
        if place is None:
            continue
        window = (slice(place[0], place[0] + solid.shape[0]), slice(place[1], place[1] + solid.shape[1]))
        _paint(rng, image, alpha, *place)
        labels.append(label)
        full.append(int(solid.sum()))
        mask[window][solid] = len(labels)
    image += rng.standard_normal((SIZE, SIZE), np.float32) * rng.uniform(1.0, 5.0)
    pixels = np.ascontiguousarray(np.clip(image, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0))
    areas = np.bincount(mask.ravel(), minlength=len(labels) + 1)[1:].astype(np.int32)
    boxes = np.array([_tight_box(mask == i + 1) for i in range(len(labels))], np.int32).reshape(-1, 4)
    return Scene(pixels, mask, boxes, np.array(labels, np.int32), areas)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _find_place(
    rng: np.random.Generator, mask: np.ndarray, solid: np.ndarray, full: np.ndarray
) -> tuple[int, int] | None:
    """Returns a top-left corner where every object so far keeps MIN_VISIBLE of its `full` pixels; None if none is found."""
    visible = np.bincount(mask.ravel(), minlength=len(full) + 1)
    height, width = solid.shape
    for _ in range(_PLACES):
        y, x = int(rng.integers(0, SIZE - height + 1)), int(rng.integers(0, SIZE - width + 1))
        hidden = np.bincount(mask[y : y + height, x : x + width][solid], minlength=len(full) + 1)
        if np.all((visible - hidden)[1:] >= MIN_VISIBLE * full):
            return y, x
    return None


def _outline(rng: np.random.Generator, name: str) -> np.ndarray:
    """Returns a shape's outline, (P, 2) xy around the origin, turned at random."""
    if name in ("circle", "ring"):
        angles, radii = np.linspace(0.0, 2 * np.pi, 72, endpoint=False), np.ones(72)
    elif name == "square":
        angles, radii = np.pi / 4 + np.arange(4) * np.pi / 2, np.ones(4)
    elif name == "triangle":
        angles, radii = np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.15, 0.15, 3), np.ones(3)
    else:
        angles, radii = np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 1.0)
    angles = angles + rng.uniform(0.0, 2 * np.pi)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)


def _shape(rng: np.random.Generator, label: int, side: float) -> np.ndarray:
    """Draws one shape alone: (h, w) float32 coverage 0..1, cut to where it is at least half, sqrt(h w) close to `side`."""
    name = CLASS_NAMES[label]
    points = _outline(rng, name)
    extent = np.ptp(points, axis=0)
    points = (points - points.min(0)) * (side / math.sqrt(extent[0] * extent[1]))
    width, height = (int(v) + 2 for v in points.max(0))
    canvas = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), 0)
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(x, y) for x, y in points * _SUPERSAMPLE], fill=255)
    if name == "ring":
        centre = points.mean(0)
        inner = (centre + (points - centre) * rng.uniform(0.45, 0.65)) * _SUPERSAMPLE
        draw.polygon([(x, y) for x, y in inner], fill=0)
    alpha = np.asarray(canvas.reduce(_SUPERSAMPLE), np.float32) / 255.0
    y0, x0, y1, x1 = _tight_box(alpha >= 0.5)
    return alpha[y0:y1, x0:x1][:SIZE, :SIZE]


def _paint(rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray, y: int, x: int) -> None:
    """Paints a shape with its own texture, light and shadow into `image` (3, SIZE, SIZE) float32, in place."""
    height, width = alpha.shape
    _cast_shadow(rng, image, alpha, y, x)
    under = image[:, y : y + height, x : x + width]
    behind = np.tensordot(under, alpha, 2)[:, None, None] / alpha.sum()
    base = _colour(rng, (0.45, 1.0), (0.35, 1.0))
    for _ in range(8):
        if np.linalg.norm(base - behind) >= _MIN_CONTRAST:
            break
        base = _colour(rng, (0.0, 1.0), (0.1, 1.0))
    shift = rng.uniform(-25.0, 25.0, (3, 1, 1)).astype(np.float32)
    second = np.clip(base * rng.uniform(0.55, 1.35) + shift, 0.0, 255.0)
    light = np.linspace(1.12, 0.85, height, dtype=np.float32)[:, None]
    fill = (base + (second - base) * _texture(rng, height, width)) * light
    under += (fill - under) * alpha


def _cast_shadow(rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray, y: int, x: int) -> None:
    """Darkens `image` (in place) below and right of a shape, as if it lay a little above what is under it."""
    height, width = alpha.shape
    offset = 1 + int(0.04 * math.sqrt(height * width))
    margin = 3 * offset
    cover = np.pad((alpha * 255.0).astype(np.uint8), margin)
    blurred = np.asarray(Image.fromarray(cover).filter(ImageFilter.BoxBlur(offset)), np.float32)
    top, left = y - margin + offset, x - margin + offset
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(SIZE, top + cover.shape[0]), min(SIZE, left + cover.shape[1])
    dark = blurred[y0 - top : y1 - top, x0 - left : x1 - left]
    image[:, y0:y1, x0:x1] *= 1.0 - dark * (rng.uniform(0.15, 0.5) / 255.0)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Returns (3, SIZE, SIZE) float32 0..255: two muted colours mixed by a texture, a third one clouded over them."""
    first, second, third = (_colour(rng, (0.05, 0.5), (0.25, 0.95)) for _ in range(3))
    image = first + (second - first) * _texture(rng, SIZE, SIZE)
    clouds = _noise(rng, SIZE, SIZE) * rng.uniform(0.2, 0.8)
    return image + (third - image) * clouds


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """Returns a random RGB colour, (3, 1, 1) float32 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32).reshape(3, 1, 1) * 255.0


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns (height, width) float32 0..1: noise, a gradient, stripes or a checkerboard, at a random angle and scale."""
    kind = rng.choice(["noise", "gradient", "stripes", "checker"])
    if kind == "noise":
        return _noise(rng, height, width)
    angle = rng.uniform(0.0, 2 * np.pi)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    along = rows * math.sin(angle) + columns * math.cos(angle)
    if kind == "gradient":
        return (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    across = columns * math.sin(angle) - rows * math.cos(angle)
    # The slope keeps about a pixel of soft edge whatever the period, so that stripes don't alias.
    period = _log_uniform(rng, 4.0, 40.0)
    wave = np.sin(along * (2 * np.pi / period))
    if kind == "checker":
        wave = wave * np.sin(across * (2 * np.pi / period))
    return np.clip(0.5 + wave * (period / 8.0), 0.0, 1.0)


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns (height, width) float32 0..1: five octaves of smooth noise, each half as strong as the one before."""
    total = np.zeros((height, width), np.float32)
    for octave in range(5):
        cells = min(3 * 2**octave, height, width)
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.5**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)
