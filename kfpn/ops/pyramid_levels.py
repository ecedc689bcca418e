"""Gives the stride, the anchors and the RoIs of each level of a pyramid."""

from collections.abc import Sequence

from kfpn.config.model import ModelConfig


def stride(level: str) -> int:
    """Returns the stride in pixels of a level, "C2" to "C5" or "P2" to "P6": 4 to 64."""
    return 2 ** int(level[1:])


def pooled_levels(config: ModelConfig) -> tuple[str, ...]:
    """Returns the levels that RoIs are pooled from: those of the RPN without P6 (FPN, section 4.2)."""
    return tuple(level for level in config.levels if level != "P6")


def pooled_size(config: ModelConfig) -> int:
    """Returns the cells a side of a pooled RoI: with pyramid c4 the box head halves them (FPN, table 2 a)."""
    return 2 * config.roi_size if config.pyramid == "c4" else config.roi_size


def sizes_by_level(anchor_sizes: Sequence[float], count: int) -> list[tuple[float, ...]]:
    """Returns the anchor sizes of each of `count` levels: one each, or all on a single level (FPN, sections 4.1 and 5.1)."""
    return [tuple(anchor_sizes)] if count == 1 else [(size,) for size in anchor_sizes]


def anchors_a_cell(config: ModelConfig) -> int:
    """Returns the anchors of a cell: aspect ratios times the sizes of a level."""
    return len(config.aspect_ratios) * len(sizes_by_level(config.anchor_sizes, len(config.levels))[0])


def pre_nms(count: int, config: ModelConfig) -> int:
    """Returns how many proposals of a level enter NMS: `count` for each of its anchor sizes.

    A single level, which has the anchors of all sizes, so has as many candidates as all levels of a pyramid
    (detectron2's C4 models have 6000, its FPN 1000 a level).
    """
    return count * len(sizes_by_level(config.anchor_sizes, len(config.levels))[0])
