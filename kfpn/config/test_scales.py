"""Reads and checks the sizes of an image pyramid, and gives the resize rule of each."""

import dataclasses
from collections.abc import Sequence

from kfpn.config.run import InputConfig

SMALLEST = 32
"""The least short side in pixels, as `InputConfig` has it."""


def parse_scales(text: str | None) -> tuple[int, ...]:
    """Returns the sizes that an option like `480,640,800` names; an empty tuple for None.

    Raises:
        ValueError: as `checked_scales`, and for text that is not whole numbers.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"scales must be whole numbers separated by commas, like 480,640,800, got {text!r}")
    return checked_scales([int(part) for part in parts])


def checked_scales(scales: Sequence[int]) -> tuple[int, ...]:
    """Returns sizes, short sides in pixels, as a tuple.

    Raises:
        ValueError: if one is not an integer of at least 32, or stands there twice.
    """
    shown = ",".join(map(str, scales))
    if any(type(scale) is not int or scale < SMALLEST for scale in scales):
        raise ValueError(f"scales must be integers of at least {SMALLEST} (pixels of the short side), got {shown}")
    if len(set(scales)) < len(scales):
        raise ValueError(f"scales must differ from each other, got {shown}")
    return tuple(scales)


def scaled_input(config: InputConfig, scale: int) -> InputConfig:
    """Returns the resize rule at another size, in which the two limits keep their proportion.

    An image that is limited by its long side at the run's own size is so at every size, so that a size means the same for
    all images. (detectron2 has one limit for all sizes instead, TEST.AUG.MAX_SIZE.)

    Args:
        config: the run's own rule.
        scale: int, pixels of the short side. The long side becomes long_side x scale / short_side, rounded.
    """
    long_side = round(config.long_side * scale / config.short_side)
    # The sizes of training would not fit below another `long_side`, and nothing is trained at a scale.
    return dataclasses.replace(config, short_side=scale, long_side=long_side, train_short_sides=())
