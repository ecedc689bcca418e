"""Says how large the objects of a data set are and how many an image has, and chooses images that show its classes."""

import numpy as np

from kfpn.config.spread import evenly_spread
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.class_table import count_classes
from kfpn.data.record import Source

_SMALL, _LARGE = 32.0, 96.0
"""Pixels, the sides of COCO's limits between small, medium and large objects."""


def describe_objects(source: Source) -> str:
    """Returns two lines: the sides of the objects, and their number in an image; "" where nothing is known of them.

    Args:
        source: of `open_source`. The side of an object is the root of its box's area.
    """
    if not isinstance(source, AnnotatedSource) or not (~source.annotations.crowd).any():
        return ""
    held = source.annotations
    of_image = held.image_of_box()[~held.crowd]
    boxes = held.boxes[~held.crowd].astype(np.float64)
    side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    share = np.median(side / np.sqrt(source.sizes[of_image].astype(np.float64).prod(axis=1)))
    low, first, half, last, high = np.percentile(side, (0, 5, 50, 95, 100))
    small, large = int((side < _SMALL).sum()), int((side >= _LARGE).sum())
    an_image = np.bincount(of_image, minlength=len(source))
    return (
        f"  sides of objects in pixels: {low:.0f} to {high:.0f}, half of them below {half:.0f} ({share:.0%} of the image's side), nine "
        f"tenths in {first:.0f}..{last:.0f}; small (below 32) {small:,}, medium {len(side) - small - large:,}, large (from 96) {large:,}\n"
        f"  objects an image: {an_image.min()} to {an_image.max()}, {an_image.mean():.1f} on average"
    )


def example_images(source: Source, count: int) -> list[int]:
    """Returns up to `count` indices of images: some for each class, the rarest first, and others evenly spread.

    Args:
        source: the data set.
        count: int, at least 1.
    """
    chosen: list[int] = []
    if isinstance(source, AnnotatedSource):
        held, counts = source.annotations, count_classes(source).objects
        of_image = held.image_of_box()
        for label in sorted(np.flatnonzero(counts).tolist(), key=lambda label: (int(counts[label]), label)):
            images = of_image[(held.labels == label) & ~held.crowd]
            if len(chosen) < (count + 1) // 2 and not np.isin(images, chosen).any():
                chosen.append(int(images[len(images) // 2]))
    rest = [i for i in range(len(source)) if i not in chosen]
    return sorted([*chosen, *(rest[place] for place in evenly_spread(len(rest), count - len(chosen)))])
