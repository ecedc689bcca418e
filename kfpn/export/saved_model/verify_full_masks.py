"""Verifies that a SavedModel's full masks are the masks of its detections, pasted."""

from collections.abc import Mapping, Sequence

import numpy as np

from kfpn.config.model import Pasting
from kfpn.export.saved_model.full_masks import FULL_MASKS
from kfpn.export.verify import ExportMismatch
from kfpn.ops.mask_paste import paste_masks

ROUNDED = 1e-4
"""Share of a mask's pixels that may differ: those whose value is at the threshold, where the last bits of a sum decide."""
FEW = 8
"""Pixels of a mask that may differ in an image of any size."""


def require_pasted(outputs: Mapping[str, np.ndarray], images: Sequence[np.ndarray], rule: Pasting) -> int | None:
    """Compares full masks with the masks (28 x 28) and boxes of the same answer.

    Args:
        outputs: of one signature; without `FULL_MASKS` nothing is compared.
        images: (H, W, 3) each, as they were sent.
        rule: of pasting.

    Returns:
        The number of pixels that differ; None: there are no full masks.

    Raises:
        ExportMismatch: if in a mask more pixels differ than `FEW` and the share `ROUNDED` of it, or one is set in an empty row.
    """
    if FULL_MASKS not in outputs:
        return None
    different = 0
    for i, image in enumerate(images):
        (height, width), count = image.shape[:2], int(outputs["num_detections"][i])
        masks, boxes = (outputs[f"detection_{name}"][i, :count] for name in ("masks", "boxes_pixels"))
        expected = np.zeros(outputs[FULL_MASKS][i].shape, np.uint8)
        expected[:count, :height, :width] = paste_masks(masks, boxes, height, width, rule=rule)
        wrong = (outputs[FULL_MASKS][i] != expected).sum((1, 2))
        if (wrong > FEW + ROUNDED * height * width).any() or wrong[count:].any():
            raise ExportMismatch(
                f"{FULL_MASKS} must be the pasted detection_masks, got one of {height} x {width} with {wrong.max()} other pixels"
            )
        different += int(wrong.sum())
    return different
