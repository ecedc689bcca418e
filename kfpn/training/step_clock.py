"""Measures how long the steps of a run take, without compilations and pauses."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEAST_STEPS = 8
"""The speed is measured over at least so many of the last steps."""
RECENT = 1.0 / 3.0
"""It is also measured over at least this share of all steps. Older ones do not count: other programs on the machine come and go."""


@dataclass
class Measured:
    """Holds the seconds that a pause took, once it is over."""

    seconds: float = 0.0


class StepClock:
    """Measures the steps of one process.

    A step of a shape that was not seen before is compiled: its time counts as a compilation and not as a step.

    Args:
        clock: gives seconds.

    Attributes:
        count: number of steps that were measured.
        shapes: number of shapes that the run will have, if it is known; 0: it is not.
    """

    def __init__(self, clock: Callable[[], float]):
        self.count = 0
        self.shapes = 0
        self._clock = clock
        self._stamp: float | None = None
        self._seen: set[Hashable] = set()
        self._compiled = 0.0
        self._open = (0, 0.0)
        self._windows: list[tuple[int, float]] = []

    def of(self, step: Callable[[Any], Any], shape_of: Callable[[Any], Hashable]) -> Callable[[Any], Any]:
        """Returns a step that is measured.

        Args:
            step: a training step.
            shape_of: (batch) -> its shape.
        """

        def measured_step(batch: Any) -> Any:
            values = step(batch)
            self.took(shape_of(batch))
            return values

        return measured_step

    def took(self, shape: Hashable) -> None:
        """Counts the time since the last step or pause as that of a step with a batch of a shape."""
        now, before = self._clock(), self._stamp
        self._stamp = now
        if shape not in self._seen:
            self._seen.add(shape)
            self._compiled += 0.0 if before is None else now - before
        elif before is not None:
            steps, seconds = self._open
            self._open = steps + 1, seconds + now - before
            self.count += 1

    @contextmanager
    def pause(self) -> Iterator[Measured]:
        """Measures a `with` block, whose time is not that of a step."""
        begun, measured = self._clock(), Measured()
        if self._stamp is not None:  # The time since the last step belongs to the steps: their results were waited for.
            steps, seconds = self._open
            self._open = steps, seconds + begun - self._stamp
        try:
            yield measured
        finally:
            self._stamp = self._clock()
            measured.seconds = self._stamp - begun

    def start(self) -> None:
        """Begins to measure: the first step begins now."""
        self._stamp = self._clock()

    def close_window(self) -> None:
        """Ends a window of measured steps; call it when the results of all of them are there."""
        now = self._clock()
        steps, seconds = self._open
        if self._stamp is not None:
            seconds += now - self._stamp
            self._stamp = now
        if steps:
            self._windows.append((steps, seconds))
            self._open = (0, 0.0)
        else:
            self._open = (0, seconds)

    def step_seconds(self) -> float:
        """Returns the seconds of a step, as they were of late; before any was measured, those of a compilation."""
        wanted = max(LEAST_STEPS, RECENT * self.count)
        steps, seconds = 0, 0.0
        for count, time in reversed(self._windows):
            steps, seconds = steps + count, seconds + time
            if steps >= wanted:
                break
        return seconds / steps if steps else self._compiled / max(1, len(self._seen))

    def seconds_to_compile(self) -> float:
        """Returns the seconds that the compilations of the shapes to come will take."""
        return max(0, self.shapes - len(self._seen)) * self._compiled / max(1, len(self._seen))
