"""Tells when the command began that this process carries out."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

LONGEST_START = 120.0
"""No process takes longer than these seconds to come to its command; where it seems so, the system's clocks differ."""
_BEGUN: ContextVar[float | None] = ContextVar("begun", default=None)


def command_start() -> float:
    """Returns the time of `time.monotonic()` at which the command began; called from Python without a command: now."""
    begun = _BEGUN.get()
    return time.monotonic() if begun is None else begun


@contextmanager
def command_under_way(is_process: bool) -> Iterator[None]:
    """Says, in a `with` block, that a command is carried out.

    Args:
        is_process: whether the process was started for it. False: the command begins now.
    """
    token = _BEGUN.set(_process_start() if is_process else time.monotonic())
    try:
        yield
    finally:
        _BEGUN.reset(token)


def _process_start() -> float:
    """Returns the time at which this process was started; where the system does not tell, now.

    On Linux it is field 22 of /proc/self/stat, in ticks since the machine was started (proc(5)).
    """
    now = time.monotonic()
    try:
        # The second field is the program's name in brackets, which may hold blanks.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return now
    return now - age if 0.0 <= age <= LONGEST_START else now
