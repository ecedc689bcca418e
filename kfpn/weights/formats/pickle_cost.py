"""Estimates, before a pickle is read, how long its keys would take to hash, and refuses those that would take for ever."""

import mmap
import pickletools
from typing import Any

from kfpn.weights.formats.safe_values import DEEPEST, Refused

_FREE = 1_000_000
"""Steps of hashing that any pickle may take; beyond them, ten for each of its operations."""
_HASHING = ("set", "frozenset", "OrderedDict")
_MOST = 10**12  # weights stop growing here: numbers of a million digits would take long themselves


class _Object:
    """Stands for an object that the pickle makes.

    Attributes:
        weight: int, steps that its hash takes: a tuple hashes what is in it, again each time.
        depth: int, tuples that are nested in it.
        parts: what is in it.
        text: str, its value, of strings and of names.
    """

    __slots__ = ("depth", "parts", "text", "weight")

    def __init__(self, text: str = "") -> None:
        self.weight, self.depth, self.text = 1, 0, text
        self.parts: list[_Object] = []


def require_bounded_hashing(data: "mmap.mmap | bytes") -> None:
    """Follows a pickle's operations without making its objects, and checks that its keys can be hashed in bounded time.

    A tuple's hash visits all that is in the tuple. Sixty tuples that each hold the one before twice are a few hundred bytes and
    2^60 steps; a tuple of a million tuples in each other overflows the stack.

    Args:
        data: positioned at the pickle's first byte where it has a position, as a file.

    Raises:
        Refused: if it would take too long, or if its operations fit no stack.
        Exception: of any kind, if it is damaged.
    """
    stack: list[_Object | None] = []  # None is a mark
    memo: dict[int, _Object] = {}
    steps = 0
    for count, (code, argument, _) in enumerate(pickletools.genops(data)):  # type: ignore[arg-type]
        try:
            steps += _carry_out(code, argument, stack, memo)
        except (IndexError, KeyError, ValueError, AttributeError) as error:
            raise Refused(
                f"is not a sound pickle: {code.name} at operation {count} finds nothing to work on"
            ) from error
        if steps > _FREE + 10 * count:
            raise Refused("has tuples within tuples as keys, which would take for ever to read")


def _carry_out(code: Any, argument: Any, stack: list[_Object | None], memo: dict[int, _Object]) -> int:
    """Does to the stack what an operation does, and returns the steps of hashing it takes."""
    name = code.name
    if name == "MARK":
        stack.append(None)
    elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else int(argument)] = _top(stack)
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(argument)])
    elif name == "DUP":
        stack.append(_top(stack))
    elif name == "POP":
        stack.pop()
    elif pickletools.markobject in code.stack_before:
        mark = len(stack) - 1 - stack[::-1].index(None)
        parts = [part for part in stack[mark + 1 :] if part is not None]
        del stack[mark:]
        return _take_all(name, argument, parts, stack)
    else:
        taken = [_pop(stack) for _ in code.stack_before][::-1]
        return _take(name, argument, taken, (len(code.stack_after), stack))
    return 0


def _take(name: str, argument: Any, taken: list[_Object], after: tuple[int, list[_Object | None]]) -> int:
    pushed, stack = after
    if name in ("APPEND", "SETITEM"):
        taken[0].parts += taken[1:]
        stack.append(taken[0])
        return taken[1].weight if name == "SETITEM" else 0
    if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        stack.append(_tuple(taken))
        return 0
    if name == "BUILD":
        stack.append(taken[0])
        return 0
    if name == "STACK_GLOBAL":
        stack.append(_Object(taken[1].text))
        return 0
    text = argument.split(" ")[-1] if name == "GLOBAL" else argument
    stack += [_Object(text if isinstance(text, str) else "") for _ in range(pushed)]
    if name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
        return _called(taken[0].text, taken[1].parts)
    return 0


def _take_all(name: str, argument: Any, parts: list[_Object], stack: list[_Object | None]) -> int:
    """Does what an operation does that takes all above the last mark."""
    if name == "POP_MARK":
        return 0
    if name in ("APPENDS", "SETITEMS", "ADDITEMS"):
        _top(stack).parts += parts
        hashed = {"APPENDS": [], "SETITEMS": parts[::2], "ADDITEMS": parts}[name]
    elif name == "TUPLE":
        stack.append(_tuple(parts))
        return 0
    else:  # LIST, DICT, FROZENSET, INST, OBJ
        made = _Object()
        stack.append(made)
        if name == "INST":
            return _called(argument.split(" ")[-1], parts)
        if name == "OBJ":
            return _called(parts[0].text, parts[1:])
        made.parts = parts
        hashed = {"DICT": parts[::2], "FROZENSET": parts}.get(name, [])
    return sum(part.weight for part in hashed)


def _called(name: str, arguments: list[_Object]) -> int:
    """Returns the steps that making a set of elements, or a dict of pairs, takes."""
    if name not in _HASHING:
        return 0
    elements = [element for argument in arguments for element in argument.parts]
    return sum(element.weight + sum(part.weight for part in element.parts[:1]) for element in elements)


def _tuple(parts: list[_Object]) -> _Object:
    made = _Object()
    made.parts = parts
    made.weight = min(_MOST, 1 + sum(part.weight for part in parts))
    made.depth = 1 + max((part.depth for part in parts), default=0)
    if made.depth > 2 * DEEPEST:
        raise Refused(f"nests tuples deeper than {DEEPEST}")
    return made


def _top(stack: list[_Object | None]) -> _Object:
    top = stack[-1]
    if top is None:
        raise ValueError("a mark is no object")
    return top


def _pop(stack: list[_Object | None]) -> _Object:
    top = _top(stack)
    stack.pop()
    return top
