"""The work directory: what a run leaves behind, and what is read from it again."""

import json
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kfpn.config.run import Config, from_dict, to_dict
from kfpn.data.fingerprint import changed_entries
from kfpn.runs.atomic_files import plain, read_json, sync_folder, write_aside, write_json

MAY_DIFFER = (
    "workdir",
    "preset",
    "strategy",
    "cross_device",
    "accumulate",
    "jit_compile",
    "on_nan",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "samples",
)
"""Fields that a resumed run may change: they don't act on the weights (`accumulate` does with batch norms: it is warned of)."""

WEIGHTS = "detector.weights.h5"


class Workdir:
    """Paths and files of one work directory.

    Args:
        path: the folder; nothing is made or read before `prepare`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.classes = self.path / "classes.json"
        self.metrics = self.path / "metrics.jsonl"
        self.final = self.path / "final.json"
        self.weights = self.path / WEIGHTS
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.samples = self.path / "samples"
        self.curves = self.path / "curves.png"
        self.data = self.path / "data.json"
        self.nan = self.path / "nan"
        self.lock = self.path / ".lock"

    def check_writable(self) -> None:
        """Makes the folder.

        Raises:
            ValueError: if it can't be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            why = "it is a file" if self.path.is_file() else str(error)
            raise ValueError(f"workdir must be a folder that can be written, got {str(self.path)!r}: {why}") from error

    def read_config(self) -> Config:
        """Returns the configuration of the run.

        Raises:
            ValueError: naming the file, if it can't be read, or holds an unknown option or a bad value.
        """
        try:
            return from_dict(Config, _read_object(self.config))
        except ValueError as error:
            named = str(error) if str(self.config) in str(error) else f"{self.config}: {error}"
            raise ValueError(named) from error

    def read_classes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Returns the names and category ids of the labels.

        Raises:
            ValueError: naming the file, if it can't be read or lacks them.
        """
        classes = _read_object(self.classes)
        if not all(isinstance(classes.get(key), list) for key in ("class_names", "category_ids")):
            raise ValueError(
                f"{self.classes} must have lists class_names and category_ids, got {', '.join(classes) or 'none'}"
            )
        return tuple(classes["class_names"]), tuple(classes["category_ids"])

    def prepare(
        self,
        config: Config,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        data: str,
        found: dict[str, Any] | None = None,
    ) -> None:
        """Writes config, classes and what the data held, or checks that those already there agree.

        Args:
            config: of the run.
            class_names: of the training data.
            category_ids: of the training data.
            data: its name.
            found: its `fingerprint`, with that of the validation data, a change in which is warned of: it acts on
                no weights, but on which are the best; None: the data is not looked at.

        Raises:
            ValueError: naming each field that differs, the old and the new value, or what changed in the data.
        """
        classes = {
            "class_names": list(class_names),
            "category_ids": [int(i) for i in category_ids],
            "data": data,
        }
        # A run that failed before it had anything to keep does not stand in the way of corrected options.
        if self.config.exists() and self._holds_training():
            began = self.read_config()
            differences = compare_configs(to_dict(began), to_dict(config))
            if self.classes.exists():
                old = _read_object(self.classes)
                differences += [
                    f"{k}: {old.get(k)} -> {classes[k]}" for k in classes if k != "data" and old.get(k) != classes[k]
                ]
            if differences:
                raise ValueError(
                    f"{self.path} was made with other options: {'; '.join(differences)}. "
                    "Use the same options to go on, or another --workdir to start anew"
                )
            if config.model.norm in ("bn", "sync_bn") and config.accumulate != began.accumulate:
                warnings.warn(
                    f"accumulate: {began.accumulate} -> {config.accumulate}: the statistics of model.norm {config.model.norm} are "
                    "those of a part of the batch, so the run is another one from here on",
                    stacklevel=2,
                )
            if found is not None and self.data.exists():
                self._require_same_data(found, data)
        write_json(self.classes, classes)
        if found is not None:
            write_json(self.data, found)
        write_json(self.config, to_dict(config))

    def _require_same_data(self, found: dict[str, Any], data: str) -> None:
        (old, old_validation), (new, new_validation) = map(_apart, (_read_object(self.data), found))
        if changed := changed_entries(old, new):
            raise ValueError(
                f"{data} must hold what it held when {self.path} began, got changes in {', '.join(changed)}: a run is a "
                f"function of its data. Bring the old data back to go on, or start anew from these weights with --init "
                f"{self.path} and another --workdir"
            )
        if changed := changed_entries(old_validation, new_validation):
            warnings.warn(
                f"the validation data changed since {self.path} began, in {', '.join(changed)}: AP from here on is not that of "
                "before, and the best weights so far were chosen on the old data",
                stacklevel=4,
            )

    def has_checkpoints(self) -> bool:
        """Whether a run can go on from here."""
        return any(self.checkpoints.glob("step_*.npz"))

    def _holds_training(self) -> bool:
        return self.weights.exists() or self.has_checkpoints()

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds a row to metrics.jsonl; NaN and inf become null, which JSON has."""
        left = (json.dumps(plain(row)) + "\n").encode()
        with open(self.metrics, "ab", buffering=0) as file:  # a buffer would write its rest again when closed
            before = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:  # the next row must not stand behind half of this one
                os.truncate(self.metrics, before)
                raise

    def drop_metrics_after(self, step: int, evaluated: int) -> None:
        """Drops rows that a resumed run will write again, and a last row cut short.

        Args:
            step: last step whose training rows stay.
            evaluated: last step whose evaluation row stays.
        """
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and row.get("step", math.inf) <= (evaluated if "AP" in row else step):
                kept.append(line + "\n")
        write_aside(self.metrics, "".join(kept))

    def save_weights(self, weights_model: keras.Model) -> None:
        """Writes the weights for inference aside and renames them.

        Raises:
            OSError: if they can't be written, as on a full disk; those already there stay as they are.
        """
        aside = self.path / f"aside.{WEIGHTS}"
        try:
            weights_model.save_weights(aside)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, self.weights)
        except (OSError, RuntimeError) as error:  # HDF5 has both for a disk that is full
            aside.unlink(missing_ok=True)
            raise OSError(f"{self.weights} can't be written: {error}") from error
        sync_folder(self.path)


def compare_configs(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lists what keeps a run from going on under another configuration.

    Args:
        old, new: from `kfpn.config.run.to_dict`.

    Returns:
        `name: old -> new` of each field that differs and is not in `MAY_DIFFER`.
    """
    before, after = _flat(old), _flat(new)
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in MAY_DIFFER
    ]


def _apart(known: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the training data's fingerprint and the validation data's."""
    return {name: value for name, value in known.items() if name != "validation"}, known.get("validation") or {}


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got a {type(content).__name__}")
    return content


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
