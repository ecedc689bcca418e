"""Finds out which columns of a CSV file hold the image, the box and the class."""

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.encodings import decode_text
from kfpn.data.field_names import FLAG_WORDS, plain_field
from kfpn.data.field_values import read_number, shown
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD
from kfpn.data.image_endings import image_endings
from kfpn.data.text_files import lines_of, read_text

UNREAD = "columns that are not read ({})"
NO_HEADER = "no header there, so the columns are taken as image, x1, y1, x2, y2, class"

COLUMNS = {
    "image": ("image", "filename", "file", "path", "filepath", "imagepath", "imagename", "imagefile", "img", "imgpath"),
    "x1": ("x1", "xmin", "left"),
    "y1": ("y1", "ymin", "top"),
    "x2": ("x2", "xmax", "right"),
    "y2": ("y2", "ymax", "bottom"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname", "name"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    **FLAG_WORDS,
}
"""What a column holds -> its names, without spaces, underscores, hyphens and case."""
NEEDED = ("image", "x1", "y1", "x2", "y2", "class")
FLAGS = tuple(FLAG_WORDS)
NOTHING = frozenset(("", "nan", "null", "none"))
"""What tools write, in any case, where a field has no value."""
UNDERSTOOD = (
    "image,x1,y1,x2,y2,class or filename,width,height,class,xmin,ymin,xmax,ymax (in any order; also path or file for the image, left, top, "
    "right, bottom, and label, name or category); without a header only image,x1,y1,x2,y2,class"
)

_DELIMITERS = (",", ";", "\t")
_EXCEL = re.compile(r"sep=(.)\s*(?:[\r\n]|$)")  # Excel's own first line
_SPLIT_WORDS = SPLIT_OF_WORD | dict.fromkeys(("dev", "eval", "evaluation"), "validation")
_OF_SPLITS = ("split", "subset", "set", "partition", "usage", "phase", "dataset")
_OF_ONE_SPLIT = tuple(f"{start}{word}" for word in sorted(_SPLIT_WORDS) for start in ("", "is"))
"""Columns whose flag says whether a row is of a split, as `is_valid`."""
_YES_OR_NO = frozenset(("0", "1", "0.0", "1.0", "false", "true", "f", "t", "no", "yes", "n", "y"))
_NAMED_COLUMNS = 8


@dataclass(frozen=True)
class CsvTable:
    """Holds the rows of a file.

    Attributes:
        path: of the file.
        columns: what a column holds -> its place in a row.
        rows: (number of the line, the row's fields), the header left out.
        width: int, fields in a row.
        header: the names of all columns; none where the file has no header.
    """

    path: Path
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]
    width: int
    header: Sequence[str] = ()


def read_table(path: Path, faults: AnnotationFaults) -> CsvTable:
    """Reads a file in UTF-8, UTF-16 or UTF-32, separated by commas, semicolons or tabs.

    Args:
        path: of the file.
        faults: its `source` is what messages call the data set; counts what is not read.

    Raises:
        ValueError: when it can't be read, what its columns hold is not sure, or another column puts the rows into several splits;
            says which headers are understood, or what to do.
    """
    text = read_text(path, "save it as UTF-8")
    head = next((line for line in lines_of(text) if line.strip()), "")
    if not head:
        raise ValueError(f"{path}: must have a row for each box, got an empty file")
    table, fault = None, None
    for delimiter in _delimiters(text):
        try:
            table = _understood_table(path, _csv_rows(path, text, delimiter))
        except ValueError as error:  # another delimiter may be the file's own
            fault = fault or error
        if table is not None:
            break
    if table is None:
        raise fault or ValueError(
            f"{path}: must have columns that are understood, got the first line {shown(head, 120)}: {UNDERSTOOD}"
        )
    if not table.header:
        faults.add(NO_HEADER, str(path), len(table.rows))
    unread = [place for place in range(len(table.header)) if place not in table.columns.values()]
    _require_one_split(table, unread)
    names = [shown(table.header[place], 40) for place in unread]
    more = ", ..." if len(names) > _NAMED_COLUMNS else ""
    faults.add(UNREAD.format(", ".join(names[:_NAMED_COLUMNS]) + more), str(path), len(unread))
    return table


def looks_like_boxes(path: Path) -> bool:
    """Tells whether the first line of a file is that of a table of boxes; its other lines may have faults."""
    try:
        text = decode_text(path.read_bytes())
    except UnicodeDecodeError as error:
        text = error.object.decode("latin-1")  # the words of a header are ASCII
    except OSError:
        return False
    for delimiter in _delimiters(text):
        with contextlib.suppress(ValueError):
            first = next(_csv_rows(path, text, delimiter), (0, []))[1]
            if _has_needed(first) or _is_bare_row(first):
                return True
    return False


def _require_one_split(table: CsvTable, unread: Sequence[int]) -> None:
    """Refuses a table in which a column that is not read says that some rows are to train on and others to evaluate on."""
    for place in unread:
        name = plain_field(table.header[place])
        values = {fields[place].lower() for _, fields in table.rows if len(fields) == table.width} - NOTHING
        splits = {_split_of(value) for value in values}
        is_split = None not in splits or (name in _OF_SPLITS and splits != {None})
        is_flag = name in _OF_ONE_SPLIT and values <= _YES_OR_NO
        if (is_split and len(splits) > 1) or (is_flag and len({value[0] in "1ty" for value in values}) > 1):
            said = " and ".join(shown(value, 30) for value in sorted(values)[:4])
            raise ValueError(
                f"{table.path}: must hold the rows of one split, got {said} in column {shown(table.header[place], 40)}: write the rows of "
                "each split into a file of its own, for --data and --val-data, or remove the column to train on all rows"
            )


def _split_of(value: str) -> str | None:
    """Returns the split that a value names by its first word, as train2017 does; None: it names none."""
    match = re.match("[a-z]+", value)
    return _SPLIT_WORDS.get(match[0]) if match else None


def _delimiters(text: str) -> Sequence[str]:
    """Returns what may stand between fields: what Excel's own first line says, else what tools use."""
    known = _EXCEL.match(text)
    return (known[1],) if known else _DELIMITERS


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the fields of each line; empty lines and Excel's own first line are passed over."""
    if delimiter not in text:
        return
    lines = lines_of(text)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    begin = 1
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields) and not (reader.line_num == 1 and _EXCEL.match(text)):
                yield reader.line_num, fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: is not CSV: line {begin}: {error}: is a quote not closed there?") from error


def _understood_table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> CsvTable | None:
    first = next(rows, None)
    if first is None:
        return None
    columns = _columns_of_header(path, first[1])
    if columns is not None:
        return CsvTable(path, columns, list(rows), len(first[1]), first[1])
    if len(first[1]) != len(NEEDED) or not _is_bare_row(first[1]):
        return None
    every = [first, *rows]
    odd = next((row for row in every if not _is_bare_row(row[1])), None)
    inverted = [number for number, fields in every if fields[1] and not _is_ordered(fields)]
    if odd is not None or 10 * len(inverted) > len(every):
        number = odd[0] if odd is not None else inverted[0]
        raise ValueError(
            f"{path}: must have a header, or image,x1,y1,x2,y2,class in every line, with x2 > x1 and y2 > y1, got another line {number}: "
            f"write a header: {UNDERSTOOD}"
        )
    return CsvTable(path, {name: i for i, name in enumerate(NEEDED)}, every, len(NEEDED))


def _columns_of_header(path: Path, header: Sequence[str]) -> dict[str, int] | None:
    """Returns what the columns hold by the words of a header, None where it is no header that is understood."""
    if not _has_needed(header):
        return None
    plain = [plain_field(field) for field in header]
    columns: dict[str, int] = {}
    for name, words in COLUMNS.items():
        places = [i for i, field in enumerate(plain) if field in words]
        if len(places) > 1:
            both = " and ".join(header[i] for i in places)
            raise ValueError(f"{path}: must have one column for {name}, got {both}: remove or rename one")
        if places:
            columns[name] = places[0]
    return columns


def _has_needed(header: Sequence[str]) -> bool:
    plain = {plain_field(field) for field in header}
    return all(plain.intersection(COLUMNS[name]) for name in NEEDED)


def _is_bare_row(fields: Sequence[str]) -> bool:
    """Tells whether a row is image, x1, y1, x2, y2, class, or an image without an object: all others empty."""
    if len(fields) != len(NEEDED) or not fields[0].lower().endswith(tuple(image_endings())):
        return False
    if not any(fields[1:]):
        return True
    return all(read_number(field) is not None for field in fields[1:5]) and bool(fields[5])


def _is_ordered(fields: Sequence[str]) -> bool:
    x1, y1, x2, y2 = (read_number(field) or 0.0 for field in fields[1:5])
    return x2 > x1 and y2 > y1
