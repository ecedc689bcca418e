"""Takes fields of COCO's rows that are spelt otherwise, and finds keys that an object of JSON has twice."""

from collections.abc import Iterable
from typing import Any

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_names import FLAG_WORDS, NOT_READ, TAKEN, misspelt_flags, other_spellings
from kfpn.data.field_values import read_flag, shown

_OPTIONAL = {
    "images": ("width", "height"),
    "annotations": ("bbox", "category_id", "area", *FLAG_WORDS),
    "categories": ("supercategory",),
}
_READ = frozenset(
    (*_OPTIONAL, *(field for fields in _OPTIONAL.values() for field in fields), "id", "file_name", "image_id", "name")
)
"""The keys that count: another one may be there twice."""


def take_other_spellings(content: dict[str, Any], faults: AnnotationFaults) -> None:
    """Gives fields such as `isCrowd` and `Bbox` their own names, and counts them.

    Args:
        content: the lists `images`, `annotations` and `categories`, whose rows are changed.
        faults: its `source` is what messages call the data set.

    Raises:
        ValueError: when a row has two values for one field, or a flag that is none.
    """
    for key, fields in _OPTIONAL.items():
        names = set().union(*content[key])
        for name, field in other_spellings(names, fields).items():
            for number, row in enumerate(content[key]):
                if name in row:
                    where = f"{key}[{number}]"
                    _give_its_name(row, name, field, f"{faults.source}: {where}")
                    faults.add(TAKEN.format(name, field), where)
        for name, flag in misspelt_flags(names, fields).items():
            places = [number for number, row in enumerate(content[key]) if name in row]
            faults.add(NOT_READ.format(name, flag), f"{key}[{places[0]}]", len(places))


def _give_its_name(row: dict[str, Any], name: str, field: str, where: str) -> None:
    value = row.pop(name)
    if field in FLAG_WORDS:
        read_flag(value, f"{where}: {name!r}, taken as {field!r},")
    before = row.get(field)
    if before is not None and value is not None and before != value:
        raise ValueError(
            f"{where} must have one of {field!r} and {name!r}, got {shown(before)} and {shown(value)}: remove one"
        )
    row[field] = value if before is None else before


def repeated_key(pairs: Iterable[tuple[str, Any]]) -> str | None:
    """Returns what to say of the first key that is there twice with two values, and would be read as the last; None: none is.

    Args:
        pairs: the keys and values of an object, in the order of the file.
    """
    before: dict[str, Any] = {}
    for key, value in pairs:
        if key in before and key in _READ and before[key] != value:
            own = next((f" of the object with {name} {shown(row, 60)}" for name, row in pairs if name == "id"), "")
            return f"each key must be there once, got {key!r} twice{own}: remove one"
        before[key] = value
    return None
