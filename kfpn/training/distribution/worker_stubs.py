"""Replaces what writes to the work directory on workers that are not the chief: they read, and write nothing."""

from typing import Any

from kfpn.runs.checkpoint import Checkpoints, Progress
from kfpn.runs.workdir import Workdir


class ReadWorkdir(Workdir):
    """Reads a work directory and never writes to it: the methods that write do nothing."""

    def check_writable(self) -> None:
        """Does nothing; the chief checks."""

    def prepare(self, *_: Any) -> None:
        """Does nothing; the chief compares and writes."""

    def keep_steps(self, steps: int) -> None:
        """Does nothing."""

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Does nothing."""

    def drop_metrics_after(self, step: int, evaluated: int) -> None:
        """Does nothing."""

    def save_weights(self, weights_model: Any) -> None:
        """Does nothing."""


class ReadCheckpoints(Checkpoints):
    """Restores checkpoints and never writes one."""

    def save(self, progress: Progress) -> Any:
        """Does nothing."""
        return self.folder


class SilentReport:
    """Takes the calls that a `ProgressReport` takes, and shows and writes nothing."""

    def plan(self, steps: Any, seconds_left: Any) -> None:
        """Does nothing."""

    def advance_to(self, step: int) -> None:
        """Does nothing."""

    def train_row(self, row: Any) -> None:
        """Does nothing."""

    def evaluation_row(self, row: Any) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
