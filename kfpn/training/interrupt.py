"""Catches Ctrl-C and SIGTERM at once, and lets a run act on them where nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Says that a signal came inside `Interruption.at_once`.

    It is a BaseException, as KeyboardInterrupt is, so that no `except Exception` swallows it.
    """


class Interruption:
    """Catches SIGINT and SIGTERM in a `with` block; outside the main thread it catches nothing.

    Attributes:
        signal: int, number of the first signal that came, or None. A second Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises `Interrupted` as soon as a signal comes inside a `with` block: for long work that can be thrown away."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False

    @property
    def exit_code(self) -> int:
        """The exit code: 130 after Ctrl-C, as in shells; 0 after SIGTERM, because preemption is not a failure."""
        return 130 if self.signal == signal.SIGINT else 0

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            self._at_once = False
            raise Interrupted
