"""Compares the options of a run with those it was begun with, and says what to do where they differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAY_DIFFER = (
    "workdir",
    "check_images",
    "preset",
    "strategy",
    "cross_device",
    "cpu_devices",
    "accumulate",
    "compile",
    "jit_compile",
    "deterministic",
    "on_nan",
    "eval_every",
    "eval_batch_size",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "profile",
    "samples",
    "report",
    "model.max_detections",
    "model.max_segments",
    "patience",
    "val_loss",
)
"""Fields that a resumed run may change, because they do not act on the weights.

`model.max_detections` and `model.max_segments` act on what the weights find, and so on which of them are the best. `accumulate` does act on
the weights with batch norms: a change is warned of.
"""

_BATCH_NORMS = ("bn", "sync_bn")
"""Norms that are one: on several replicas bn is computed as sync_bn, and on one replica they are equal."""


def compare_configs(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lists the differences that keep a run from going on with another configuration.

    Args:
        old, new: from `kfpn.config.run.to_dict`.

    Returns:
        `name: old -> new` for each field that differs and is not in `MAY_DIFFER`.
    """
    before, after = _flat(old), _flat(new)
    if before.get("model.norm") in _BATCH_NORMS and after.get("model.norm") in _BATCH_NORMS:
        after["model.norm"] = before["model.norm"]
    if before.get("minutes") is not None and before["minutes"] == after.get("minutes"):
        after["steps"] = before["steps"]  # They are what was planned so far.
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in MAY_DIFFER
    ]


def other_options_message(workdir: Path, changed: Sequence[str]) -> str:
    """Returns the error for a run that was begun with other options.

    Args:
        workdir: the run's folder.
        changed: of `compare_configs`.
    """
    why = ""
    for name in ("minutes", "steps"):
        if any(entry.startswith(f"{name}: ") for entry in changed):
            why = f" ({name} set the learning rate of every step, so a run can't be made longer)"
    return (
        f"{workdir} was made with other options: {'; '.join(changed)}. Use the same options to go on{why}, or another --workdir "
        f"to start anew; --init {workdir} with another --workdir trains further from these weights"
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
