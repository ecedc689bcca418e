"""Checks that the fields of a configuration are of their types, before rules compare them."""

import dataclasses
import os
from typing import Annotated, Any, get_args, get_origin

_LARGEST = 10**300  # Python's integers have no limit, and floats have


def require_types(config: Any, section: str) -> None:
    """Checks numbers, truth values, text and lists of numbers, as config.json and callers in Python give them.

    Integers and choices are left to their rules. Text is no truth value: "false" would count as true.

    Args:
        config: a dataclass.
        section: what stands before a field's name in messages: "model." or another section, or nothing.

    Raises:
        ValueError: for the first field of another type.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        declared: Any = field.type
        if get_origin(declared) is Annotated:  # as the command line needs it
            declared = get_args(declared)[0]
        kinds = get_args(declared) if type(None) in get_args(declared) else (declared,)
        if type(None) in kinds and value is None:
            continue
        for kind, (rule, is_kept_by) in _RULES.items():
            if (kind in kinds or get_origin(declared) is kind) and not is_kept_by(value):
                raise ValueError(f"{section}{field.name} must {rule}, got {value!r:.100}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # JSON can't hold NumPy's float32
        return False
    return isinstance(value, float) or abs(value) <= _LARGEST


_RULES = {
    float: ("be a number", _is_number),
    bool: ("be True or False", lambda value: isinstance(value, bool)),
    str: ("be text", lambda value: isinstance(value, str | os.PathLike)),
    tuple: ("be numbers", lambda value: isinstance(value, tuple | list) and all(map(_is_number, value))),
}
