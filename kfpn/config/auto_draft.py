"""Gathers the settings that rules choose: what is given by hand stays as it is, and each choice has its reason."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class ChoiceLine(NamedTuple):
    """Says one choice.

    Attributes:
        what: in words.
        value: as options of the command line.
        reason: in words.
    """

    what: str
    value: str
    reason: str

    def __str__(self) -> str:
        """Returns the line that people read."""
        return f"{self.what}: {self.value} ({self.reason})" if self.value else f"{self.what}: {self.reason}"


class Draft:
    """Holds the settings of a run while rules choose them.

    Args:
        base: option -> value: what holds where nothing is chosen.
        given: option -> value: what a person gave, which no rule changes.
    """

    def __init__(self, base: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.given = dict(given)
        self.chosen: dict[str, Any] = {}
        self.lines: list[ChoiceLine] = []
        self._base = dict(base)

    def __getitem__(self, name: str) -> Any:
        """Returns the value of an option as it stands now."""
        for held in (self.given, self.chosen, self._base):
            if name in held:
                return held[name]
        raise KeyError(name)

    def put(self, what: str, settings: Mapping[str, Any], reason: str) -> None:
        """Chooses settings, but for those that are given, and says so; where all are given nothing is said.

        Args:
            what: in words.
            settings: option -> value.
            reason: in words.
        """
        free = {name: value for name, value in settings.items() if name not in self.given}
        self.chosen |= free
        if free:
            self.lines.append(ChoiceLine(what, " ".join(as_option(name, value) for name, value in free.items()), reason))

    def note(self, what: str, reason: str) -> None:
        """Says something that sets nothing."""
        self.lines.append(ChoiceLine(what, "", reason))


def as_option(name: str, value: Any) -> str:
    """Returns a setting as it is written on the command line: `--model.norm-heads`, `--input.short-side 320`."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        section, _, last = dashed.rpartition(".")
        return f"--{dashed}" if value else f"--{section}{section and '.'}no-{last}"
    values = value if isinstance(value, tuple | list) else (value,)
    return " ".join([f"--{dashed}", *(f"{part:.4g}" if isinstance(part, float) else str(part) for part in values)])


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with sections as dicts: `{"model.norm": "gn", "steps": 9}` -> `{"model": {"norm": "gn"}, "steps": 9}`."""
    held: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, field = name.rpartition(".")
        if section:
            held.setdefault(section, {})[field] = value
        else:
            held[name] = value
    return held
