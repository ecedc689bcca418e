"""Draws labelled boxes, and masks where there are any, on images."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kfpn.plotting.draw_masks import Masks, chosen_masks, draw_masks, enlarged_masks
from kfpn.plotting.fonts import drawable, font_for, plain_font
from kfpn.plotting.label_places import LabelPlaces

GOLDEN_RATIO = 0.618033988749895
PANEL_SIDE = 480
"""Pixels: `side_by_side` enlarges smaller images, because labels would hide their objects."""


def class_color(label: int) -> tuple[int, int, int]:
    """Returns the RGB colour of a class, which is the same in every picture.

    The hues follow the golden ratio, which keeps the first few classes far from each other, however many there are. The
    second and the third dozen of classes have other saturations and brightnesses.

    Args:
        label: int, the class id.

    Returns:
        Red, green and blue, 0..255.
    """
    value, saturation = ((1.0, 0.85), (0.75, 0.95), (1.0, 0.55))[label // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    text_size: int | None = None,
    masks: np.ndarray | Masks | None = None,
) -> np.ndarray:
    """Draws boxes with their labels, the best box on top, and masks under the boxes.

    A label that has no place where it hides neither another label nor another object is left out, the surest detections
    first served. So a crowd of small objects stays visible.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        boxes: (n, 4) yxyx pixels.
        labels: (n,) int class ids; boxes with -1 (padding) are not drawn.
        scores: (n,) in 0..1, written as a percentage behind the class name; None: no number is written, as for ground
            truth.
        class_names: names of labels 0 .. K-1, or {label: name}; None: the label's number is written.
        text_size: pixels; None: it follows the image's size.
        masks: (n, H, W) bool, as `kfpn.paste_masks` gives them; None: there are none. A function of the row, see
            `kfpn.plotting.draw_masks`, keeps only one of them in memory.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the image is not (H, W, 3) uint8, or boxes, labels, scores and masks are not of one length, or the masks of
            another size than the image.
    """
    _check_image(image)
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64).reshape(-1)
    if len(boxes) != len(labels) or (scores is not None and len(scores) != len(boxes)):
        lengths = [len(part) for part in (boxes, labels, scores) if part is not None]
        raise ValueError(f"boxes, labels and scores must be of one length, got {lengths}")
    side = max(image.shape[:2])
    width, text_size = max(2, round(side / 400)), text_size or max(11, round(side / 45))
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    shown = [index for index in order if labels[index] >= 0]
    if masks is not None:
        _check_masks(masks, (len(boxes), *image.shape[:2]))
        image, width = draw_masks(image, masks, labels, shown, class_color), max(1, width // 2)
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    for index in shown:
        _draw_box(canvas, boxes[index], class_color(int(labels[index])), width, image.shape)
    # Texts are drawn after all boxes, so that no line runs through a text. The surest detection chooses its place first.
    places = LabelPlaces(boxes[shown], image.shape)
    for row, index in reversed(list(enumerate(shown))):
        name = str(labels[index])
        if class_names is not None:
            name = drawable(" ".join(str(class_names[int(labels[index])]).split()), name)
        text = name if scores is None else f"{name} {100 * scores[index]:.0f}%"
        font = font_for(text, text_size) or plain_font(text_size)
        _draw_text(canvas, places, row, text, class_color(int(labels[index])), font)
    return np.asarray(picture)


def side_by_side(
    image: np.ndarray,
    truth: Mapping[str, Any],
    detections: Mapping[str, Any],
    class_names: Sequence[str],
    min_score: float = 0.5,
) -> np.ndarray:
    """Draws an image twice under titles, with its ground truth on the left and its detections on the right.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: `boxes` (m, 4) yxyx pixels of the image, `labels` (m,) int class ids; `masks`, a function of the row, if there are
            any.
        detections: `boxes` (n, 4) yxyx pixels, `labels` (n,) int class ids, `scores` (n,) in 0..1; `masks` as those of `truth`.
        class_names: names of labels 0 .. K-1.
        min_score: detections with a lower score are not drawn; the title gives this limit.

    Returns:
        (H', W', 3) uint8 RGB. An image whose sides are both below 480 pixels is enlarged.
    """
    _check_image(image)
    zoom = max(1.0, PANEL_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * zoom), round(image.shape[0] * zoom))
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) if zoom > 1 else image
    scores = np.asarray(detections["scores"])
    keep = scores >= min_score
    gt_boxes = np.asarray(truth["boxes"]).reshape(-1, 4) * zoom
    boxes = np.asarray(detections["boxes"]).reshape(-1, 4)[keep] * zoom
    rows = np.flatnonzero(keep)
    masks = [
        one and enlarged_masks(one, image.shape[:2], enlarged.shape[:2])
        for one in (truth.get("masks"), chosen_masks(detections.get("masks"), rows))
    ]
    left = draw_detections(enlarged, gt_boxes, truth["labels"], None, class_names, masks=masks[0])
    labels = np.asarray(detections["labels"])[keep]
    right = draw_detections(enlarged, boxes, labels, scores[keep], class_names, masks=masks[1])
    font = plain_font(max(14, round(max(size) / 32)))
    bar, gap = 2 * font.size, max(4, font.size // 2)
    sheet = Image.new("RGB", (2 * size[0] + gap, size[1] + round(bar)), "white")
    titles = (f"ground truth: {len(gt_boxes)}", f"detections: {len(boxes)} (score ≥ {min_score:g})")
    for x, panel, title in zip((0, size[0] + gap), (left, right), titles, strict=True):
        sheet.paste(Image.fromarray(panel), (x, round(bar)))
        ImageDraw.Draw(sheet).text((x + gap, bar / 2), title, fill="black", font=font, anchor="lm")
    return np.asarray(sheet)


def _check_masks(masks: np.ndarray | Masks, shape: tuple[int, ...]) -> None:
    if not callable(masks) and np.shape(masks) != shape:
        raise ValueError(
            f"masks must be {shape}, a picture of the image's size for each box, got {np.shape(masks)}: use kfpn.paste_masks"
        )
    if not callable(masks) and np.asarray(masks).dtype.kind == "f":
        raise ValueError(
            f"masks must be bool, got {np.asarray(masks).dtype}: paste them with a threshold, or write masks >= 0.5"
        )


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")


def _draw_box(canvas: ImageDraw.ImageDraw, box: np.ndarray, color: Any, width: int, shape: tuple[int, ...]) -> None:
    y1, x1, y2, x2 = np.clip(box, 0, [shape[0], shape[1], shape[0], shape[1]])
    # Boxes are half-open, so the last pixel inside is one before the end. Pillow refuses an end before its start.
    corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
    canvas.rectangle(corners, outline=color, width=width)


def _draw_text(
    canvas: ImageDraw.ImageDraw,
    places: LabelPlaces,
    row: int,
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    place = places.take(row, height, width)
    if place is None:
        return
    y, x = place
    canvas.rectangle((x, y, x + width, y + height), fill=color)
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 128
    canvas.text((x + 2 - left, y + 2 - top), text, fill="white" if dark else "black", font=font)
