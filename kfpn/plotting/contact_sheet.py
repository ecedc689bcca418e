"""Draws a contact sheet: small pictures of many images with their boxes, in rows under a list of the classes."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kfpn.plotting.draw_boxes import class_color
from kfpn.plotting.fonts import drawable, font_for, plain_font

# All measures are in pixels of the sheet.
TILE, GAP, CAPTION, LINE = 380, 16, 26, 30
COLUMNS = 4
_TEXT = 15
_LONGEST_CAPTION = 44  # characters
_MOST_CLASSES = 24
_CROWD_COLOR = (128, 128, 128)

_Entry = tuple[int, tuple[int, int, int], str]
"""The left side in pixels, the colour and the name of a class in the list of classes."""


class Tile(NamedTuple):
    """Holds an image of the sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) yxyx pixels.
        labels: (n,) int class ids.
        crowd: (n,) bool, boxes that are drawn in gray.
        caption: stands below the picture.
        mask_of: function of i, the mask of object i, (H, W) bool of the image's size, or None; None: there are no masks.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    caption: str
    mask_of: Callable[[int], np.ndarray | None] | None = None


def draw_contact_sheet(title: str, tiles: Iterable[Tile], class_names: Sequence[str], path: str | Path) -> None:
    """Writes a contact sheet.

    Args:
        title: the first line.
        tiles: the images, each of which is made small at once, so that an iterator need not hold them all.
        class_names: names of labels 0 .. K-1; of those in the tiles, the 24 with the most boxes are listed with their colours.
        path: the picture to write: .png, .jpg or .jpeg.
    """
    pictures = []
    counts = np.zeros(len(class_names), np.int64)
    for tile in tiles:
        pictures.append(_picture(tile))
        counts += np.bincount(tile.labels, minlength=len(class_names))
    width = COLUMNS * TILE + (COLUMNS + 1) * GAP
    names = _legend(class_names, counts, width)
    rows = [pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    top = GAP + LINE * (1 + len(names))
    sheet = Image.new("RGB", (width, top + sum(heights) + GAP), "white")
    canvas = ImageDraw.Draw(sheet)
    canvas.text((GAP, GAP), _fitting(title, 150), fill="black", font=_font_of(title, _TEXT + 3))
    for number, line in enumerate(names):
        for left, color, text in line:
            y = GAP + LINE * (1 + number)
            canvas.rectangle((left, y + 3, left + 14, y + 17), fill=color)
            canvas.text((left + 20, y), text, fill="black", font=_font_of(text))
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * (TILE + GAP), top))
        top += height
    sheet.save(path, quality=90)  # for a JPEG; PNG has none


def _picture(tile: Tile) -> Image.Image:
    """Returns a tile's image, made to fit, with its boxes and its caption."""
    height, width = tile.image.shape[:2]
    zoom = min(TILE / width, TILE / height)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    small = Image.fromarray(_with_masks(tile)).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    canvas = ImageDraw.Draw(small)
    thick = 2 if len(tile.boxes) < 50 else 1
    for box, label, crowd in zip(np.asarray(tile.boxes, np.float64) * zoom, tile.labels, tile.crowd, strict=True):
        y1, x1, y2, x2 = box
        color = _CROWD_COLOR if crowd else class_color(int(label))
        canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=thick)
    picture = Image.new("RGB", (TILE, size[1] + CAPTION), "white")
    picture.paste(small, (0, 0))
    text = _fitting(tile.caption, _LONGEST_CAPTION)
    font = _font_of(text)
    ImageDraw.Draw(picture).text((0, size[1] + 4), text, fill="black", font=font)
    return picture


def _with_masks(tile: Tile) -> np.ndarray:
    """Returns a tile's image with its masks in the colours of their classes, half seen through."""
    if tile.mask_of is None:
        return tile.image
    image = tile.image.copy()
    for i, label in enumerate(tile.labels):
        mask = tile.mask_of(i)
        if mask is not None:
            color = _CROWD_COLOR if tile.crowd[i] else class_color(int(label))
            image[mask] = image[mask] // 2 + np.array(color, np.uint8) // 2
    return image


def _font_of(text: str, size: int = _TEXT) -> ImageFont.FreeTypeFont:
    return font_for(text, size) or plain_font(size)


def _fitting(text: str, longest: int) -> str:
    """Returns a line without signs that can't be drawn, and with its end where it is long: names differ there."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    return line if len(line) <= longest else "…" + line[1 - longest :]


def _legend(class_names: Sequence[str], counts: np.ndarray, width: int) -> list[list[_Entry]]:
    """Returns the entries of each line, for a sheet of so many pixels of width."""
    lines: list[list[_Entry]] = [[]]
    left = GAP
    drawn = np.flatnonzero(counts).tolist()
    for label in sorted(sorted(drawn, key=lambda label: -int(counts[label]))[:_MOST_CLASSES]):
        text = drawable(_fitting(" ".join(class_names[label].split()), 30), str(label))
        long = 20 + int(_font_of(text).getlength(text)) + 2 * GAP
        if left + long > width and lines[-1]:
            lines.append([])
            left = GAP
        lines[-1].append((left, class_color(label), text))
        left += long
    if len(drawn) > _MOST_CLASSES:
        lines.append([(GAP, (255, 255, 255), f"and {len(drawn) - _MOST_CLASSES} more classes")])
    return lines
