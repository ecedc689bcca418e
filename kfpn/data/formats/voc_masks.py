"""Reads the masks of Pascal VOC: SegmentationObject/NAME.png, whose pixel i + 1 is the annotation's object i, and 255 a border."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.mask_content import NOTHING, pack_bitmap
from kfpn.data.mask_faults import OTHER_SIZE, UNREADABLE, usable_mask
from kfpn.data.upright_masks import upright_mask

BORDER = 255
OTHER_COUNT = "pictures of masks with more numbers than the annotation has objects, left out"
NO_NUMBER = "pictures of masks without a pixel of an object (0 is outside, 255 a border), left out"


def masks_of_pictures(
    pictures: Sequence[Path | None],
    counts: np.ndarray,
    frames: np.ndarray,
    turned: np.ndarray,
    boxes: np.ndarray,
    faults: AnnotationFaults,
) -> list[bytes]:
    """Returns the masks of all objects, image after image, in the order of their annotations; empty where one has none.

    Args:
        pictures: of N images; None: there is none.
        counts: (N,) objects of each image.
        frames: (N, 2) height and width of each image after EXIF rotation.
        turned: (N,) EXIF orientation of images whose annotations lie in the stored pixels, else 1.
        boxes: (M, 4) yxyx of all objects, image after image, in the pixels that the annotations lie in.
        faults: counts the pictures that are left out.
    """
    masks: list[bytes] = []
    for i, picture in enumerate(pictures):
        frame = (int(frames[i, 0]), int(frames[i, 1]))
        numbers = _object_numbers(picture, int(counts[i]), frame, int(turned[i]), faults)
        for number in range(1, int(counts[i]) + 1):
            drawn = numbers == number if numbers is not None else np.zeros((0, 0), bool)
            packed = pack_bitmap(drawn) if drawn.any() else NOTHING
            usable = usable_mask(packed, drawn.shape, f"{picture}: object {number}", faults, boxes[len(masks)])
            masks.append(upright_mask(usable, frame, int(turned[i])))
    return masks


def _object_numbers(
    picture: Path | None, count: int, frame: tuple[int, ...], turned: int, faults: AnnotationFaults
) -> np.ndarray | None:
    """Returns the number of the object of each pixel, (H, W); None where the picture can't be used."""
    if picture is None or not count:
        return None
    try:
        with Image.open(picture) as opened:
            if opened.mode not in ("P", "L"):
                faults.add(UNREADABLE, f"{picture} must have a palette or be gray, got mode {opened.mode}")
                return None
            size = opened.height, opened.width
            if size != (frame[::-1] if turned >= 5 else frame):
                faults.add(OTHER_SIZE, f"{picture}: {size[1]} x {size[0]} for an image of {frame[1]} x {frame[0]}")
                return None
            numbers = np.asarray(opened)
    except Exception as error:  # Pillow's readers raise errors of many kinds on a damaged file
        faults.add(UNREADABLE, f"{picture} must be a picture, got {type(error).__name__}")
        return None
    numbers = np.where(numbers == BORDER, 0, numbers)
    if int(numbers.max()) > count:
        faults.add(OTHER_COUNT, str(picture))
        return None
    if not numbers.any():
        faults.add(NO_NUMBER, str(picture))
        return None
    return numbers
