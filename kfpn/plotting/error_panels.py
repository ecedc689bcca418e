"""Draws an image twice, with its objects and with its detections, and marks those that went wrong in red."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kfpn.plotting.draw_boxes import draw_detections
from kfpn.plotting.draw_masks import chosen_masks, enlarged_masks

RED = (230, 0, 0)
SMALLEST, LARGEST = 360, 560
"""Pixels of the longer side of a panel: smaller images are enlarged, larger ones made smaller."""
GAP_BETWEEN = 8
"""Pixels between two panels."""


def error_panel(
    image: np.ndarray, drawn: Mapping[str, Any], rows: Sequence[int], wrong: Sequence[int], class_names: Sequence[str]
) -> np.ndarray:
    """Draws boxes and masks on an image that is brought to the size of a panel.

    Args:
        image: (H, W, 3) uint8 RGB.
        drawn: `boxes` (n, 4) yxyx pixels of the image, `labels` (n,), and, if there are any, `scores` (n,) and `masks`, a function of
            the row.
        rows: that are drawn.
        wrong: rows that are marked.
        class_names: the names of the labels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    longer = max(image.shape[:2])
    zoom = min(max(longer, SMALLEST), LARGEST) / longer
    size = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    scale = np.tile(np.array(resized.shape[:2]) / np.array(image.shape[:2]), 2)
    boxes = np.asarray(drawn["boxes"], np.float64).reshape(-1, 4) * scale
    chosen = np.asarray(rows, np.int64)
    masks = chosen_masks(drawn.get("masks"), chosen)
    if masks is not None:
        masks = enlarged_masks(masks, image.shape[:2], resized.shape[:2])
    scores = drawn.get("scores")
    scores = None if scores is None else np.asarray(scores)[chosen]
    panel = draw_detections(
        resized, boxes[chosen], np.asarray(drawn["labels"])[chosen], scores, class_names, text_size=12, masks=masks
    )
    picture = Image.fromarray(panel)
    canvas = ImageDraw.Draw(picture)
    for y1, x1, y2, x2 in boxes[np.asarray(wrong, np.int64)]:
        # Around the box, so that its own colour stays.
        canvas.rectangle((x1 - 3, y1 - 3, max(x1, x2) + 2, max(y1, y2) + 2), outline=RED, width=3)
    return np.asarray(picture)


def in_one_row(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Returns panels of one height side by side, with white between them."""
    between = np.full((panels[0].shape[0], GAP_BETWEEN, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, between)]
    return np.concatenate(parts[:-1], axis=1)
