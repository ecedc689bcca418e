"""Finds out when this process was started."""

import os
import time
from pathlib import Path


def process_start() -> float:
    """Returns the time of `time.monotonic()` at which this process began; where the system does not tell, now.

    On Linux it is field 22 of /proc/self/stat, in ticks since the machine was started (proc(5)).
    """
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return now
    # In some sandboxes the clocks of the two numbers differ.
    return now - age if 0.0 <= age <= LONGEST_START else now


LONGEST_START = 120.0
"""No command takes longer than these seconds to come here."""
