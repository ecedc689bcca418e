"""Says what is odd about a data set that is being opened, and keeps it to say it again when the set is opened from memory."""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

LOGGER = logging.getLogger("kfpn")

_KEPT: ContextVar[list[str] | None] = ContextVar("opening_warnings", default=None)


def warn_of_data(text: str) -> None:
    """Logs a warning. It is kept for the next opening also where the logger is switched off now.

    Args:
        text: names the data set and, with a count, what is odd.
    """
    kept = _KEPT.get()
    if kept is not None:
        kept.append(text)
    LOGGER.warning("%s", text)


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Logs nothing in a `with` block, for data that are opened twice: the other time says what is odd about them."""
    LOGGER.addFilter(_drop)
    try:
        yield
    finally:
        LOGGER.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False


@contextlib.contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Collects what `warn_of_data` says meanwhile."""
    said: list[str] = []
    token = _KEPT.set(said)
    try:
        yield said
    finally:
        _KEPT.reset(token)
