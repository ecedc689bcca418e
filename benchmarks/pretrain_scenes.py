"""Draws made pictures of many kinds, on which the small network of `kfpn train` is trained beforehand.

They are less tidy than the scenes of the data set `shapes`: one picture has a few large objects, the next a crowd of small
ones that look alike; outlines are bent and stretched, fills are textured, pale or half transparent, some have a rim or a
core; light, blur and noise change from picture to picture. NumPy and Pillow only.
"""

import colorsys
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256
"""Side of a picture in pixels."""
MIN_VISIBLE = 0.55
"""At least this share of every object stays in sight."""
_SUPERSAMPLE = 2
_PLACES = 16


class Picture(NamedTuple):
    """Holds one picture and its objects.

    Attributes:
        image: (SIZE, SIZE, 3) uint8 RGB.
        boxes: (M, 4) int yxyx half-open pixels, tight around the visible part of each object.
        labels: (M,) int index into CLASS_NAMES.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


class Style(NamedTuple):
    """Holds what the objects of one picture have in common.

    Attributes:
        count: objects that are tried.
        low, high: range of an object's side in pixels.
        labels: classes that occur.
        contrast: least distance of an object's colour from what is behind it, 0..441.
        colours: colours that objects take; empty: each its own.
        opacity: range of an object's opacity, 0..1.
    """

    count: int
    low: float
    high: float
    labels: np.ndarray
    contrast: float
    colours: list
    opacity: tuple[float, float]


def _polar(radii: Callable, corners: int) -> Callable[[np.random.Generator], np.ndarray]:
    def outline(rng: np.random.Generator) -> np.ndarray:
        angles = np.arange(corners) * (2 * np.pi / corners)
        length = radii(rng, angles)
        return np.stack([length * np.cos(angles), length * np.sin(angles)], -1)

    return outline


def _points(*places: tuple[float, float]) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: np.array(places, float) + rng.uniform(-0.04, 0.04, (len(places), 2))


def _blob(rng: np.random.Generator, angles: np.ndarray) -> np.ndarray:
    waves = [rng.normal(0.0, 0.28 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(2, 7)]
    return np.maximum(1.0 + np.sum(waves, axis=0), 0.25)


def _crescent(rng: np.random.Generator) -> np.ndarray:
    outer, inner = np.linspace(-2.0, 2.0, 40), np.linspace(1.3, -1.3, 30)
    return np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], -1),
            np.stack([0.95 * np.cos(inner) - 0.6, 0.95 * np.sin(inner)], -1),
        ]
    )


OUTLINES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "disc": _polar(lambda rng, a: np.ones_like(a), 48),
    "ring": _polar(lambda rng, a: np.ones_like(a), 48),
    "blob": _polar(_blob, 60),
    "square": _polar(lambda rng, a: np.ones_like(a), 4),
    "triangle": _polar(lambda rng, a: np.ones_like(a), 3),
    "hexagon": _polar(lambda rng, a: np.ones_like(a), 6),
    "star": _polar(lambda rng, a: np.where(np.arange(len(a)) % 2, rng.uniform(0.35, 0.5), 1.0), 10),
    "flower": _polar(lambda rng, a: 1.0 + 0.3 * np.cos(rng.integers(4, 8) * a), 72),
    "cross": _points(
        *[
            (x, y)
            for x, y in (
                (-0.35, -1),
                (0.35, -1),
                (0.35, -0.35),
                (1, -0.35),
                (1, 0.35),
                (0.35, 0.35),
                (0.35, 1),
                (-0.35, 1),
                (-0.35, 0.35),
                (-1, 0.35),
                (-1, -0.35),
                (-0.35, -0.35),
            )
        ]
    ),
    "bar": _points((-1, -0.22), (1, -0.22), (1, 0.22), (-1, 0.22)),
    "arrow": _points((-1, -0.2), (0.2, -0.2), (0.2, -0.6), (1, 0), (0.2, 0.6), (0.2, 0.2), (-1, 0.2)),
    "crescent": _crescent,
    "mushroom": _points(
        (-1, 0),
        (-0.85, -0.5),
        (-0.4, -0.85),
        (0.4, -0.85),
        (0.85, -0.5),
        (1, 0),
        (0.3, 0),
        (0.35, 0.9),
        (-0.35, 0.9),
        (-0.3, 0),
    ),
    "ell": _points((-1, -1), (-0.3, -1), (-0.3, 0.4), (1, 0.4), (1, 1), (-1, 1)),
}
"""Class -> function that draws an outline of it, (P, 2) xy around the origin."""
CLASS_NAMES = tuple(OUTLINES)


def picture(rng: np.random.Generator) -> Picture:
    """Draws one picture."""
    style = _style(rng)
    image = _background(rng)
    mask = np.zeros((SIZE, SIZE), np.int32)
    labels: list[int] = []
    full: list[int] = []
    for _ in range(style.count):
        label = int(rng.choice(style.labels))
        alpha = _stamp(rng, CLASS_NAMES[label], _log_uniform(rng, style.low, style.high))
        solid = alpha >= 0.5
        if solid.sum() < 20:
            continue
        place = _place(rng, mask, solid, np.array(full, np.int64))
        if place is None:
            continue
        _paint(rng, image, alpha, place, style)
        labels.append(label)
        full.append(int(solid.sum()))
        mask[place[0] : place[0] + solid.shape[0], place[1] : place[1] + solid.shape[1]][solid] = len(labels)
    boxes = np.array([_tight_box(mask == i + 1) for i in range(len(labels))], np.int64).reshape(-1, 4)
    return Picture(_photograph(rng, image), boxes, np.array(labels, np.int64))


def _style(rng: np.random.Generator) -> Style:
    kind = rng.choice(["few", "mixed", "many"], p=[0.3, 0.35, 0.35])
    contrast = float(rng.uniform(30.0, 90.0))
    opacity = (0.45, 0.9) if rng.random() < 0.25 else (0.9, 1.0)
    every = np.arange(len(CLASS_NAMES))
    if kind == "few":
        return Style(int(rng.integers(1, 5)), 40.0, 220.0, every, contrast, [], opacity)
    if kind == "mixed":
        return Style(int(rng.integers(2, 14)), 12.0, 140.0, every, contrast, [], opacity)
    side = _log_uniform(rng, 14.0, 48.0)
    colours = [_colour(rng, (0.0, 1.0), (0.1, 1.0)) for _ in range(int(rng.integers(1, 3)))]
    count = int(min(60, 0.7 * (SIZE / side) ** 2) * rng.uniform(0.3, 1.0)) + 3
    return Style(count, side / 1.3, side * 1.3, rng.choice(every, int(rng.integers(1, 4))), contrast, colours, opacity)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _place(rng: np.random.Generator, mask: np.ndarray, solid: np.ndarray, full: np.ndarray) -> tuple[int, int] | None:
    """Returns a top-left corner where every object so far keeps MIN_VISIBLE of its `full` pixels; None if none is found."""
    visible = np.bincount(mask.ravel(), minlength=len(full) + 1)
    height, width = solid.shape
    for _ in range(_PLACES):
        y, x = int(rng.integers(0, SIZE - height + 1)), int(rng.integers(0, SIZE - width + 1))
        hidden = np.bincount(mask[y : y + height, x : x + width][solid], minlength=len(full) + 1)
        if np.all((visible - hidden)[1:] >= MIN_VISIBLE * full):
            return y, x
    return None


def _stamp(rng: np.random.Generator, name: str, side: float) -> np.ndarray:
    """Draws one outline alone, turned and stretched: (h, w) float32 coverage 0..1 with sqrt(h w) close to `side`."""
    points = OUTLINES[name](rng)
    stretch = _log_uniform(rng, 0.75, 1.33) if name != "bar" else 1.0
    turn = rng.uniform(0.0, 2 * np.pi)
    rotate = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = (points * [stretch, 1.0 / stretch]) @ rotate.T
    extent = np.ptp(points, axis=0)
    scale = min(side / math.sqrt(extent[0] * extent[1]), (SIZE - 3) / extent.max())
    points = (points - points.min(0)) * scale
    width, height = (int(v) + 2 for v in points.max(0))
    canvas = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), 0)
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(x, y) for x, y in points * _SUPERSAMPLE], fill=255)
    if name == "ring":
        centre = points.mean(0)
        inner = (centre + (points - centre) * rng.uniform(0.4, 0.7)) * _SUPERSAMPLE
        draw.polygon([(x, y) for x, y in inner], fill=0)
    alpha = np.asarray(canvas.reduce(_SUPERSAMPLE), np.float32) / 255.0
    if not (alpha >= 0.5).any():
        return np.zeros((1, 1), np.float32)
    y0, x0, y1, x1 = _tight_box(alpha >= 0.5)
    return alpha[y0:y1, x0:x1]


def _paint(
    rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray, place: tuple[int, int], style: Style
) -> None:
    """Paints a stamp with a fill of its own into `image` (3, SIZE, SIZE) float32, in place."""
    height, width = alpha.shape
    under = image[:, place[0] : place[0] + height, place[1] : place[1] + width]
    behind = np.tensordot(under, alpha, 2)[:, None, None] / alpha.sum()
    base = _object_colour(rng, behind, style)
    second = np.clip(base * rng.uniform(0.6, 1.3) + rng.uniform(-30.0, 30.0, (3, 1, 1)), 0.0, 255.0)
    fill = base + (second - base) * _texture(rng, height, width)
    fill = fill * np.linspace(*rng.uniform(0.8, 1.2, 2), height, dtype=np.float32)[:, None]
    if min(height, width) >= 10:
        small = Image.fromarray((alpha * 255.0).astype(np.uint8))
        if rng.random() < 0.4:  # a rim
            thick = 2 * int(rng.integers(1, 1 + max(1, min(height, width) // 14))) + 1
            padded = Image.fromarray(np.pad(np.asarray(small), thick))
            inside = (
                np.asarray(padded.filter(ImageFilter.MinFilter(thick)), np.float32)[thick:-thick, thick:-thick] / 255.0
            )
            rim = np.clip(base * rng.uniform(0.4, 1.6), 0.0, 255.0)
            fill = rim + (fill - rim) * inside
        if rng.random() < 0.25:  # a core
            share = rng.uniform(0.25, 0.6)
            size = (max(1, int(width * share)), max(1, int(height * share)))
            core = np.zeros_like(alpha)
            y, x = (int(rng.uniform(0.2, 0.8) * (n - m)) for n, m in ((height, size[1]), (width, size[0])))
            core[y : y + size[1], x : x + size[0]] = np.asarray(small.resize(size), np.float32) / 255.0
            fill = fill + (_colour(rng, (0.0, 1.0), (0.0, 1.0)) - fill) * core
    under += (fill - under) * (alpha * rng.uniform(*style.opacity))


def _object_colour(rng: np.random.Generator, behind: np.ndarray, style: Style) -> np.ndarray:
    if style.colours and rng.random() < 0.9:
        base = style.colours[int(rng.integers(len(style.colours)))] + rng.normal(0.0, 10.0, (3, 1, 1))
        if np.linalg.norm(base - behind) >= style.contrast:
            return np.clip(base, 0.0, 255.0).astype(np.float32)
    for _ in range(8):
        base = _colour(rng, (0.0, 1.0), (0.1, 1.0))
        if np.linalg.norm(base - behind) >= style.contrast:
            break
    return base


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns the finished picture, uint8: light, blur and noise as of a camera."""
    image = 255.0 * np.clip(image / 255.0, 0.0, 1.0) ** _log_uniform(rng, 0.7, 1.4)
    if rng.random() < 0.15:
        image = np.broadcast_to(image.mean(0, keepdims=True), image.shape)
    pixels = Image.fromarray(np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0)))
    if rng.random() < 0.5:
        pixels = pixels.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    noisy = np.asarray(pixels, np.float32) + rng.standard_normal((SIZE, SIZE, 3), np.float32) * rng.uniform(1.0, 12.0)
    return np.clip(noisy, 0.0, 255.0).astype(np.uint8)


def _background(rng: np.random.Generator) -> np.ndarray:
    first, second, third = (_colour(rng, (0.0, 0.7), (0.1, 1.0)) for _ in range(3))
    image = first + (second - first) * _texture(rng, SIZE, SIZE) * rng.uniform(0.1, 1.0)
    return image + (third - image) * (_noise(rng, SIZE, SIZE) * rng.uniform(0.0, 0.8))


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    rgb = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32).reshape(3, 1, 1) * 255.0


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns (height, width) float32 0..1: noise, a gradient, stripes or a checkerboard, at a random angle and scale."""
    kind = rng.choice(["noise", "noise", "gradient", "stripes", "checker"])
    if kind == "noise":
        return _noise(rng, height, width)
    angle = rng.uniform(0.0, 2 * np.pi)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    along = rows * math.sin(angle) + columns * math.cos(angle)
    if kind == "gradient":
        return (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    period = _log_uniform(rng, 4.0, 48.0)
    wave = np.sin(along * (2 * np.pi / period))
    if kind == "checker":
        wave = wave * np.sin((columns * math.sin(angle) - rows * math.cos(angle)) * (2 * np.pi / period))
    return np.clip(0.5 + wave * (period / 8.0), 0.0, 1.0)


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    total = np.zeros((height, width), np.float32)
    first = int(rng.integers(2, 9))
    for octave in range(5):
        cells = min(first * 2**octave, height, width)
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.6**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)
