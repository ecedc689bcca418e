"""Collects the metrics of training steps, and measures the time that steps take."""

import time
from typing import Any

import numpy as np

from kfpn.runs.checkpoint import Progress


class StepMetrics:
    """Collects what each step returns and makes rows of means of it.

    Args:
        progress: of the run; its `seconds`, `pending` and `logged` are kept up to date.
        batch_size: images of one step.
    """

    def __init__(self, progress: Progress, batch_size: int):
        self.progress = progress
        self.batch_size = batch_size
        self._on_device: list[dict[str, Any]] = []
        self._clock = time.monotonic()
        self._timed_steps = 0
        self._timed_seconds = 0.0

    def add(self, values: dict[str, Any]) -> None:
        """Takes the scalars that a step returned, without waiting for the device."""
        self._on_device.append(values)

    def fetch(self) -> list[dict[str, float]]:
        """Waits for the device, counts the seconds, and returns the values of each step since the last call."""
        rows = [{name: float(value) for name, value in values.items()} for values in self._on_device]
        self._on_device = []
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        self.progress.seconds += seconds
        self._timed_seconds += seconds
        return rows

    def keep(self, rows: list[dict[str, float]]) -> None:
        """Adds fetched rows to those that the next row of means is made of.

        A checkpoint holds them, so that the next row is the same mean after a restart.
        """
        self.progress.pending.extend(rows)
        self._timed_steps += len(rows)

    def restart_clock(self) -> None:
        """Leaves out the time since the last `fetch`: no image was trained on in it."""
        self._clock = time.monotonic()

    def close_row(self) -> dict[str, Any]:
        """Returns the means over the kept rows and begins a new row.

        Returns:
            `step`, each loss and `grad_norm` as means over the steps, the last `lr`, the number `skipped` if steps were
            skipped, `images_per_second`, and `seconds` of training since the run began.
        """
        rows = self.progress.pending
        means = {name: _finite_mean([row[name] for row in rows]) for name in rows[-1] if name != "skipped"}
        means["lr"] = rows[-1]["lr"]
        if skipped := sum(row.get("skipped", 0.0) for row in rows):
            means["skipped"] = skipped
        rate = self._timed_steps * self.batch_size / max(self._timed_seconds, 1e-9)
        self.progress.logged = {"step": self.progress.step, **means, "images_per_second": rate}
        self.progress.pending, self._timed_steps, self._timed_seconds = [], 0, 0.0
        return {**self.progress.logged, "seconds": self.progress.seconds}


def _finite_mean(values: list[float]) -> float:
    # A step that mixed_float16 skips has an infinite gradient norm.
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
