"""Tells how much memory this process may have at most."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit(cgroup: Path = _CGROUP) -> int | None:
    """Returns the memory of the machine, or of the container if that is less, in bytes; None where it is not known.

    Args:
        cgroup: where Linux shows a container its own limits (cgroups(7)): version 2 in `memory.max`, version 1 in
            `memory/memory.limit_in_bytes`.
    """
    limits = []
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((cgroup / name).read_text()))
        except (OSError, ValueError):  # the file is missing, or says `max`: no limit
            continue
    return min((limit for limit in limits if limit > 0), default=None)


def available_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Returns the memory that this process may still take without swapping, in bytes; None where it is not known.

    That is what Linux calls available (proc_meminfo(5)), or what the container has left if that is less. Files that the
    container has read and could forget count as left.

    Args:
        cgroup: as for `memory_limit`.
        meminfo: where Linux says how its memory is used.
    """
    left = []
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        left.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    for limit, usage, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            free = int((cgroup / limit).read_text()) - int((cgroup / usage).read_text())
            rows = dict(line.split() for line in (cgroup / statistics).read_text().splitlines())
            left.append(free + int(rows.get("total_inactive_file", rows.get("inactive_file", 0))))
        except (OSError, ValueError):  # the file is missing, or says `max`: no limit
            continue
    if left:
        return max(min(left), 0)
    return memory_limit(cgroup)
