"""The rules that fields of a configuration keep: what a message says, and whether a value holds."""

import math
from collections.abc import Callable
from typing import Any, get_args

Rule = tuple[str, Callable[[Any], bool]]


def is_int(value: object) -> bool:
    """Whether a value is an integer, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def positive(value: float) -> bool:
    """Whether a value is finite and above 0."""
    return math.isfinite(value) and value > 0


def one_of(options: Any) -> Rule:
    """Returns the rule of a `Literal`."""
    return f"be one of {', '.join(get_args(options))}", lambda value: value in get_args(options)


def whole(least: int) -> Rule:
    """Returns the rule of integers from `least` on."""
    return f"be an integer of at least {least}", lambda value: is_int(value) and value >= least


def check(config: Any, section: str, names: str, rule: Rule) -> None:
    """Raises ValueError for the first field, of those named, that breaks a rule."""
    says, holds = rule
    for name in names.split():
        value = getattr(config, name)
        if not holds(value):
            raise ValueError(f"{section}{name} must {says}, got {value!r}")


POSITIVE: Rule = ("be positive", positive)
NOT_NEGATIVE: Rule = ("be at least 0", lambda value: math.isfinite(value) and value >= 0)
SHARE: Rule = ("lie in 0..1", lambda value: 0.0 <= value <= 1.0)
SHARE_ABOVE_0: Rule = ("lie in 0..1 and not be 0", lambda value: 0.0 < value <= 1.0)
SHARE_BELOW_1: Rule = ("lie in 0..1 and not be 1", lambda value: 0.0 <= value < 1.0)
