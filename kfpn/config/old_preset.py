"""Says in which fields the preset `coco` differs from the recipes that it was taken for."""

import warnings
from typing import Any

from kfpn.config.presets import PRESETS
from kfpn.config.run import Config, to_dict

TAKEN_FOR = ("detectron2_1x", "paper")
"""The presets that people may have meant by `coco`: its help called it the 1x recipe, and README the paper's."""
_SECTIONS = ("model", "input", "sampling", "optimizer")


def coco_warning(config: Config) -> str | None:
    """Returns the warning for a new run with the preset `coco`: what it is not, field by field, and what to use instead.

    Fields that the run's own options or its weights have set are not named.

    Args:
        config: of the run.

    Returns:
        One line; None: it is another preset, or nothing of `coco` is left that differs.
    """
    if config.preset != "coco":
        return None
    coco, mine = _recipe(PRESETS["coco"]), _recipe(config)
    parts = []
    for name in TAKEN_FOR:
        other = _recipe(PRESETS[name])
        fields = [
            f"{field} {_shown(coco[field])} (there {_shown(other[field])})"
            for field in coco
            if coco[field] == mine[field] != other[field]
        ]
        if fields:
            parts.append(f"not {name}, which differs in {', '.join(fields)}")
    if not parts:
        return None
    return (
        f"--preset coco is {'; and '.join(parts)}. It keeps its values in this version and is removed in 0.3.0: use --preset "
        f"{' or '.join(TAKEN_FOR)} for a new run; a run that was begun with it goes on"
    )


def warn_of_coco(config: Config) -> None:
    """Warns, as `coco_warning` says, of a new run with the preset `coco`."""
    if (words := coco_warning(config)) is not None:
        warnings.warn(words, FutureWarning, stacklevel=3)


def _recipe(config: Config) -> dict[str, Any]:
    """Returns the fields that decide what a run learns, by their options' names, but not the number of classes."""
    values = to_dict(config)
    fields = {name: values[name] for name in ("steps", "batch_size")}
    for section in _SECTIONS:
        fields |= {f"{section}.{name}": value for name, value in values[section].items() if name != "num_classes"}
    return fields


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
