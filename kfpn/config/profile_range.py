"""Reads which steps of a training are profiled."""

import re

FIRST = 11
"""The first step that `--profile N` records, counted from the step that the run goes on from: compilations are over then."""


def parse_profile(text: str | None) -> tuple[int | None, int] | None:
    """Returns the steps that an option like `5` or `100-104` names.

    Args:
        text: N, or FIRST-LAST; None: nothing is profiled.

    Returns:
        (first, last), numbers of steps from 1; (None, N) for N steps after the run has warmed up; None for None.

    Raises:
        ValueError: for text that is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:([1-9][0-9]{0,8})-)?([1-9][0-9]{0,8})", text.strip(), re.ASCII)
    if match is None or int(match[1] or 1) > int(match[2]):
        raise ValueError(
            f"profile must be a number of steps, like 5, or the first and the last of them, like 100-104, got {text!r}"
        )
    return (int(match[1]) if match[1] else None), int(match[2])
