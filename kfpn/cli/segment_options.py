"""Says what `kfpn train --task segments` starts from, and which options of other commands do not go with segments."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kfpn.cli.found_init import option_value
from kfpn.config.run import Config
from kfpn.config.segment_settings import SEGMENT_CHANNELS, require_none_given


def asks_for_segments(args: Sequence[str]) -> bool:
    """Tells whether the line trains what proposes segments."""
    return "segments" in (option_value(args, "task"), option_value(args, "model.task"))


def require_named_preset(args: Sequence[str]) -> None:
    """Checks, for a line that takes the preset `auto`, that it trains a detector: `auto` chooses for nothing else.

    Raises:
        ValueError: for segments.
    """
    if asks_for_segments(args):
        raise ValueError(
            "preset must be named with --task segments, got auto, which chooses for detectors alone: --preset shapes is a small network "
            "that learns from scratch (docs/segments.md)"
        )


def for_segments(config: Config, args: Sequence[str]) -> Config:
    """Returns what a line starts from: with segments the pyramid has the paper's 128 channels, or fewer."""
    if not asks_for_segments(args) or config.model.pyramid_channels <= SEGMENT_CHANNELS:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, pyramid_channels=SEGMENT_CHANNELS))


def require_left_out(command: Any, names: Sequence[str]) -> None:
    """Checks that options of a command that can't do anything with segments are not given.

    Raises:
        ValueError: naming the option.
    """
    require_none_given(command.workdir, {name: getattr(command, name) for name in names})
