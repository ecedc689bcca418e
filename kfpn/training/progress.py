"""Reports the progress of a run: a bar or lines, metrics.jsonl and TensorBoard."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from kfpn.evaluation.detection_limit import own_limit_figures
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import BEST_BY
from kfpn.training.tensorboard_events import open_events
from kfpn.training.write_errors import write_errors

SECONDS_BETWEEN_LINES = 10.0
"""Time between two printed lines where there is no terminal for a bar."""


def say(message: str) -> None:
    """Prints a line to stdout without breaking the bar."""
    tqdm.write(message)
    sys.stdout.flush()


@contextmanager
def warn_on_write_error(what: object) -> Iterator[None]:
    """Warns, instead of ending the run, when a `with` block can't write a row of metrics, an event or a picture.

    Args:
        what: what is written; the warning names it.
    """
    try:
        yield
    except write_errors() as error:
        warnings.warn(f"{what} can't be written ({error}); the run goes on without it", stacklevel=3)


class ProgressReport:
    """Shows a bar on a terminal or prints lines elsewhere, and writes rows of metrics and TensorBoard events.

    Args:
        workdir: the run's; rows and events go into it.
        step: number of steps taken when the report begins.
        steps: number of steps at the end of the run, until `plan` says another.
    """

    def __init__(self, workdir: Workdir, step: int, steps: int | None):
        self.workdir = workdir
        self.steps = steps
        self._seconds_left: Callable[[], float | None] = lambda: None
        self._events = open_events(workdir.tensorboard)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps, initial=step, unit="step", desc="train", dynamic_ncols=True, disable=not self._terminal
        )
        self._line_at = 0.0
        # Counted from the first row on: before it the step is compiled, which may take as long as hundreds of steps.
        self._first_row: tuple[float, int] | None = None

    def plan(self, steps: int | None, seconds_left: Callable[[], float | None]) -> None:
        """Takes another number of steps at the end of the run.

        Args:
            steps: that number; None: it is not known yet.
            seconds_left: returns the seconds that are left; None: they follow from the speed of the steps.
        """
        self.steps, self._seconds_left = steps, seconds_left
        self._bar.total = steps
        self._bar.refresh()

    def advance_to(self, step: int) -> None:
        """Moves the bar to a step, backwards too when steps were refused."""
        self._bar.update(step - self._bar.n)

    def train_row(self, row: Mapping[str, Any]) -> None:
        """Writes and shows a row of training metrics: `step`, losses, `lr`, `grad_norm`, `images_per_second`."""
        self._write(row)
        planned = self._seconds_left()
        shown = "" if planned is None else f", {tqdm.format_interval(planned)} to the end"
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s{shown}")
        now, done = time.monotonic(), row["step"] == self.steps
        if self._terminal or (now - self._line_at < SECONDS_BETWEEN_LINES and not done):
            return
        self._line_at = now
        of = "" if self.steps is None else f"/{self.steps}"
        say(
            f"step {row['step']}{of}: loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s{self._left(row['step'])}"
        )

    def _left(self, step: int) -> str:
        """Returns the time that is left, as the end of a line."""
        seconds = self._seconds_left()
        if seconds is None and self.steps is not None:
            now = time.monotonic()
            started, first = self._first_row = self._first_row or (now, step)
            if step > first or step == self.steps:
                seconds = (now - started) / max(1, step - first) * (self.steps - step)
        return "" if seconds is None else f", {tqdm.format_interval(seconds)} left"

    def evaluation_row(self, row: Mapping[str, Any]) -> None:
        """Writes and shows a row of an evaluation: `step` and the COCO figures."""
        self._write(row)
        names = ("AP", "AP50", "AP75", "AR100", "mask_AP", "mask_AP50", *own_limit_figures(row))
        shown = (f"{name} {row[name]:.3f}" for name in names if row.get(name) is not None)
        say(f"step {row['step']}: {', '.join(shown) or 'nothing to measure ' + row.get(BEST_BY, 'AP') + ' on'}")

    def close(self) -> None:
        """Closes the bar and the file of events."""
        self._bar.close()
        with warn_on_write_error(self.workdir.tensorboard):
            self._events.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        with warn_on_write_error(self.workdir.metrics):
            self.workdir.append_metrics(dict(row))
        with warn_on_write_error(self.workdir.tensorboard):
            self._events.write(row["step"], {name: value for name, value in row.items() if isinstance(value, float)})
