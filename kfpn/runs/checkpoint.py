"""Checkpoints: everything a restart needs, one file each, never half written."""

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
    """How far a run is.

    Attributes:
        step: optimizer steps taken.
        seconds: spent training, evaluations not counted.
        evaluated: step of the last evaluation that is complete; 0: none.
        last: its figures, or {}.
        best_step: step of the best evaluation; 0: none.
        best: its figures, or {}.
        logged: the last row of training metrics, or {}.
        pending: metrics of each step since that row.
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: int = 0
    last: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int = 0
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    logged: dict[str, Any] = dataclasses.field(default_factory=dict)
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """The checkpoints of a work directory, `checkpoints/step_00001000.npz`.

    Args:
        folder: is made when the first one is saved.
        variables: name -> variable, all state of the run.
        keep: newest files that are kept; the best step's is kept besides.
    """

    def __init__(self, folder: str | os.PathLike, variables: Mapping[str, keras.Variable], keep: int = 3):
        self.folder = Path(folder)
        self.variables = dict(variables)
        self.keep = keep

    def save(self, progress: Progress) -> Path:
        """Writes the checkpoint of `progress.step` aside, renames it, and deletes those no longer kept.

        Raises:
            ValueError: if a variable is not finite; files already there stay as they are.
            OSError: if the file can't be written, as on a full disk; files already there stay as they are.
        """
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        bad = [self.variables[name].path for name, value in arrays.items() if not np.isfinite(value).all()]
        if bad:
            raise ValueError(
                f"no checkpoint at step {progress.step}: values must be finite, got NaN or inf in {bad[0]}"
                + (f" and {len(bad) - 1} more" if bad[1:] else "")
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()  # before the disk is needed
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
            Its progress; a fresh one, with nothing loaded, where there is no checkpoint.

        Raises:
            ValueError: if a file can be read but its variables or its progress are not those of this run, or no file can
                be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                arrays = self._read(self._path(step))
            except Exception as error:  # a flipped bit makes zipfile and numpy fail in every way there is
                warnings.warn(f"{self._path(step)} is damaged ({error}); trying the one before it", stacklevel=2)
                continue
            progress = _progress(arrays.pop(_META), step, self._path(step))
            self._assign(arrays, self._path(step))
            return progress
        if steps:
            raise ValueError(
                f"a checkpoint in {self.folder} must be readable, got {len(steps)} damaged; remove them to start again"
            )
        return Progress()

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints there are, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"step_(\d+)\.npz", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.npz"

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        # Reading every member also checks its CRC.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if _META not in arrays:
            raise ValueError("not a checkpoint of kfpn")
        return arrays

    def _assign(self, arrays: dict[str, np.ndarray], path: Path) -> None:
        missing = sorted(self.variables.keys() - arrays.keys())
        foreign = sorted(arrays.keys() - self.variables.keys())
        if missing or foreign:
            raise ValueError(
                f"variables of {path} must be those of this run, got {len(missing)} missing {missing[:3]} "
                f"and {len(foreign)} unknown {foreign[:3]}"
            )
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise ValueError(f"{name} of {path} must have shape {tuple(variable.shape)}, got {arrays[name].shape}")
        for name, variable in self.variables.items():
            variable.assign(arrays[name])

    def _prune(self, progress: Progress) -> None:
        # Later ones are damaged, or the run would have gone on from there: they must not count among the newest.
        past = [step for step in self.steps() if step <= progress.step]
        for step in self.steps():
            if step not in past[-self.keep :] and step != progress.best_step:
                self._path(step).unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)


def _progress(text: np.ndarray, step: int, path: Path) -> Progress:
    known = {field.name: type(field.default_factory() if callable(field.default_factory) else field.default)
             for field in dataclasses.fields(Progress)}  # fmt: skip
    try:
        found = json.loads(str(text))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"progress of {path} must be a JSON object, got {str(text)[:80]!r}")
    unknown = sorted(found.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"progress of {path} must have no fields but {', '.join(known)}, got {', '.join(unknown)}; "
            "was it made by another version of kfpn?"
        )
    for name, value in found.items():
        if not isinstance(value, (int, float) if known[name] is float else known[name]):
            raise ValueError(f"progress of {path}: {name} must be a {known[name].__name__}, got {value!r}")
    if found.get("step") != step:
        raise ValueError(f"progress of {path} must have the step {step} of its name, got {found.get('step')}")
    return Progress(**found)


def named_variables(**groups: Any) -> dict[str, keras.Variable]:
    """Names the variables of several groups, `group/0007`.

    Keras' own names count the layers a process has made, so they change from one run to the next; the order does not.

    Args:
        **groups: group name -> sequence of variables.
    """
    return {f"{group}/{i:04d}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}
