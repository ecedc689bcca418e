"""Checks that a foreign file holds only dicts, lists, numbers, strings and numeric arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

DEEPEST = 32
"""The number of containers that may be nested in each other."""
SCALARS = (str, bytes, int, float, complex, bool, type(None))


class Refused(Exception):
    """Tells that a file's content is not accepted. The text says what and why, without the file's name."""


def plain_array(array: np.ndarray) -> np.ndarray:
    """Returns a writable array in the machine's byte order, float32 in place of float16.

    Args:
        array: of any shape and dtype.

    Raises:
        Refused: if it holds anything but numbers or bools.
    """
    if array.dtype.kind not in "biufc":
        raise Refused(f"holds an array of dtype {array.dtype}, must be numbers")
    wanted = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return np.require(array.astype(wanted, copy=False), requirements="W")


def from_bfloat16(raw: bytes | bytearray) -> np.ndarray:
    """Returns the values of little-endian bfloat16, whose 16 bits are the upper half of a float32.

    Args:
        raw: 2 n bytes.

    Returns:
        (n,) float32.
    """
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


def plain_tree(value: Any, leaf: Callable[[Any, str], Any]) -> Any:
    """Copies nested containers, each object once, and lets `leaf` replace what else is in them.

    Args:
        value: dicts, lists, tuples and sets, nested up to 32 deep.
        leaf: function of an object and its name, such as "model.conv1.weight"; it returns the object's replacement, an
            array or a number, or raises `Refused`.

    Returns:
        A copy of only dicts, lists, tuples and plain values.

    Raises:
        Refused: if containers nest deeper (or hold themselves), or a dict's key is neither a string nor a number.
    """
    # Each object is copied once: ten lists that each hold the one before ten times would otherwise become 10^10 elements.
    # The object is kept beside its copy, because Python may give the id of a deleted object to a new one.
    done: dict[int, tuple[Any, Any]] = {}

    def copy(value: Any, name: str, depth: int) -> Any:
        if type(value) in SCALARS:
            return value
        if id(value) in done:
            return done[id(value)][1]
        if depth > DEEPEST:
            raise Refused(f"nests deeper than {DEEPEST} at {name[:100]!r}")
        result: Any
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, SCALARS):
                    raise Refused(f"has a key of type {type(key).__name__} in {name[:100] or 'its top'!r}")
            result = {key: copy(value[key], f"{name}.{key}" if name else f"{key}", depth + 1) for key in value}
        elif isinstance(value, list | tuple | set | frozenset):
            parts = [
                part if type(part) in SCALARS else copy(part, f"{name}[{index}]", depth + 1)
                for index, part in enumerate(value)
            ]
            result = tuple(parts) if isinstance(value, tuple) else parts
        else:
            result = leaf(value, name)
        done[id(value)] = (value, result)
        return result

    return copy(value, "", 0)
