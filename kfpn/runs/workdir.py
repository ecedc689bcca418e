"""Reads and writes the files of a work directory."""

import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras

from kfpn.config.checks import require_local
from kfpn.config.run import Config, from_dict, to_dict
from kfpn.data.fingerprint import changed_entries
from kfpn.runs.atomic_files import read_json, sync_folder, without_nonfinite, write_aside, write_json
from kfpn.runs.kept_backbone import keep_backbone, with_kept_backbone, with_old_name
from kfpn.runs.other_options import compare_configs, other_options_message

WEIGHTS = "detector.weights.h5"
"""Name of the file of weights for inference."""


class Workdir:
    """Knows the paths of one work directory, and reads and writes its files.

    Args:
        path: the folder; the constructor makes and reads nothing.
    """

    def __init__(self, path: str | os.PathLike):
        require_local("workdir", path)
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
        self.evaluation = self.path / "evaluation.json"
        self.detections = self.path / "detections.json"
        self.report = self.path / "report.html"
        self.thresholds = self.path / "thresholds.json"
        self.minutes = self.path / "minutes.json"
        self.compile = self.path / "compile.json"
        self.lock = self.path / ".lock"

    def check_writable(self) -> None:
        """Makes the folder and checks that files can be written in it.

        Raises:
            ValueError: if the folder can't be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            why = "it is a file" if self.path.is_file() else str(error)
            raise ValueError(f"workdir must be a folder that can be written, got {str(self.path)!r}: {why}") from error

    def read_config(self) -> Config:
        """Returns the configuration of the run. A backbone that is a file is the copy of it that is kept here.

        Raises:
            ValueError: naming the file, if it can't be read, or has an unknown option or a bad value.
        """
        return with_kept_backbone(self.path, self._config_as_written())

    def _config_as_written(self) -> Config:
        try:
            return from_dict(Config, _read_object(self.config))
        except ValueError as error:
            raise ValueError(str(error) if str(self.config) in str(error) else f"{self.config}: {error}") from error

    def read_classes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Returns the class names and the category ids, one of each for a label.

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
        data_fingerprint: dict[str, Any] | None = None,
    ) -> None:
        """Writes config, classes and the fingerprint of the data, after a check that those already there agree.

        Args:
            config: the run's configuration.
            class_names: of the training data.
            category_ids: of the training data.
            data: name of the training data.
            data_fingerprint: `fingerprint` of the training and the validation data; None: the data is not compared.

        Raises:
            ValueError: naming each field that differs with its old and new value, or what changed in the training data.
        """
        classes = {
            "class_names": list(class_names),
            "category_ids": [int(i) for i in category_ids],
            "data": data,
        }
        # A run that failed before it kept anything does not prevent a new start with corrected options.
        is_begun = self.config.exists() and self.holds_training()
        keep_backbone(self.path, config.model.backbone, is_begun)
        if is_begun:
            config = with_old_name(config, self._config_as_written())
            self._require_same_options(config, classes)
            if data_fingerprint is not None and self.data.exists():
                self._require_same_data(data_fingerprint, data)
            self._require_checkpoints()
        write_json(self.classes, classes)
        if data_fingerprint is not None:
            write_json(self.data, data_fingerprint)
        # A profile is of one start of the run, and no part of the run.
        write_json(self.config, to_dict(config) | {"profile": None})

    def keep_steps(self, steps: int) -> None:
        """Writes the steps that a run of given minutes has planned into its configuration."""
        write_json(self.config, _read_object(self.config) | {"steps": steps})

    def _require_same_options(self, config: Config, classes: dict[str, Any]) -> None:
        old = self._config_as_written()
        changed = compare_configs(to_dict(old), to_dict(config))
        if self.classes.exists():
            old_classes = _read_object(self.classes)
            changed += [
                f"{key}: {old_classes.get(key)} -> {classes[key]}"
                for key in classes
                if key != "data" and old_classes.get(key) != classes[key]
            ]
        if changed:
            raise ValueError(other_options_message(self.path, changed))
        if config.model.norm in ("bn", "sync_bn") and config.accumulate != old.accumulate:
            warnings.warn(
                f"accumulate: {old.accumulate} -> {config.accumulate}: the statistics of model.norm {config.model.norm} are "
                "those of a part of the batch, so the run is another one from here on",
                stacklevel=3,
            )

    def _require_checkpoints(self) -> None:
        """Refuses to begin again at step 0 over the weights of a run that has lost its checkpoints."""
        finished = self.final.exists() or not self.metrics.exists()
        if self.weights.exists() and finished and not self.has_checkpoints():
            raise ValueError(
                f"workdir must hold the checkpoints of its run, got {str(self.path)!r}, which holds weights and no checkpoints: "
                f"training would begin anew and replace them. Use another --workdir; --init {self.path} trains further from "
                "these weights"
            )

    @contextmanager
    def removed_if_unused(self) -> Iterator[None]:
        """Removes the folder after an error, if nothing but a lock is in it: a run that was refused leaves nothing behind."""
        try:
            yield
        except (ValueError, OSError):
            if all(file == self.lock for file in self.path.iterdir()):
                self.lock.unlink(missing_ok=True)
                self.path.rmdir()
            raise

    def _require_same_data(self, data_fingerprint: dict[str, Any], data: str) -> None:
        before, now = _read_object(self.data), data_fingerprint
        (old, old_validation), (new, new_validation) = _split_fingerprint(before), _split_fingerprint(now)
        if changed := changed_entries(old, new):
            raise ValueError(
                f"{data} must hold what it held when {self.path} began, got changes in {', '.join(changed)}: a run is a "
                f"function of its data. Bring the old data back to go on, or start anew from these weights with --init "
                f"{self.path} and another --workdir"
            )
        # Validation data acts on no weights, only on which of them are the best.
        if changed := changed_entries(old_validation, new_validation):
            warnings.warn(
                f"the validation data changed since {self.path} began, in {', '.join(changed)}: AP from here on is not that of "
                "before, and the best weights so far were chosen on the old data",
                stacklevel=4,
            )

    def has_checkpoints(self) -> bool:
        """Tells whether there is a checkpoint to go on from."""
        return any(self.checkpoints.glob("step_*.npz"))

    def holds_training(self) -> bool:
        """Tells whether a run has kept anything here: weights or a checkpoint."""
        return self.weights.exists() or self.has_checkpoints()

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds a row to metrics.jsonl; NaN and inf become null, because JSON does not have them."""
        left = (json.dumps(without_nonfinite(row)) + "\n").encode()
        # There is no buffer, because a buffer would write its rest again when the file is closed.
        with open(self.metrics, "ab", buffering=0) as file:
            before = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:  # The next row must not follow a part of this one.
                os.truncate(self.metrics, before)
                raise

    def drop_metrics_after(self, step: int, evaluated: int) -> None:
        """Drops the rows that a resumed run writes again, and a last row that is incomplete.

        Args:
            step: the last step whose row of training metrics stays.
            evaluated: the last step whose row of an evaluation stays: one with AP, or with the name of the figure that decides.
        """
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                last = evaluated if isinstance(row, dict) and {"AP", "best_by"} & row.keys() else step
                if isinstance(row, dict) and row.get("step", math.inf) <= last:
                    kept.append(line + "\n")
        write_aside(self.metrics, "".join(kept))

    def save_weights(self, weights_model: keras.Model) -> None:
        """Writes the weights for inference aside and renames them.

        Raises:
            OSError: if they can't be written, for example on a full disk; the old weights stay as they are.
        """
        aside = self.path / f"aside.{WEIGHTS}"
        try:
            weights_model.save_weights(aside)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, self.weights)
        except (OSError, RuntimeError) as error:  # HDF5 raises one or the other when the disk is full.
            aside.unlink(missing_ok=True)
            raise OSError(f"{self.weights} can't be written: {error}") from error
        sync_folder(self.path)
        if self.thresholds.exists():
            self.thresholds.unlink(missing_ok=True)
            warnings.warn(
                f"{self.thresholds} is void and was removed: the weights are new; kfpn evaluate --workdir {self.path} "
                "--best-thresholds makes it anew",
                stacklevel=2,
            )


def _split_fingerprint(both: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fingerprint of the training data and that of the validation data."""
    return {name: value for name, value in both.items() if name != "validation"}, both.get("validation") or {}


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got a {type(content).__name__}")
    return content
