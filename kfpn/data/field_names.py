"""Recognizes fields of annotations whose names are spelt otherwise than their format spells them."""

import difflib
import re
from collections.abc import Collection, Iterable

TAKEN = "fields called {!r}, taken as {!r}"
NOT_READ = "fields called {!r}, not read: if {!r} is meant, rename them"

FLAG_WORDS = {
    "iscrowd": ("iscrowd", "crowd"),
    "difficult": ("difficult", "isdifficult"),
    "ignore": ("ignore", "isignore", "ignored", "isignored"),
}
"""A flag that sets a box aside -> its names, in the form of `plain_field`."""
_NEAR = 0.8


def plain_field(name: str) -> str:
    """Returns a field's name without spaces, underscores, hyphens and case."""
    return re.sub(r"[\s_\-]", "", name).lower()


def other_spellings(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Returns the known field that each name stands for which differs in case, spaces, underscores or hyphens only.

    Names of flags may also begin with `is` or lack it: `crowd`, `is_difficult`, `ignored`.

    Args:
        names: of fields, as a file has them. Known names themselves are left out.
        known: names of fields as the format spells them.
    """
    words = {plain_field(field): field for field in known}
    words.update((word, flag) for flag, several in FLAG_WORDS.items() if flag in known for word in several)
    return {name: words[plain] for name in sorted(set(names) - set(known)) if (plain := plain_field(name)) in words}


def misspelt_flags(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Returns the flag that each name may mean which is nearly that of a flag, as `dificult` is.

    Args:
        names, known: as for `other_spellings`.
    """
    words = {word: flag for flag, several in FLAG_WORDS.items() if flag in known for word in several}
    near = {name: difflib.get_close_matches(plain_field(name[:40]), words, 1, _NEAR) for name in sorted(set(names))}
    return {name: words[best[0]] for name, best in near.items() if best and plain_field(name) not in words}
