"""Reads tables with a box in each row: `csv:FILE.csv[,IMAGES_DIR]`."""

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, upright_boxes
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.box_orders import XYXY, check_corner_order
from kfpn.data.field_values import comma_hint, read_flag, read_number, shown, whole_number
from kfpn.data.formats.csv_columns import FLAGS, NOTHING, CsvTable, read_table
from kfpn.data.image_checks import NAMED_FAULTS, listing, read_headers
from kfpn.data.image_files import ImageFiles
from kfpn.data.record import Source

REPEATED_ROWS = "rows that are there twice, left out"
FLAGGED_ROWS = "rows with {} 1, taken as crowd"
NUMBERED = "numbers of classes that are spelt otherwise, taken as the same"

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclasses.dataclass(frozen=True)
class _Box:
    """Holds a row: its line, its image's place in the list of names, its class as it is spelt, its corners, and whether it is crowd."""

    line: int
    image: int
    class_name: str
    corners: tuple[float, ...]
    crowd: bool


class CsvSource(AnnotatedSource):
    """Reads a CSV file with the columns image, x1, y1, x2, y2 and class, in whole or broken pixels from the image's corner.

    A row without box and class is an image without objects. The classes are sorted, by number where all are numbers. Rows of one
    image, class and box count once, however they are spelt.

    Args:
        path: of the file.
        images_dir: where the images are; None: beside the file.

    Raises:
        ValueError: when files are missing or damaged, or a row is not whole; names the file and the line.
    """

    def __init__(self, path: str | Path, images_dir: str | Path | None = None) -> None:
        file = Path(path).expanduser()
        name = f"csv:{path}"
        if not file.is_file():
            raise ValueError(
                f"csv: must name a table of boxes (.csv), got {path}, which is no file (looked in {file.parent.resolve()})"
            )
        faults = AnnotationFaults(name)
        table = read_table(file, faults)
        names, declared, rows = _read_boxes(table, faults)
        folder = file.parent if images_dir is None else Path(images_dir).expanduser()
        files = _found_files(names, folder, file, faults)
        images = list(dict.fromkeys(files))
        place = {image: i for i, image in enumerate(images)}
        of_name = np.asarray([place[image] for image in files], np.int64)
        sizes, orientations = read_headers(images, images, name)
        stored = in_stored_pixels(declared, sizes[of_name], orientations[of_name], files, name)
        name_of_class = _names_by_spelling({row.class_name for row in rows}, table, faults)
        class_names = _sorted_names(set(name_of_class.values()))
        if not class_names:
            raise ValueError(f"{name}: must have at least one box, got none in {len(table.rows)} rows")
        label_of_name = {class_name: label for label, class_name in enumerate(class_names)}
        label_of = {spelt: label_of_name[class_name] for spelt, class_name in name_of_class.items()}
        keys = [(of_name[row.image], label_of[row.class_name], row.corners) for row in rows]
        boxes = _without_repeats(rows, keys, file, faults)
        of_box = np.asarray([box.image for box in boxes], np.int64)
        of_image = of_name[of_box]
        corners = np.asarray([box.corners for box in boxes], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        check_corner_order(name, "boxes", XYXY, corners, sizes[of_image], orientations[of_image])
        raw = RawObjects(
            of_image,
            upright_boxes(corners, sizes[of_image], np.where(stored[of_box], orientations[of_image], 1)),
            [label_of[box.class_name] for box in boxes],
            [box.crowd for box in boxes],
            np.zeros(len(boxes)),
            where=lambda m: f"{file}, line {boxes[m].line}",
        )
        super().__init__(
            name=name,
            class_names=class_names,
            category_ids=range(1, len(class_names) + 1),
            table=ImageTable.of_files(images, sizes),
            annotations=collect(raw, sizes, faults),
        )
        self.report(faults)


def _read_boxes(table: CsvTable, faults: AnnotationFaults) -> tuple[list[str], np.ndarray, list[_Box]]:
    """Returns the names of the images, the height and width (N, 2) that rows declare for each (0: none), and the boxes."""
    if not table.rows:
        raise ValueError(f"{table.path}: must have a row for each box, got a header alone")
    names: dict[str, int] = {}
    declared: list[tuple[int, int]] = []
    boxes: list[_Box] = []
    for line, fields in table.rows:
        where = f"{table.path}, line {line}"
        if len(fields) != table.width:
            raise ValueError(
                f"{where}: must have {table.width} fields, got {len(fields)}: put text with the separator into quotes"
            )
        image = fields[table.columns["image"]]
        if not image or "\0" in image:
            raise ValueError(f"{where}: image must be the name of a file, got {shown(image, 60)}")
        index = names.setdefault(image, len(names))
        if index == len(declared):
            declared.append((0, 0))
        declared[index] = _joined_sides(declared[index], _declared_sides(table, fields, where), where)
        corners = [fields[table.columns[corner]] for corner in _CORNERS]
        class_name = fields[table.columns["class"]]
        if all(text.lower() in NOTHING for text in (*corners, class_name)):
            continue
        crowd = _is_flagged(table, fields, where, faults)
        boxes.append(_Box(line, index, _row_class(class_name, where), _corner_numbers(corners, where), crowd))
    return list(names), np.asarray(declared, np.int64), boxes


def _without_repeats(rows: list[_Box], keys: list[tuple], file: Path, faults: AnnotationFaults) -> list[_Box]:
    """Returns the first row of each key, and counts the others."""
    first: dict[tuple, _Box] = {}
    for row, key in zip(rows, keys, strict=True):
        if first.setdefault(key, row) is not row:
            faults.add(REPEATED_ROWS, f"{file}, line {row.line}")
    return list(first.values())


def _is_flagged(table: CsvTable, fields: Sequence[str], where: str, faults: AnnotationFaults) -> bool:
    """Tells whether one of a row's flags makes its box crowd, and counts it by the first of them."""
    for flag in FLAGS:
        text = fields[table.columns[flag]] if flag in table.columns else ""
        if read_flag(None if text.lower() in NOTHING else text, f"{where}: {flag}", yes=("yes",), no=("no",)):
            faults.add(FLAGGED_ROWS.format(flag), where)
            return True
    return False


def _corner_numbers(corners: Sequence[str], where: str) -> tuple[float, ...]:
    numbers = [read_number(text) for text in corners]
    known = [number for number in numbers if number is not None]
    if len(known) != len(corners):
        raise ValueError(
            f"{where}: box must be four numbers, x1, y1, x2, y2, got {', '.join(corners)[:100]!r}{comma_hint(*corners)}"
        )
    return tuple(known)


def _row_class(text: str, where: str) -> str:
    if text.lower() in NOTHING or "\0" in text:
        hint = (
            ", which tools write where a name is missing: write the name, or another one if it is a class"
            if text
            else ""
        )
        raise ValueError(f"{where}: class must be a name, got {shown(text, 60)} for a box{hint}")
    return text


def _declared_sides(table: CsvTable, fields: Sequence[str], where: str) -> tuple[int, int]:
    """Returns the height and the width that a row declares, 0 where it does not."""
    texts = [fields[table.columns[side]] if side in table.columns else "" for side in ("height", "width")]
    sides = [0 if text.lower() in NOTHING else whole_number(text) for text in texts]
    if not all(side is not None and 0 <= side < 2**31 for side in sides):
        raise ValueError(
            f"{where}: width and height must be numbers of pixels, got {texts[1][:40]!r} and {texts[0][:40]!r}"
        )
    return sides[0] or 0, sides[1] or 0


def _joined_sides(before: tuple[int, int], now: tuple[int, int], where: str) -> tuple[int, int]:
    """Returns the height and the width that an image's rows declare together."""
    if any(side and known not in (0, side) for known, side in zip(before, now, strict=True)):
        raise ValueError(
            f"{where}: width and height must be those of the image's first row, {before[::-1]}, got {now[::-1]}"
        )
    return before[0] or now[0], before[1] or now[1]


def _names_by_spelling(spellings: set[str], table: CsvTable, faults: AnnotationFaults) -> dict[str, str]:
    """Returns the name of each class by its spelling: `1`, `01` and `1.0`, as tools write one number, are `1`."""
    numbers = {text: whole_number(text) for text in spellings}
    count = collections.Counter(numbers.values())
    all_numbers = None not in count
    names = {text: str(n) if n is not None and (all_numbers or count[n] > 1) else text for text, n in numbers.items()}
    other = sorted(text for text, class_name in names.items() if text != class_name)
    if other:
        faults.add(NUMBERED, f"{table.path}: {shown(other[0], 40)} is {names[other[0]]!r}", len(other))
    return names


def _sorted_names(names: set[str]) -> list[str]:
    """Returns the names in their order: by number where all are numbers."""
    numbers = {name: whole_number(name) for name in names}
    if None in numbers.values():
        return sorted(names)
    return sorted(names, key=lambda name: numbers[name] or 0)


def _found_files(names: list[str], folder: Path, file: Path, faults: AnnotationFaults) -> list[str]:
    search = ImageFiles(folder, faults, f"csv:{file},IMAGES_DIR")
    paths = search.find(names)
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        near = search.index.nearest(missing[0]) if search.index is not None else None
        title = f"{faults.source}: {len(missing)} of {len(names)} images do not exist in {folder}"
        hint = f"{near} is there" if near else f"name the folder of the images: csv:{file},IMAGES_DIR"
        raise ValueError(f"{listing(title, [name[:300] for name in missing[:NAMED_FAULTS]], len(missing))}\n{hint}")
    return [os.path.normpath(path) for path in paths if path is not None]


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `FILE.csv[,IMAGES_DIR]`; the format has no splits, and no masks."""
    del masks
    if Path(place).expanduser().exists():
        return CsvSource(place)
    begin = place.lower().find(".csv,")
    head, folder = (place[: begin + 4], place[begin + 5 :]) if begin > 0 else (place, "")
    return CsvSource(head, folder or None)


def validation_data(place: str) -> None:
    """Returns None: a table does not say which other one belongs to it."""
