"""Starts the program again with large pages of memory where the C library gives them only on request.

Each step of a training on a CPU takes hundreds of megabytes from the C library and gives them back. The kernel has to clear them
and to find them, page by page: with pages of 2 MB instead of 4 KB that takes less than half of the time (docs/speed.md).
glibc asks for such pages only if an environment variable says so when the process starts.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
FIRST_GLIBC = (2, 35)
"""The first version of glibc that knows the tunable."""


def restart_with_huge_pages() -> None:
    """Replaces the process by the same command with large pages, and returns only where that is of no use or not possible.

    Nothing may have been read from standard input before. `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` keeps the pages small.
    """
    tunables = wanted_tunables(os.environ, _libc(), _kernel_mode())
    if tunables is None or sys.gettrace() is not None:  # a debugger would lose its process
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    try:
        os.execve(sys.executable, command, {**os.environ, VARIABLE: tunables})
    except OSError:
        return  # the command works with small pages too


def wanted_tunables(environ: Mapping[str, str], libc: str, kernel_mode: str) -> str | None:
    """Returns the value of GLIBC_TUNABLES with which the process should start, or None if it can stay as it is.

    Args:
        environ: the environment of the process; a value of the tunable that is there already stays.
        libc: name and version of the C library, such as "glibc 2.36".
        kernel_mode: the content of /sys/kernel/mm/transparent_hugepage/enabled, such as "always [madvise] never". Only with
            madvise must a process ask for large pages.
    """
    name, _, version = libc.partition(" ")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    given = environ.get(VARIABLE, "")
    if name != "glibc" or numbers < FIRST_GLIBC or "[madvise]" not in kernel_mode or TUNABLE in given:
        return None
    return ":".join(part for part in (given, f"{TUNABLE}=1") if part)


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # not Linux, or another C library
        return ""


def _kernel_mode() -> str:
    try:
        return Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
