"""Opens data sets by their names: the table of data formats, and what is made of it.

A format is a module here and a row of `FORMATS`. The module has

- `open_place(place, split, masks=False)`: returns the checked `Source`; `place` is the text behind the prefix; with `masks` its
  records have the masks that the data set has;
- `validation_data(place)`: returns the name of another split to validate on, for `open_source`, or None;
- `annotation_files(place, split)`, where that is not the one file or folder that `place` names: returns the files that a split
  is made from, so that a change of one of them is noticed.
"""

import difflib
import importlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, get_args

from kfpn.config.checks import require_local
from kfpn.config.run import CheckImages
from kfpn.data.check_memory import CheckMemory
from kfpn.data.record import Record, Source
from kfpn.data.remembered_source import existing_part, files_below, open_remembered


def _name_of_folder(place: str) -> str:
    return Path(place.split(",")[0]).resolve().name


def _name_of_file(place: str) -> str:
    path = Path(place.split(",")[0])
    return f"{path.resolve().parent.name}-{path.stem}"


def _name_of_place(place: str) -> str:
    path = Path(place.split(",")[0])
    return (path if path.suffix.lower() not in (".yaml", ".yml") else path.parent).resolve().name


def _name_as_written(place: str) -> str:
    return place.split(",")[0]


class DataFormat(NamedTuple):
    """A row of the table: a form that the name of a data set can have.

    Attributes:
        prefix: str, stands before the colon.
        form: str, how the name is written.
        help: str, what it reads, in one line.
        module: str, the module here that opens it. It is imported when it is needed: TensorFlow Datasets takes seconds.
        run_name: function of the place: what a run on this data is called.
        sign: str, by which a path without a prefix is known: an ending (".json"), or what a folder holds ("Annotations/", "*.json").
        has_place: bool, whether a colon and a place follow the prefix.
        is_split: bool, whether data without a validation split are split by image where nobody says otherwise. Those of the
            forms of 0.1.0 are not: their runs go on as they began.
    """

    prefix: str
    form: str
    help: str
    module: str
    run_name: Callable[[str], str] = _name_of_folder
    sign: str = ""
    has_place: bool = True
    is_split: bool = False


FORMATS = (
    DataFormat(
        "shapes", "shapes[,SPLIT]", "the built-in data set, generated offline", "toy_shapes",
        _name_as_written, has_place=False,
    ),
    DataFormat(
        "coco", "coco:ANNOTATIONS.json[,IMAGES_DIR]", "COCO detection JSON; images beside the JSON by default", "coco",
        _name_of_file, ".json",
    ),
    DataFormat(
        "voc", "voc:DIR[,SPLIT]", "DIR/Annotations/*.xml, DIR/JPEGImages, DIR/ImageSets/Main/SPLIT.txt", "voc",
        sign="Annotations/",
    ),
    DataFormat(
        "yolo", "yolo:DATA.yaml[,SPLIT]", "YOLO labels, boxes or polygons; or a folder: classes.txt, images, labels", "yolo",
        _name_of_place, ".yaml", is_split=True,
    ),
    DataFormat(
        "csv", "csv:FILE.csv[,IMAGES_DIR]", "a box in each row: image, x1, y1, x2, y2, class; images beside the file by default",
        "csv_boxes", _name_of_file, ".csv", is_split=True,
    ),
    DataFormat(
        "labelme", "labelme:FOLDER[,SPLIT]", "the JSON files that labelme saves beside pictures; or train, valid and test with them",
        "labelme", sign="*.json", is_split=True,
    ),
    DataFormat(
        "tfds", "tfds:NAME[,SPLIT]", "any TFDS set with objects/bbox (coco/2017, voc/2007 ...), by TFDS' own download and cache", "tfds",
        _name_as_written,
    ),
    DataFormat(
        "folder", "FOLDER[,SPLIT]", "any folder with one data set of these forms (but tfds): what it is is found out, and said",
        "bare_folder", is_split=True,
    ),
)  # fmt: skip
"""The formats, in the order in which help and errors list them."""
_BARE_FOLDER = FORMATS[-1]

IN_PYTHON = "an IterableSource(records, class_names) in Python"


def open_source(
    data: str | os.PathLike[str] | Iterable[Record] | Source,
    split: str = "train",
    check_images: CheckImages = "once",
    masks: bool = False,
) -> Source:
    """Opens and checks a data set.

    Args:
        data: a name, in one of the forms of `FORMATS`, or a folder as a `Path`; a source is returned as it is.
        split: the split of `shapes`, `voc:` and `tfds:` when `data` does not name one.
        check_images: how the image files of `coco:` and `voc:` are checked, see `Config.check_images`.
        masks: whether the objects' masks are kept too, where the data set has them; they take time and memory.

    Returns:
        The data set: its records in a fixed order.

    Raises:
        ValueError: when `data` has no known form, or the data set cannot be used; says what and why.
    """
    if isinstance(data, os.PathLike):
        data = os.fspath(data)
    if not isinstance(data, str):
        if isinstance(data, Source):
            return data
        raise ValueError(
            "data must be the name of a data set or a source; records need class names: "
            f"kfpn.IterableSource(records, class_names); got a {type(data).__name__}"
        )
    if check_images not in get_args(CheckImages):
        raise ValueError(f"check_images must be one of {', '.join(get_args(CheckImages))}, got {check_images!r}")
    return _open_named(data, split, check_images, beside_data=True, masks=masks)


def open_untouched(data: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens and checks a data set as `open_source` does, and writes nothing beside it.

    Args:
        data: a name, in one of the forms of `FORMATS`.
        split: as for `open_source`.
        masks: as for `open_source`.

    Raises:
        ValueError: as `open_source`.
    """
    return _open_named(data, split, "once", beside_data=False, masks=masks)


def _open_named(data: str, split: str, check_images: CheckImages, *, beside_data: bool, masks: bool) -> Source:
    row, place = _row_and_place(data)
    module = _module(row)
    if row is _BARE_FOLDER:
        name, split = module.name_and_split(place, split)
        return _open_named(name, split, check_images, beside_data=beside_data, masks=masks)
    beside = existing_part(place) if row.sign else None
    files = _annotation_files(module, place, split, beside) if beside is not None else []
    if beside is None or not files:
        return module.open_place(place, split, masks=masks)
    # The data set's files are named as its text names them, so a relative one is another from another folder.
    where = "" if all(Path(part).expanduser().is_absolute() for part in place.split(",")) else os.getcwd()
    kept = " with masks" if masks else ""
    memory = CheckMemory(f"{data} {split} {where}{kept}", beside, check_images, beside_data=beside_data)
    return open_remembered(lambda: module.open_place(place, split, masks=masks), memory, files)


def _annotation_files(module: ModuleType, place: str, split: str, beside: Path) -> list[str]:
    """Returns the files that a data set is made from, none where it can't be one: the error comes before all is looked through."""
    if listed := getattr(module, "annotation_files", None):
        return listed(place, split)
    known = beside.is_file() or (beside / "Annotations").is_dir() or any(beside.glob("*.xml"))
    return files_below(str(beside)) if known else []


def default_val_data(data: str) -> str | None:
    """Returns the name of the data to validate on when none was given: another split of the same data set.

    Args:
        data: name of the training data. For `tfds:` the data set is downloaded to learn its splits.

    Returns:
        A name for `open_source`, or None when the data set has no other split.

    Raises:
        ValueError: when `data` has no known form.
    """
    row, place = _row_and_place(data)
    return _module(row).validation_data(place)


def named_splits(data: str) -> dict[str, str]:
    """Returns the splits of a data set: "train", "validation" or "test" -> a name for `open_source`.

    Of a folder these are all that it has, of other forms the data themselves and the split to validate on.
    """
    row, place = _row_and_place(data)
    if row is _BARE_FOLDER:
        return _module(row).splits_of(place)
    validation = default_val_data(data)
    return {"train": data} | ({"validation": validation} if validation else {})


def data_folder(data: str) -> Path | None:
    """Returns the folder that a name of data stands for, None where it stands for a file or something else."""
    row, place = _row_and_place(data)
    folder = existing_part(place) if row.sign or row is _BARE_FOLDER else None
    return folder.resolve() if folder is not None and folder.is_dir() else None


def splits_itself(data: str) -> bool:
    """Returns whether data of this name are split by image where they have no validation split and nobody says otherwise."""
    return _row_and_place(data)[0].is_split


def run_name(data: str) -> str:
    """Returns a folder name for a run on a data set: `voc:photos/bccd` -> `bccd`, `coco:cars/train.json` -> `cars-train`."""
    prefix, _, place = data.partition(":")
    row = next((row for row in FORMATS if row.prefix == prefix and place), None)
    name = row.run_name(place) if row else _name_of_folder(data) if "," not in data else data
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or prefix


def describe_formats() -> str:
    """Returns a line for each format: how the name is written, and what it reads."""
    width = max(len(row.form) for row in FORMATS)
    return "\n".join(f"  {row.form:<{width}}  {row.help}" for row in FORMATS)


def _module(row: DataFormat) -> ModuleType:
    return importlib.import_module(f"{__name__}.{row.module}")


def _row_and_place(data: str) -> tuple[DataFormat, str]:
    prefix, colon, place = data.partition(":")
    known = any(row.prefix == prefix for row in FORMATS if row.has_place)
    require_local("data", place if known else data)
    for row in FORMATS:
        if row.has_place and colon and place and row.prefix == prefix:
            return row, place
        if not row.has_place and data.partition(",")[0] == row.prefix:
            return row, data
    if (folder := existing_part(data)) is not None and folder.is_dir():
        return _BARE_FOLDER, data
    forms = ", ".join(row.form for row in FORMATS)
    raise ValueError(f"data must be {forms} or {IN_PYTHON}, got {data!r}{_suggestion(data)}")


def _suggestion(data: str) -> str:
    prefix, colon, place = data.partition(":")
    for row in FORMATS:
        has_ending = row.sign.startswith(".") and not colon and data.partition(",")[0].endswith(row.sign)
        if has_ending:
            return f"; did you mean '{row.prefix}:{data}'?"
    rows = {row.prefix: row for row in FORMATS}
    names = difflib.get_close_matches(prefix.partition(",")[0], rows, n=1, cutoff=0.6)
    if not names:
        if "/" in data or os.sep in data:  # such as the data of a run that was started in another folder
            return f", which does not exist, seen from {os.getcwd()}"
        return "; your own images: a folder that is there, coco:ANNOTATIONS.json,IMAGES_DIR or voc:DIR"
    near = rows[names[0]]
    return f"; the nearest is '{near.prefix}:{place}'" if place and near.has_place else f"; the nearest is {near.form}"
