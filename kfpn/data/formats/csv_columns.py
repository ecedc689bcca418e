"""Finds out which columns of a CSV file hold the image, the box and the class."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_values import read_number, shown
from kfpn.data.image_endings import image_endings
from kfpn.data.text_files import lines_of, read_text

UNREAD = "columns that are not read"
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
}
"""What a column holds -> its names, without spaces, underscores, hyphens and case."""
NEEDED = ("image", "x1", "y1", "x2", "y2", "class")
UNDERSTOOD = (
    "image,x1,y1,x2,y2,class or filename,width,height,class,xmin,ymin,xmax,ymax (in any order; also path or file for the image, left, top, "
    "right, bottom, and label, name or category); without a header only image,x1,y1,x2,y2,class"
)

_DELIMITERS = (",", ";", "\t")
_EXCEL = re.compile(r"sep=(.)\r?\n?")


@dataclass(frozen=True)
class CsvTable:
    """Holds the rows of a file.

    Attributes:
        path: of the file.
        columns: what a column holds -> its place in a row.
        rows: (number of the line, the row's fields), the header left out.
        width: int, fields in a row.
        headed: bool, whether the file has a header.
    """

    path: Path
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]
    width: int
    headed: bool = True


def read_table(path: Path, faults: AnnotationFaults) -> CsvTable:
    """Reads a file in UTF-8, UTF-16 or UTF-32, separated by commas, semicolons or tabs.

    Args:
        path: of the file.
        faults: its `source` is what messages call the data set; counts what is not read.

    Raises:
        ValueError: when it can't be read, or what its columns hold is not sure; says which headers are understood.
    """
    text = read_text(path, "save it as UTF-8")
    head = next((line for line in lines_of(text) if line.strip()), "")
    if not head:
        raise ValueError(f"{path}: must have a row for each box, got an empty file")
    known = _EXCEL.fullmatch(head.strip())  # Excel's own first line
    delimiters = (known[1],) if known else _DELIMITERS
    table, fault = None, None
    for delimiter in delimiters:
        try:
            table = _understood_table(path, _csv_rows(path, text, delimiter, skip=bool(known)))
        except ValueError as error:  # another delimiter may be the file's own
            fault = fault or error
        if table is not None:
            break
    if table is None:
        raise fault or ValueError(
            f"{path}: must have columns that are understood, got the first line {shown(head, 120)}: {UNDERSTOOD}"
        )
    if not table.headed:
        faults.add(NO_HEADER, str(path), len(table.rows))
    faults.add(UNREAD, str(path), table.width - len(table.columns))
    return table


def looks_like_boxes(path: Path) -> bool:
    """Tells whether a file is a table of boxes that `read_table` reads."""
    try:
        read_table(path, AnnotationFaults(str(path)))
    except ValueError:
        return False
    return True


def _csv_rows(path: Path, text: str, delimiter: str, *, skip: bool) -> Iterator[tuple[int, list[str]]]:
    if delimiter not in text:
        return
    lines = lines_of(text)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields) and not (skip and reader.line_num == 1):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{path}: is not CSV: line {reader.line_num}: {error}") from error


def _understood_table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> CsvTable | None:
    first = next(rows, None)
    if first is None:
        return None
    columns = _columns_of_header(path, first[1])
    if columns is not None:
        return CsvTable(path, columns, list(rows), len(first[1]))
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
    return CsvTable(path, {name: i for i, name in enumerate(NEEDED)}, every, len(NEEDED), headed=False)


def _columns_of_header(path: Path, header: Sequence[str]) -> dict[str, int] | None:
    """Returns what the columns hold by the words of a header, None where it is no header that is understood."""
    plain = [re.sub(r"[\s_\-]", "", field).lower() for field in header]
    columns: dict[str, int] = {}
    for name, words in COLUMNS.items():
        places = [i for i, field in enumerate(plain) if field in words]
        if len(places) > 1:
            both = " and ".join(header[i] for i in places)
            raise ValueError(f"{path}: must have one column for {name}, got {both}: remove or rename one")
        if places:
            columns[name] = places[0]
    return columns if all(name in columns for name in NEEDED) else None


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
