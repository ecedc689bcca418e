"""What workers other than the chief do with a work directory: they read it, and write nothing."""

from typing import Any

from kfpn.runs.checkpoint import Checkpoints, Progress
from kfpn.runs.workdir import Workdir


class ReadWorkdir(Workdir):
    """A work directory that this process leaves as it is: all that writes does nothing."""

    def check_writable(self) -> None:
        """Makes nothing."""

    def prepare(self, *_: Any) -> None:
        """Writes nothing; the chief does, and compares."""

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Writes nothing."""

    def drop_metrics_after(self, step: int, evaluated: int) -> None:
        """Writes nothing."""

    def save_weights(self, weights_model: Any) -> None:
        """Writes nothing."""


class ReadCheckpoints(Checkpoints):
    """Checkpoints that are restored and never written."""

    def save(self, progress: Progress) -> Any:
        """Writes nothing."""
        return self.folder


class NoReport:
    """Takes what a `Report` takes, and says nothing."""

    def advance_to(self, step: int) -> None:
        """Does nothing."""

    def train_row(self, row: Any) -> None:
        """Does nothing."""

    def evaluation_row(self, row: Any) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
