"""Saves and restores checkpoints: one complete file each, with everything that a restart needs."""

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfpn.runs.atomic_files import sync_folder

_META = "progress"


@dataclasses.dataclass
class Progress:
    """Holds how far a run is.

    Attributes:
        step: number of optimizer steps taken.
        seconds: time of training, without evaluations.
        evaluated: step of the last complete evaluation; 0: there was none.
        last: figures of the last evaluation, or {}.
        best_step: step of the best evaluation; 0: there was none.
        best: figures of the best evaluation, or {}.
        logged: the last row of training metrics, or {}.
        pending: metrics of each step since that row.
        stale: number of evaluations since the best one.
        spent: seconds that the run took so far, all included, where it has `minutes`; else 0.
        decisions: how it planned its steps then, see `kfpn.training.step_plan.Decision`; else [].
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: int = 0
    last: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int = 0
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    logged: dict[str, Any] = dataclasses.field(default_factory=dict)
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)
    stale: int = 0
    spent: float = 0.0
    decisions: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """Saves, restores and prunes the checkpoints of a work directory, such as `checkpoints/step_00001000.npz`.

    Args:
        folder: is made when the first checkpoint is saved.
        variables: name -> variable, the whole state of the run.
        keep: number of newest files to keep; the file of the best step is kept as well.
    """

    def __init__(self, folder: str | os.PathLike, variables: Mapping[str, keras.Variable], keep: int = 3):
        self.folder = Path(folder)
        self.variables = dict(variables)
        self.keep = keep

    def save(self, progress: Progress) -> Path:
        """Writes the checkpoint of `progress.step` aside, renames it, and deletes the files that are no longer kept.

        Args:
            progress: of the run.

        Returns:
            The path of the file.

        Raises:
            ValueError: if a variable is not finite; the other files stay as they are.
            OSError: if the file can't be written, for example on a full disk; the other files stay as they are.
        """
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        bad = [self.variables[name].path for name, value in arrays.items() if not np.isfinite(value).all()]
        if bad:
            raise ValueError(
                f"no checkpoint at step {progress.step}: values must be finite, got NaN or inf in {bad[0]}"
                + (f" and {len(bad) - 1} more" if bad[1:] else "")
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()  # This makes room on the disk before it is needed.
        path = self._path(progress.step)
        arrays[_META] = np.array(json.dumps(dataclasses.asdict(progress)))
        aside = path.with_suffix(".tmp")
        try:
            with open(aside, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        self._prune(progress)
        return path

    def restore(self) -> Progress:
        """Loads the newest checkpoint that can be read into the variables.

        Returns:
            The progress of the checkpoint; if there is no checkpoint, the progress of a run that begins.

        Raises:
            ValueError: if the variables or the progress of a file are not those of this run, or if no file can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                arrays = self._read(self._path(step))
            except Exception as error:  # zipfile and NumPy raise errors of many types for a flipped bit.
                warnings.warn(f"{self._path(step)} is damaged ({error}); trying the one before it", stacklevel=2)
                continue
            progress = _read_progress(arrays.pop(_META), step, self._path(step))
            self._assign(arrays, self._path(step))
            return progress
        if steps:
            raise ValueError(
                f"a checkpoint in {self.folder} must be readable, got {len(steps)} damaged; remove them to start again"
            )
        return Progress()

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"step_(\d+)\.npz", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.npz"

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        # Reading an array also checks its CRC, so every array is read.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if _META not in arrays:
            raise ValueError("not a checkpoint of kfpn")
        return arrays

    def _assign(self, arrays: dict[str, np.ndarray], path: Path) -> None:
        missing = sorted(self.variables.keys() - arrays.keys())
        unknown = sorted(arrays.keys() - self.variables.keys())
        if missing or unknown:
            raise ValueError(
                f"variables of {path} must be those of this run, got {len(missing)} missing {missing[:3]} "
                f"and {len(unknown)} unknown {unknown[:3]}"
            )
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise ValueError(f"{name} of {path} must have shape {tuple(variable.shape)}, got {arrays[name].shape}")
        for name, variable in self.variables.items():
            variable.assign(arrays[name])

    def _prune(self, progress: Progress) -> None:
        # Files of later steps are damaged, because the run did not go on from them: they do not count among the newest.
        past = [step for step in self.steps() if step <= progress.step]
        for step in self.steps():
            if step not in past[-self.keep :] and step != progress.best_step:
                self._path(step).unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)


def _read_progress(text: np.ndarray, step: int, path: Path) -> Progress:
    """Returns the progress that the file of a step holds as JSON, after a check of its fields and their types."""
    known = {name: type(value) for name, value in dataclasses.asdict(Progress()).items()}
    try:
        values = json.loads(str(text))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"progress of {path} must be a JSON object, got {str(text)[:80]!r}")
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"progress of {path} must have no fields but {', '.join(known)}, got {', '.join(unknown)}; "
            "was it made by another version of kfpn?"
        )
    for name, value in values.items():
        if not isinstance(value, (int, float) if known[name] is float else known[name]):
            raise ValueError(f"progress of {path}: {name} must be a {known[name].__name__}, got {value!r}")
    if values.get("step") != step:
        raise ValueError(f"progress of {path} must have the step {step} of its name, got {values.get('step')}")
    return Progress(**values)


def named_variables(**groups: Any) -> dict[str, keras.Variable]:
    """Names the variables of several groups by their order, such as `group/0007`.

    Keras' own names count the layers that a process has made, so they change from run to run, and the order does not.

    Args:
        **groups: name of a group -> sequence of variables.

    Returns:
        Name -> variable.
    """
    return {f"{group}/{i:04d}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}
