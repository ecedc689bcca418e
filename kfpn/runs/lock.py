"""Locks a work directory, so that one training at a time uses it."""

import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_training(path: Path) -> Iterator[None]:
    """Holds the lock of a work directory for a `with` block.

    The kernel releases the lock when the process ends, after `kill -9` as well: a lock file that was left behind locks nothing.

    Args:
        path: the file of the lock, in an existing folder.

    Raises:
        ValueError: naming process and machine, while another training holds it.
    """
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"workdir must be used by one training at a time, got {str(path.parent)!r}, in which {_holder(path)} trains; "
                "wait for it, stop it, or use another --workdir"
            ) from error
        except OSError as error:  # Some network file systems have no locks.
            warnings.warn(f"{path} can't be locked ({error}): make sure that nothing else trains there", stacklevel=3)
        file.seek(0)
        file.truncate()
        file.write(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}) + "\n"
        )
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']} (since {held['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # The file may be half written.
        return "another process"
