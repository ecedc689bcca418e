"""Reads single values of annotations, which tools write as numbers, truth values or text."""

import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np

_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d{1,40}(\.0{1,20})?", re.ASCII)
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_LARGEST = 1e300
_LONGEST = 400  # characters of a number in text


def read_flag(value: Any, what: str, *, yes: Collection[str] = (), no: Collection[str] = ()) -> bool:
    """Returns a flag that tools write as 0, 1, true or false, in numbers (1.0 too), truth values or text of any case.

    Args:
        value: as the file has it; None: the flag is not set.
        what: what messages call it: the file, the annotation and the field.
        yes: more texts that mean 1, in small letters.
        no: more texts that mean 0, in small letters.

    Raises:
        ValueError: when it is anything else.
    """
    if value is None or value is False or value is True:
        return bool(value)
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    text = value.strip().lower() if isinstance(value, str) else None
    if text in _FLAGS:
        return _FLAGS[text]
    if text is not None and (text in yes or text in no):
        return text in yes
    raise ValueError(f"{what} must be 0, 1, true or false, got {shown(value, 60)}")


def read_number(value: Any) -> float | None:
    """Returns a number, or None when the value is none.

    Numbers in text count ("12.5"); truth values don't. What is larger than floats can hold becomes inf.

    Args:
        value: as the file has it.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        # Python's integers have no limit, and float() fails past its own.
        return math.inf if value > _LARGEST else -math.inf if value < -_LARGEST else float(value)
    # The pattern takes a time that grows with the square of the length.
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return None


def whole_number(value: Any) -> int | None:
    """Returns an integer for 1, 1.0, "1" and "1.0", or None for anything else: truth values, and floats from 2^53 on."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None  # beyond it a float is not one integer
    if isinstance(value, str) and len(value) <= _LONGEST and _WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    return None


def number_column(values: Any, what: str, *, flags: bool = False) -> np.ndarray:
    """Returns numbers of an array as (n,) float64.

    Args:
        values: an array of any shape.
        what: what messages call it.
        flags: whether only 0 and 1 are allowed.

    Raises:
        ValueError: when it holds text, or flags that are neither 0 nor 1.
    """
    array = np.asarray(values).ravel()
    if array.size and (array.dtype.kind not in "biuf" or (flags and not np.isin(array, (0, 1)).all())):
        raise ValueError(f"{what} must be {'0 or 1' if flags else 'numbers'}, got {array[:5].tolist()}")
    return array.astype(np.float64)


def comma_hint(*values: Any) -> str:
    """Returns the end of a message about numbers: what to do when one has a decimal comma, else nothing."""
    commas = [
        value
        for value in values
        if isinstance(value, str) and len(value) <= _LONGEST and _WITH_COMMA.fullmatch(value.strip())
    ]
    return f": write a point for the decimal comma in {commas[0].strip()[:30]!r}" if commas else ""


def shown(value: Any, most: int = 100) -> str:
    """Returns a value for a message, cut to some characters."""
    try:
        text = repr(value[: most + 1] if isinstance(value, str) else value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."
