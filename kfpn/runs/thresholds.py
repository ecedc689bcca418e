"""Keeps each class's score threshold in a work directory, and tells whether it still belongs to the weights."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from kfpn.config.checks import SHARE
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.workdir import Workdir


def weights_digest(workdir: Workdir) -> str:
    """Returns the SHA-256 of a work directory's weights for inference."""
    with open(workdir.weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_thresholds(workdir: Workdir, rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
    """Writes thresholds.json.

    Args:
        workdir: of the model.
        rows: one mapping a label, with its `name` and its `threshold`; other entries are for people.
        measured: what they were measured on and with; `weights` is the `weights_digest` of the model.

    Raises:
        OSError: if the file can't be written.
    """
    write_json(workdir.thresholds, {**measured, "classes": list(rows)})


def read_thresholds(workdir: Workdir) -> tuple[float, ...] | None:
    """Returns the threshold of each label; None, where there are none or where they belong to other weights.

    The latter is warned of.

    Raises:
        ValueError: if thresholds.json is damaged, or its classes are not those of the work directory.
    """
    if not workdir.thresholds.exists():
        return None
    kept = read_json(workdir.thresholds)
    rows = kept.get("classes") if isinstance(kept, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_share(row.get("threshold")) for row in rows):
        raise ValueError(
            f"{workdir.thresholds} must hold a threshold of 0..1 for each class, got something else: remove it, or make it "
            f"anew with {threshold_command(workdir)}"
        )
    names = [row.get("name") for row in rows]
    if names != list(workdir.read_classes()[0]):
        raise ValueError(
            f"{workdir.thresholds} must have the classes of {workdir.classes}, got {', '.join(map(str, names[:8]))}: make it "
            f"anew with {threshold_command(workdir)}"
        )
    if kept.get("weights") != weights_digest(workdir):
        warnings.warn(
            f"{workdir.thresholds} is void: it belongs to other weights; {threshold_command(workdir)} makes it anew",
            stacklevel=2,
        )
        return None
    return tuple(float(row["threshold"]) for row in rows)


def require_thresholds(workdir: Workdir) -> tuple[float, ...]:
    """Returns the threshold of each label.

    Raises:
        ValueError: if there are none that belong to the weights; names the command that makes them.
    """
    thresholds = read_thresholds(workdir)
    if thresholds is None:
        raise ValueError(
            f"workdir must have the best thresholds of its classes, got {str(workdir.path)!r} without "
            f"{'valid ' if workdir.thresholds.exists() else ''}{workdir.thresholds.name}: {threshold_command(workdir)} makes it"
        )
    return thresholds


def threshold_command(workdir: Workdir) -> str:
    """Returns the command that makes the thresholds of a work directory."""
    return f"kfpn evaluate --workdir {workdir.path} --best-thresholds"


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and SHARE[1](value)
