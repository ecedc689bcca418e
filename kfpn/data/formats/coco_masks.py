"""Gives each object of COCO's JSON its mask, in the image after EXIF rotation."""

from collections.abc import Callable

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.formats.coco_json import Rows
from kfpn.data.formats.coco_outlines import MASK, PackedMask
from kfpn.data.mask_faults import UNREADABLE, usable_mask
from kfpn.data.upright_masks import upright_mask


def masks_of_annotations(
    annotations: Rows,
    boxes: np.ndarray,
    frames: np.ndarray,
    turned: np.ndarray,
    where: Callable[[int], str],
    faults: AnnotationFaults,
) -> list[bytes]:
    """Returns the mask of each object as `RawObjects` has it; empty where it has none that can be used.

    Args:
        annotations: M, those of the objects, read with masks.
        boxes: (M, 4) yxyx in the pixels that the annotations lie in.
        frames: (M, 2) height and width of each one's image after EXIF rotation.
        turned: (M,) EXIF orientation of images whose annotations lie in the stored pixels, else 1.
        where: function of m, what messages call the image of annotation m.
        faults: counts the masks that are left out.
    """
    masks = []
    for m, annotation in enumerate(annotations):
        packed: PackedMask = annotation.get(MASK, PackedMask())
        what = f"annotation {annotation.get('id', m)} of {where(m)}"
        if packed.fault:
            faults.add(UNREADABLE, f"{what} must {packed.fault}")
        height, width = (int(side) for side in frames[m])
        stored = (width, height) if turned[m] >= 5 else (height, width)
        content = usable_mask(packed.content, stored, what, faults, boxes[m])
        masks.append(upright_mask(content, (height, width), int(turned[m])))
    return masks
