"""Reads tables with a box in each row: `csv:FILE.csv[,IMAGES_DIR]`."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, upright_boxes
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.field_values import comma_hint, read_number, shown, whole_number
from kfpn.data.formats.csv_columns import CsvTable, read_table
from kfpn.data.image_checks import NAMED_FAULTS, listing, read_headers
from kfpn.data.image_files import ImageFiles
from kfpn.data.record import Source

REPEATED_ROWS = "rows that are there twice, left out"

_CORNERS = ("x1", "y1", "x2", "y2")
_NOTHING = frozenset(("", "nan", "null", "none"))


@dataclasses.dataclass(frozen=True)
class _Box:
    """Holds a row: its line, its image's place in the list of names, its class and its corners."""

    line: int
    image: int
    class_name: str
    corners: list[float]


class CsvSource(AnnotatedSource):
    """Reads a CSV file with the columns image, x1, y1, x2, y2 and class, in whole or broken pixels from the image's corner.

    A row without box and class is an image without objects. The classes are sorted, by number where all are numbers.

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
        names, declared, boxes = _read_boxes(table, faults)
        folder = file.parent if images_dir is None else Path(images_dir).expanduser()
        files = _found_files(names, folder, file, faults)
        images = list(dict.fromkeys(files))
        place = {image: i for i, image in enumerate(images)}
        sizes, orientations = read_headers(images, images, name)
        said = np.zeros((len(images), 2), np.int64)
        for image, size in zip(files, declared, strict=True):
            said[place[image]] = np.maximum(said[place[image]], size)
        stored = in_stored_pixels(said, sizes, orientations, images, name)
        class_names = _sorted_names({box.class_name for box in boxes})
        if not class_names:
            raise ValueError(f"{name}: must have at least one box, got none in {len(table.rows)} rows")
        label_of = {class_name: label for label, class_name in enumerate(class_names)}
        of_image = np.asarray([place[files[box.image]] for box in boxes], np.int64)
        corners = np.asarray([box.corners for box in boxes], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        raw = RawObjects(
            of_image,
            upright_boxes(corners, sizes[of_image], np.where(stored, orientations, 1)[of_image]),
            [label_of[box.class_name] for box in boxes],
            np.zeros(len(boxes), bool),
            np.zeros(len(boxes)),
            where=lambda m: f"{file}, line {boxes[m].line}",
        )
        super().__init__(
            name=name,
            class_names=class_names,
            category_ids=range(1, len(class_names) + 1),
            table=ImageTable(images, images, range(1, len(images) + 1), sizes),
            annotations=collect(raw, sizes, faults),
        )
        self.report(faults)


def _read_boxes(table: CsvTable, faults: AnnotationFaults) -> tuple[list[str], list[tuple[int, int]], list[_Box]]:
    """Returns the names of the images, the height and width that rows declare for each (0: none), and the boxes."""
    if not table.rows:
        raise ValueError(f"{table.path}: must have a row for each box, got a header alone")
    names: dict[str, int] = {}
    declared: list[tuple[int, int]] = []
    boxes: list[_Box] = []
    seen: set[tuple[str, ...]] = set()
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
        size = _declared_sides(table, fields, where)
        if index == len(declared):
            declared.append(size)
        elif 0 in declared[index]:
            declared[index] = size
        elif 0 not in size and size != declared[index]:
            raise ValueError(
                f"{where}: width and height must be those of the image's first row, {declared[index][::-1]}, got {size[::-1]}"
            )
        corners = [fields[table.columns[corner]] for corner in _CORNERS]
        class_name = fields[table.columns["class"]]
        if all(text.lower() in _NOTHING for text in (*corners, class_name)):
            continue
        key = (image, *corners, class_name)
        if key in seen:
            faults.add(REPEATED_ROWS, where)
            continue
        seen.add(key)
        boxes.append(_Box(line, index, _row_class(class_name, where), _corner_numbers(corners, where)))
    return list(names), declared, boxes


def _corner_numbers(corners: Sequence[str], where: str) -> list[float]:
    numbers = [read_number(text) for text in corners]
    known = [number for number in numbers if number is not None]
    if len(known) != len(corners):
        raise ValueError(
            f"{where}: box must be four numbers, x1, y1, x2, y2, got {', '.join(corners)[:100]!r}{comma_hint(*corners)}"
        )
    return known


def _row_class(text: str, where: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"{where}: class must be a name, got {shown(text, 60)} for a box")
    return text


def _declared_sides(table: CsvTable, fields: Sequence[str], where: str) -> tuple[int, int]:
    if "width" not in table.columns or "height" not in table.columns:
        return 0, 0
    texts = [fields[table.columns[side]] for side in ("height", "width")]
    sides = [0 if text.lower() in _NOTHING else whole_number(text) for text in texts]
    if not all(side is not None and 0 <= side < 2**31 for side in sides):
        raise ValueError(
            f"{where}: width and height must be numbers of pixels, got {texts[1][:40]!r} and {texts[0][:40]!r}"
        )
    return sides[0] or 0, sides[1] or 0


def _sorted_names(names: set[str]) -> list[str]:
    numbers = {name: whole_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return sorted(names, key=lambda name: (numbers[name] or 0, name))
    return sorted(names)


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


def open_place(place: str, split: str = "train") -> Source:
    """Opens `FILE.csv[,IMAGES_DIR]`; the format has no splits."""
    if Path(place).expanduser().exists():
        return CsvSource(place)
    begin = place.lower().find(".csv,")
    head, folder = (place[: begin + 4], place[begin + 5 :]) if begin > 0 else (place, "")
    return CsvSource(head, folder or None)


def validation_data(place: str) -> None:
    """Returns None: a table does not say which other one belongs to it."""
