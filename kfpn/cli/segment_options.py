"""Says what `kfpn train --task segments` starts from, and which options of other commands do not go with segments."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kfpn.cli.found_init import option_value
from kfpn.config.model import Task
from kfpn.config.run import Config
from kfpn.config.segment_settings import SEGMENT_CHANNELS, require_none_given

RATES = {"shapes": 0.2, "paper": 0.03}
"""Preset -> learning rate of segments; detectors have .1 and .02. With `shapes`, AR@100 after 900 steps was .387 with .1, .396 with .3 and
.364 with .5; docs/segments.md has longer runs. That of `paper` is from the paper's appendix B."""


def task_of_line(args: Sequence[str]) -> Task:
    """Returns what the network of a line gives: segments, or detections."""
    return "segments" if "segments" in (option_value(args, "task"), option_value(args, "model.task")) else "detections"


def for_segments(config: Config, args: Sequence[str]) -> Config:
    """Returns what a line starts from.

    With segments the pyramid has the paper's 128 channels, or fewer, and two presets have another learning rate.
    """
    if task_of_line(args) == "detections":
        return config
    channels = min(config.model.pyramid_channels, SEGMENT_CHANNELS)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, pyramid_channels=channels))
    rate = RATES.get(config.preset, config.optimizer.learning_rate)
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=rate))


def require_left_out(command: Any, names: Sequence[str]) -> None:
    """Checks that options of a command that can't do anything with segments are not given.

    Raises:
        ValueError: naming the option.
    """
    require_none_given(command.workdir, {name: getattr(command, name) for name in names})
