"""Defines how images become network input, and what chance changes of them in training."""

import dataclasses
import re

from kfpn.config.checks import SHARE, SHARE_ABOVE_0, check, is_int, whole
from kfpn.config.field_types import require_types


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How images become network input."""

    short_side: int = 800
    """The shorter side of an image is resized to this many pixels, unless `long_side` forbids it."""
    long_side: int = 1333
    """The longer side has at most this many pixels; where it would have more, the image is made smaller."""
    train_short_sides: tuple[int, ...] = ()
    """Training: each image's short side is drawn from these (detectron2: 640 672 704 736 768 800), while `long_side` stays as it
    is. None of them (the option without values): always `short_side`, which evaluation and prediction have in any case."""
    keep_empty: bool = True
    """Training: images without a box to learn from (none at all, or crowd alone) are trained on too; without, they are left out."""
    repeat_threshold: float = 0.0
    """Training: images with a class that fewer than this share of the images have are taken more often, sqrt(threshold / share)
    times (LVIS: 0.001). 0: each image once an epoch."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Training: the resized size is multiplied by a factor drawn from this range."""
    large_scale_jitter: tuple[float, ...] = ()
    """Training: LOW HIGH, the image is drawn at a factor from this range; what passes its plain size is cut off at a place that chance
    chooses (Ghiasi et al. 2021: 0.1 2). Canvases don't grow, unlike with `scale_jitter`. None (the option without values): off."""
    tile: int = 0
    """Training: the side, in an image's own pixels, of a square part that is drawn from it each time and resized as a whole image is:
    for large photographs of small objects (docs/tiles.md). 0: the whole image."""
    crop: float = 0.0
    """Training: probability of a random crop, which is enlarged to the size that the whole image would have."""
    crop_area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image's area in a crop."""
    crop_keep: float = 0.3
    """Objects stay, with their boxes cut, if at least this share of their area is in the crop (of large_scale_jitter too)."""
    flip: float = 0.5
    """Training: probability of a horizontal flip."""
    flip_vertical: float = 0.0
    """Training: probability of a vertical flip, for pictures from above or through a microscope."""
    turn: float = 0.0
    """Training: probability of a turn by 90, 180 or 270 degrees, each as likely. A turned image is made to fit its canvas."""
    copy_paste: float = 0.0
    """Training with masks: probability that objects of another image, cut out by their masks, are pasted into an image (Ghiasi et al.
    2021)."""
    color_jitter: tuple[float, ...] = ()
    """Training: one strength from 0 to 1, or four: brightness, contrast, saturation, hue (hue at most 0.5; of one strength it is a
    quarter). None (the option without values): off."""
    divisor: int = 32
    """Batches are padded below and right to a multiple of this many pixels."""
    max_canvases: int = 6
    """Images are grouped by their shape into at most this many padded sizes. Each costs a compilation of the step at every start;
    fewer sizes have more padding."""

    def __post_init__(self) -> None:
        require_types(self, "input.")
        check(self, "input.", "short_side", whole(32))
        above = ("be an integer not below input.short_side", lambda v: is_int(v) and v >= self.short_side)
        check(self, "input.", "long_side", above)
        sides = lambda v: all(is_int(side) and 32 <= side <= self.long_side for side in v)  # noqa: E731
        check(self, "input.", "train_short_sides", ("be integers from 32 to input.long_side, or none", sides))
        jitter = ("be LOW HIGH with 0.1 <= LOW <= HIGH <= 10", lambda v: len(v) == 2 and 0.1 <= v[0] <= v[1] <= 10.0)
        check(self, "input.", "scale_jitter", jitter)
        large = (f"{jitter[0]}, or nothing", lambda v: len(v) == 0 or jitter[1](v))
        check(self, "input.", "large_scale_jitter", large)
        if self.large_scale_jitter and tuple(self.scale_jitter) != (1.0, 1.0):
            raise ValueError(
                f"input.scale_jitter must be 1 1 with input.large_scale_jitter, got {self.scale_jitter}: leave one of them out"
            )
        tile = ("be an integer of at least 32, or 0 for none", lambda v: is_int(v) and (v == 0 or v >= 32))
        check(self, "input.", "tile", tile)
        area = ("be LOW HIGH with 0.01 <= LOW <= HIGH <= 1", lambda v: len(v) == 2 and 0.01 <= v[0] <= v[1] <= 1.0)
        check(self, "input.", "crop_area", area)
        check(self, "input.", "crop_keep", SHARE_ABOVE_0)
        check(self, "input.", "flip flip_vertical crop turn copy_paste repeat_threshold", SHARE)
        strength = "be one strength in 0..1, or four of which the last, hue, lies in 0..0.5, or nothing"
        check(self, "input.", "color_jitter", (strength, _is_color_jitter))
        check(self, "input.", "divisor max_canvases", whole(1))

    def moves_boxes(self) -> str | None:
        """Returns the first option in force, other than `flip` and `scale_jitter`, by which training moves boxes; None: there is none."""
        names = ("tile", "crop", "large_scale_jitter", "flip_vertical", "turn", "copy_paste")
        return next((f"input.{name}" for name in names if getattr(self, name)), None)


def _is_color_jitter(values: tuple[float, ...]) -> bool:
    return len(values) in (0, 1, 4) and all(0.0 <= v <= 1.0 for v in values) and (len(values) < 4 or values[3] <= 0.5)


def require_function_name(augment: str | None) -> None:
    """Checks the form of `Config.augment`; the module is looked for later.

    Raises:
        ValueError: if it is not module:function.
    """
    name = r"[^\W\d]\w*"
    if augment is None:
        return
    path = re.fullmatch(rf"(?:\./)?({name}(?:[./]{name})*)\.py:({name})", augment)
    if not path and re.fullmatch(rf"{name}(\.{name})*:{name}", augment):
        return
    hint = f"write {path[1].replace('/', '.')}:{path[2]}" if path else "my_augment:change is change in my_augment.py"
    raise ValueError(f"augment must be module:function, got {augment!r}: {hint}")
