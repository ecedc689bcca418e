"""Ctrl-C and SIGTERM: noticed at once, acted on where nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal came while `Interruption.at_once` was on; like KeyboardInterrupt no `except Exception` swallows it."""


class Interruption:
    """Catches SIGINT and SIGTERM for a `with` block; outside the main thread it catches nothing.

    Attributes:
        signal: number of the first signal that came, or None. A second Ctrl-C is a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        """Starts to catch."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the handlers of before back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted`: for long work that can be thrown away."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, as shells have it; 0 after SIGTERM: preemption is no failure."""
        return 130 if self.signal == signal.SIGINT else 0

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            self._at_once = False
            raise Interrupted
