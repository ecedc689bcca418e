"""Checks the settings of networks that propose segments: their own fields, and what does not go with them."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

from kfpn.config.checks import check, whole

TASKS = ("detections", "segments")
WINDOWS = ("both", "5x5", "7x7")
SEGMENT_CHANNELS = 128
"""Channels of the pyramid where nothing else is said (FPN, section 6)."""
SINGLE_LEVEL_OF_SEGMENTS = "c4"
"""Proposes segments of one size from one level, stride 16, as DeepMask does: an image pyramid finds the other sizes."""
PYRAMIDS_OF_SEGMENTS = ("fpn", "bottom_up", "top_down", SINGLE_LEVEL_OF_SEGMENTS)
"""Each level proposes segments of one size, or with both kinds of windows of two."""


def check_segments(model: Any) -> None:
    """Checks the fields of a `ModelConfig` that say what segments it proposes, and with task segments those that must fit it.

    Raises:
        ValueError: naming the field.
    """
    check(model, "model.", "task", (f"be one of {', '.join(TASKS)}", lambda value: value in TASKS))
    check(model, "model.", "segment_windows", (f"be one of {', '.join(WINDOWS)}", lambda value: value in WINDOWS))
    check(model, "model.", "segment_side segment_width max_segments", whole(1))
    if model.task != "segments":
        return
    if model.mask:
        raise ValueError(
            "model.mask must be off with model.task segments, got on: segments are masks without a mask head, leave --mask out"
        )
    if model.cascade:
        raise ValueError(
            "model.cascade must be off with model.task segments, got on: it is of box heads, and segments have none, leave it out"
        )
    if model.padding != "zero":
        raise ValueError(
            f"model.padding must be zero with model.task segments, got {model.padding}: add --model.padding zero"
        )
    if model.anchor_strides != "level":
        raise ValueError(
            f"model.anchor_strides must be level with model.task segments, got {model.anchor_strides}: windows stand at the strides of their "
            "level, add --model.anchor-strides level"
        )
    if model.pyramid not in PYRAMIDS_OF_SEGMENTS:
        raise ValueError(
            f"model.pyramid must be one of {', '.join(PYRAMIDS_OF_SEGMENTS)} with model.task segments, got {model.pyramid}: fpn has several "
            "levels, each for segments of one size; c4 has one, for an image pyramid"
        )
    if model.pyramid == SINGLE_LEVEL_OF_SEGMENTS:
        _check_one_size(model)


def check_segment_sizes(model: Any) -> None:
    """Checks, with task segments, that each level of a `ModelConfig` is for larger objects than the one before it.

    Raises:
        ValueError: naming the sizes.
    """
    sizes = tuple(model.anchor_sizes)
    if model.task == "segments" and any(larger <= size for size, larger in itertools.pairwise(sizes)):
        raise ValueError(
            f"model.anchor_sizes must rise with model.task segments, got {sizes}: each level is for larger objects than the one before it; "
            "write them from small to large"
        )


def _check_one_size(model: Any) -> None:
    """Checks that a network of one level has one size of objects."""
    if len(model.anchor_sizes) != 1:
        raise ValueError(
            f"model.anchor_sizes must be one number with model.task segments and pyramid c4, got {model.anchor_sizes}: its one level is for "
            "objects of one size, and an image pyramid finds the others, add --model.anchor-sizes 128"
        )
    if model.segment_windows == "both":
        raise ValueError(
            "model.segment_windows must be 5x5 or 7x7 with pyramid c4, got both: its one level is for objects of one size, add "
            "--model.segment-windows 5x5"
        )


def check_segment_run(config: Any) -> None:
    """Checks the options of a `Config` that do not go with segments, if it is of a run that learns them.

    Raises:
        ValueError: naming the option.
    """
    if config.model.task != "segments":
        return
    for name, value, off in (
        ("proposals", config.proposals, "it is for Fast R-CNN, which has an RPN's proposals"),
        ("input.tile", config.input.tile, "segments are not looked for in tiles yet"),
    ):
        if value:
            raise ValueError(f"{name} must be left out with model.task segments, got {value}: {off}")
    if config.sampling.mask_targets != "grid":
        raise ValueError(
            f"sampling.mask_targets must be grid with model.task segments, got {config.sampling.mask_targets}: the targets of windows "
            "are made from the grid alone, add --sampling.mask-targets grid"
        )


def require_none_given(workdir: str | os.PathLike, options: Mapping[str, Any]) -> None:
    """Checks that options which can't do anything with segments are not given for a run that learned them.

    Args:
        workdir: of the run.
        options: name -> value; None and False are not given.

    Raises:
        ValueError: naming the option.
    """
    for name, value in options.items():
        if value not in (None, False):
            option = name.replace("_", "-")
            raise ValueError(
                f"{option} must be left out for {workdir}, got {value}: it was trained with --task segments, for which there is "
                f"no --{option}"
            )
