"""Numbers the images and the categories of COCO's JSON by their ids, whatever types these have."""

import collections
from collections.abc import Sequence
from typing import Any

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_values import shown, whole_number
from kfpn.data.formats.coco_json import Rows

NUMBERED = "{} whose ids are text, numbered 1 to N in the order of the file"
GROUP = "categories without annotations that only group others (supercategory 'none'), left out"


class IdTable:
    """Finds rows by their ids.

    1, 1.0, "1" and "0001" are one id. Where all ids are text that is no number, or that would be one number twice, they are
    told apart as text, and the rows are numbered 1 to N.

    Args:
        rows: of one list, with the field `id`.
        what: the list's name, for messages.
        faults: its `source` is what messages call the data set; counts rows that were numbered.

    Raises:
        ValueError: naming the first id that is neither a whole number nor text, or that comes twice.
    """

    def __init__(self, rows: Rows, what: str, faults: AnnotationFaults) -> None:
        values = [row["id"] for row in rows]
        numbers = [whole_number(value) for value in values]
        texts = [value for value in values if isinstance(value, str)]
        self._as_text = bool(texts) and len(texts) == len(values) and not _are_distinct_ids(numbers)
        if self._as_text:
            keys: list[Any] = [value.strip() for value in texts]
            self.ids = list(range(1, len(values) + 1))
            faults.add(NUMBERED.format(what), repr(texts[0][:100]), len(texts))
        else:
            keys = self.ids = _checked_numbers(values, numbers, f"{faults.source}: {what}")
        self._index: dict[Any, int] = {}
        for i, key in enumerate(keys):
            first = self._index.setdefault(key, i)
            if first != i:
                one = "image" if what == "images" else "category"
                raise ValueError(
                    f"{faults.source}: {one} ids must be unique, got {_same_ids(key, values[first], values[i])}"
                )

    @property
    def index_of_number(self) -> dict[int, int] | None:
        """Returns the index of each row by its id; None: the ids are told apart as text."""
        return None if self._as_text else self._index

    def find(self, value: Any) -> int | None:
        """Returns the index of the row that has an id, or None where none has.

        Args:
            value: an id as another row gives it.

        Raises:
            TypeError: when it can't be an id: neither a whole number nor, where the ids are text, text.
        """
        if type(value) is int and not self._as_text:
            return self._index.get(value)
        number = whole_number(value)
        if self._as_text and isinstance(value, str):
            return self._index.get(value.strip())
        if number is None:
            raise TypeError("no id")
        return self._index.get(str(number) if self._as_text else number)


def _are_distinct_ids(numbers: Sequence[int | None]) -> bool:
    known = [number for number in numbers if number is not None]
    return len(set(known)) == len(numbers) and all(map(_fits, known))


def _fits(number: int) -> bool:
    return -(2**63) < number < 2**63


def _checked_numbers(values: Sequence[Any], numbers: Sequence[int | None], what: str) -> list[int]:
    """Returns the numbers; raises ValueError for the first value that is none or too large."""
    checked = []
    for i, (value, number) in enumerate(zip(values, numbers, strict=True)):
        if number is None:
            raise ValueError(
                f"{what}[{i}]: id must be a whole number, as the others are, or all must be text, got {shown(value)}"
            )
        if not _fits(number):
            raise ValueError(f"{what}[{i}]: id must be below 2^63, got {shown(value)}")
        checked.append(number)
    return checked


def _same_ids(key: Any, first: Any, second: Any) -> str:
    """Says of two ids that are one key how they were written."""
    if first == second and type(first) is type(second):
        return f"{shown(key)} more than once"
    return f"{shown(first)} and {shown(second)}, which are one number"


class Categories:
    """Gives each annotation its class.

    Categories that only group others are left out: they have the supercategory "none", name the supercategory of others, and
    have no annotation. Roboflow writes one.

    Args:
        rows: `categories` of the file.
        annotations: of the file.
        faults: its `source` is what messages call the data set; counts what was left out.

    Attributes:
        names: of labels 0 .. K-1, by rising id.
        ids: of labels 0 .. K-1.
        left_out: (name, id) of each group.

    Raises:
        ValueError: naming ids or names that come twice, and names that are no text.
    """

    def __init__(self, rows: Rows, annotations: Rows, faults: AnnotationFaults) -> None:
        self._table = IdTable(rows, "categories", faults)
        self._names = [_category_name(row["name"], i, faults.source) for i, row in enumerate(rows)]
        groups = set(_groups(rows, self._names))
        self._by_name: dict[str, list[int]] = {}
        for i, text in enumerate(self._names):
            self._by_name.setdefault(text, []).append(i)
        for text, members in self._by_name.items():
            if len(members) > 1:
                self._by_name[text] = [i for i in members if i not in groups] or members
        owners: set[int] = set()
        if groups:
            owners = {
                row for annotation in annotations if (row := self._row(annotation.get("category_id"))) is not None
            }
        kept = sorted((i for i in range(len(rows)) if i not in groups - owners), key=lambda i: self._table.ids[i])
        self.names = [self._names[i] for i in kept]
        self.ids = [self._table.ids[i] for i in kept]
        self._label = {row: label for label, row in enumerate(kept)}
        self.left_out = [(self._names[i], self._table.ids[i]) for i in sorted(groups - owners)]
        self._require_unique_names(kept, faults.source)
        for text, number in self.left_out:
            faults.add(GROUP, f"{shown(text)}, id {number}")

    @property
    def label_of_number(self) -> dict[int, int] | None:
        """Returns the label of each class by its category's id; None: the ids are told apart as text."""
        if self._table.index_of_number is None:
            return None
        return {number: label for label, number in enumerate(self.ids)}

    def label(self, value: Any, what: str) -> int:
        """Returns the label of an annotation.

        Args:
            value: its `category_id`: an id or, in text, the name of a category.
            what: what messages call the annotation.

        Raises:
            ValueError: when it is no category's, or the id of one and the name of another.
        """
        row = self._row(value, what)
        if row is None:
            known = ", ".join(str(number) for number in self.ids[:10]) + (", ..." if len(self.ids) > 10 else "")
            raise ValueError(f"{what}: category_id must be one of those in 'categories' ({known}), got {shown(value)}")
        return self._label[row]

    def _row(self, value: Any, what: str = "") -> int | None:
        try:
            by_id = self._table.find(value)
        except TypeError:
            by_id = None
        if not isinstance(value, str):
            return by_id
        named = self._by_name.get(value, [])
        by_name = named[0] if len(named) == 1 else None
        if what and by_id is not None and by_name is not None and by_id != by_name:
            raise ValueError(
                f"{what}: category_id must stand for one category, got {shown(value)}, which is the id of {shown(self._names[by_id])} and "
                f"the name of another one, whose id is {self._table.ids[by_name]}: write ids as numbers"
            )
        return by_name if by_id is None else by_id

    def _require_unique_names(self, kept: Sequence[int], source: str) -> None:
        first: dict[str, int] = {}
        for i in kept:
            other = first.setdefault(self._names[i], i)
            if other != i:
                raise ValueError(
                    f"{source}: category names must be unique, got {shown(self._names[i])} more than once, with the ids "
                    f"{self._table.ids[other]} and {self._table.ids[i]}: rename one, or give both one id"
                )


def _category_name(value: Any, i: int, source: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip() and value == value.encode("utf-8", "ignore").decode("utf-8"):
        return value
    raise ValueError(f"{source}: categories[{i}]: name must be text, got {shown(value)}")


def _groups(rows: Rows, names: Sequence[str]) -> list[int]:
    """Returns the indices of categories that name the supercategory of others and have none themselves."""
    above = [_supercategory(row) for row in rows]
    members = collections.Counter(above)
    return [i for i, text in enumerate(names) if above[i].lower() == "none" and members[text] > (above[i] == text)]


def _supercategory(row: dict[str, Any]) -> str:
    value = row.get("supercategory")
    return value.strip() if isinstance(value, str) else ""
