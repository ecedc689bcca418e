"""Draws an image with its objects or its detections, and marks those that went wrong with black and white frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kfpn.plotting.draw_boxes import draw_detections
from kfpn.plotting.draw_masks import chosen_masks, enlarged_masks

MARKS = (("white", 2), ("black", 4))
"""Colour and distance from the box in pixels of the two lines of a mark: no class has these colours."""
SMALLEST, LARGEST = 420, 560
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
    picture = Image.fromarray(resized)
    canvas = ImageDraw.Draw(picture)
    for y1, x1, y2, x2 in boxes[np.asarray(wrong, np.int64)]:
        for color, apart in MARKS:  # around the box and under the names, so that both stay
            corners = (x1 - apart, y1 - apart, max(x1, x2) + apart - 1, max(y1, y2) + apart - 1)
            canvas.rectangle(corners, outline=color, width=2)
    marked, labels = np.asarray(picture), np.asarray(drawn["labels"])[chosen]
    return draw_detections(marked, boxes[chosen], labels, scores, class_names, text_size=12, masks=masks)


def in_one_row(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Returns panels of one height side by side, with white between them."""
    between = np.full((panels[0].shape[0], GAP_BETWEEN, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, between)]
    return np.concatenate(parts[:-1], axis=1)
