"""What a run says while it goes: bar or lines, metrics.jsonl and TensorBoard."""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from kfpn.runs.workdir import Workdir

SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """Prints a line to stdout without tearing the bar."""
    tqdm.write(message)
    sys.stdout.flush()


@contextmanager
def dispensable(what: object) -> Iterator[None]:
    """Makes a warning of a failure to write what a run of days must not end for: a row, an event, a picture."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        warnings.warn(f"{what} can't be written ({error}); the run goes on without", stacklevel=3)


class Report:
    """The bar on a terminal, or now and then a line elsewhere; rows of metrics and TensorBoard events.

    Args:
        workdir: where rows and events go.
        step: of the run at its start.
        steps: at its end.
    """

    def __init__(self, workdir: Workdir, step: int, steps: int):
        self.workdir = workdir
        self.steps = steps
        # As bytes: TensorFlow takes no text that stands for a file name which is not UTF-8.
        self._writer = tf.summary.create_file_writer(os.fsencode(workdir.tensorboard))
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps, initial=step, unit="step", desc="train", dynamic_ncols=True, disable=not self._terminal
        )
        self._line_at = 0.0
        self._start = (time.monotonic(), step)

    def advance_to(self, step: int) -> None:
        """Moves the bar; back, where steps were refused."""
        self._bar.update(step - self._bar.n)

    def train_row(self, row: Mapping[str, Any]) -> None:
        """Writes and shows a row of a log step: `step`, losses, `lr`, `grad_norm`, `images_per_second`."""
        self._write(row)
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s")
        now, done = time.monotonic(), row["step"] == self.steps
        if self._terminal or (now - self._line_at < SECONDS_BETWEEN_LINES and not done):
            return
        self._line_at = now
        started, first = self._start
        left = (now - started) / max(1, row["step"] - first) * (self.steps - row["step"])
        say(
            f"step {row['step']}/{self.steps}: loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s, "
            f"{tqdm.format_interval(left)} left"
        )

    def evaluation_row(self, row: Mapping[str, Any]) -> None:
        """Writes and shows a row of an evaluation: `step` and COCO's figures."""
        self._write(row)
        shown = (f"{name} {row[name]:.3f}" for name in ("AP", "AP50", "AP75", "AR100") if row.get(name) is not None)
        say(f"step {row['step']}: {', '.join(shown) or 'nothing to measure AP on'}")

    def close(self) -> None:
        """Closes bar and events."""
        self._bar.close()
        with dispensable(self.workdir.tensorboard):
            self._writer.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        with dispensable(self.workdir.metrics):
            self.workdir.append_metrics(dict(row))
        with dispensable(self.workdir.tensorboard):
            with self._writer.as_default(step=row["step"]):
                for name, value in row.items():
                    if isinstance(value, float):
                        tf.summary.scalar(name, value)
            self._writer.flush()
