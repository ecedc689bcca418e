"""Gathers the settings that rules choose: what is given by hand stays as it is, and each choice has its reason."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from kfpn.config.run import Config


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
            self.lines.append(
                ChoiceLine(what, " ".join(as_option(name, value) for name, value in free.items()), reason)
            )

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


def with_settings(config: Config, *layers: Mapping[str, Any]) -> Config:
    """Returns a configuration with other settings; it is checked once all of them are there.

    Args:
        config: to start from.
        layers: settings with sections as dicts, of `nested`; later ones win.

    Raises:
        ValueError: for values that don't go together.
    """
    fields: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping):
                sections.setdefault(name, {}).update(value)
            else:
                fields[name] = value
    made = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(config, **fields, **made)
