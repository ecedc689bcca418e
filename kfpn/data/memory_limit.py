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
