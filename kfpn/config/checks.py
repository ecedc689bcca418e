"""Checks the fields of a configuration against rules, each of which brings the words of its message."""

import math
import os
import re
from collections.abc import Callable
from typing import Any, get_args

_SCHEMES = frozenset(("gs:", "s3:", "s3a:", "hdfs:", "http:", "https:", "ftp:", "az:", "abfs:", "abfss:"))

Rule = tuple[str, Callable[[Any], bool]]
"""What a message says after "must", and the function that tells whether a value keeps the rule."""


def is_int(value: object) -> bool:
    """Tells whether a value is an integer and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def positive(value: float) -> bool:
    """Tells whether a value is finite and above 0."""
    return math.isfinite(value) and value > 0


def require_local(name: str, value: object) -> None:
    """Checks that a place is not an address of another machine, such as `gs://bucket/run`.

    `Path` makes a folder `gs:` of it without a word. A path that has become `gs:/bucket` in that way is refused as well, unless
    there is such a folder.

    Args:
        name: of the option or argument.
        value: a path, a name of data, or anything else, which is not looked at.

    Raises:
        ValueError: naming the option, if the value is an address.
    """
    if not isinstance(value, str | os.PathLike):
        return
    text = os.fsdecode(value)
    address = re.search(r"(?:^|[,:])([A-Za-z][\w.+-]+:)/(/?)", text)
    shortened = isinstance(value, os.PathLike) or (address and address[1].lower() in _SCHEMES)
    if address and (address[2] or (shortened and not os.path.isdir(address[1]))):
        raise ValueError(
            f"{name} must be a place on this machine, got the address {text!r}: copy it here and back, or mount it as a "
            "folder (gcsfuse, s3fs, rclone mount) and name that folder"
        )


def one_of(options: Any) -> Rule:
    """Returns the rule that a value is one of a `Literal`'s."""
    return f"be one of {', '.join(get_args(options))}", lambda value: value in get_args(options)


def whole(least: int) -> Rule:
    """Returns the rule that a value is an integer of at least `least`."""
    return f"be an integer of at least {least}", lambda value: is_int(value) and value >= least


def check(config: Any, section: str, names: str, rule: Rule) -> None:
    """Checks fields of a configuration against a rule.

    Args:
        config: a dataclass.
        section: what stands before a field's name in messages: "model." or another section, or nothing.
        names: of the fields, separated by spaces.
        rule: that they must keep.

    Raises:
        ValueError: for the first field that breaks it.
    """
    words, is_kept_by = rule
    for name in names.split():
        value = getattr(config, name)
        if not is_kept_by(value):
            raise ValueError(f"{section}{name} must {words}, got {value!r}")


POSITIVE: Rule = ("be positive", positive)
NOT_NEGATIVE: Rule = ("be at least 0", lambda value: math.isfinite(value) and value >= 0)
SHARE: Rule = ("lie in 0..1", lambda value: 0.0 <= value <= 1.0)
SHARE_ABOVE_0: Rule = ("lie in 0..1 and not be 0", lambda value: 0.0 < value <= 1.0)
SHARE_BELOW_1: Rule = ("lie in 0..1 and not be 1", lambda value: 0.0 <= value < 1.0)
WHOLE_OR_NONE: Rule = (
    "be an integer of at least 1, or None",
    lambda value: value is None or (is_int(value) and value > 0),
)
