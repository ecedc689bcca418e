"""Records a profile of some steps of a training for TensorBoard."""

import contextlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfpn.config.profile_range import FIRST, parse_profile
from kfpn.runs.checkpoint import Progress
from kfpn.training.progress import say, warn_on_write_error
from kfpn.training.step_profiler import library_profiler


class StepProfile(contextlib.AbstractContextManager):
    """Profiles some steps of a run; as a context manager it ends what is under way.

    Args:
        steps: as `--profile` has it; None: nothing is profiled.
        folder: where the profile is written.
        progress: of the run; its `step` is the number of steps that were taken.
        last_step: the run's.
        active: bool, whether this process profiles. The chief does.
    """

    def __init__(self, steps: str | None, folder: Path, progress: Progress, last_step: int, active: bool = True):
        self.folder, self.progress = folder, progress
        self.first = self.last = 0
        self._running = False
        self._profiler = library_profiler()
        self._trace: contextlib.AbstractContextManager[Any] | None = None
        wanted = parse_profile(steps) if active else None
        if wanted is None:
            return
        first, last = _steps_of(wanted, progress.step, last_step)
        if not progress.step < first <= last:
            warnings.warn(
                f"profile must name steps from {progress.step + 1} to {last_step}, which this run still takes, got {steps}: "
                "nothing is profiled",
                stacklevel=2,
            )
        elif self._is_writable():
            self.first, self.last = first, last

    def _is_writable(self) -> bool:
        # The profiler itself would say only after the steps that the folder can't be written.
        with warn_on_write_error(f"{self.folder}: the profile"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        return False

    def of(self, step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        """Returns a step that is profiled when its turn has come.

        Each step in the profile begins where the one before ends, so that waiting for data counts.

        Args:
            step: a training step.
        """
        if not self.first:
            return step

        def profiled_step(batch: Any) -> dict[str, Any]:
            number = self.progress.step + 1
            if number == self.first and not self._running:
                self._start(number)
            results = step(batch)
            if self._running:
                if number >= self.last:
                    for value in results.values():  # The device works behind the host: it must be done.
                        float(value)
                    self._stop(number)
                else:
                    self._begin(number + 1)
            return results

        return profiled_step

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._stop(self.progress.step)

    def _start(self, number: int) -> None:
        with warn_on_write_error(f"{self.folder}: the profile"):
            self._profiler.start(str(self.folder))
            self._running = True
            self._begin(number)

    def _begin(self, number: int) -> None:
        self._end_step()
        self._trace = self._profiler.step(number)
        self._trace.__enter__()

    def _end_step(self) -> None:
        if self._trace is not None:
            self._trace.__exit__(None, None, None)
            self._trace = None

    def _stop(self, number: int) -> None:
        self._end_step()
        self._running, first, self.first = False, self.first, 0
        with warn_on_write_error(f"{self.folder}: the profile"):
            self._profiler.stop()
            say(
                f"profile of steps {first} to {number}: {self.folder}; to look at it: pip install xprof && "
                f"tensorboard --logdir {self.folder}"
            )


def _steps_of(wanted: tuple[int | None, int], done: int, last_step: int) -> tuple[int, int]:
    """Returns the first and the last step to profile.

    Args:
        wanted: of `parse_profile`; (None, N) are N steps after those that warm up, or the last N where the run is short.
        done: number of steps that were taken.
        last_step: the run's.
    """
    first, last = wanted
    if first is None:
        count = last
        first = max(done + 1, min(done + FIRST, last_step - count + 1))
        last = first + count - 1
    return first, min(last, last_step)
