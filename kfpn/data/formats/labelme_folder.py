"""Finds labelme's JSON files below a folder, reads them, and finds the picture of each."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_values import read_number, shown
from kfpn.data.folder_entries import SpeltPaths
from kfpn.data.folder_index import FolderIndex, readings
from kfpn.data.formats.json_files import json_form, parsed_json
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, SPLITS
from kfpn.data.image_checks import NAMED_FAULTS, listing, progress
from kfpn.data.image_endings import image_endings, is_image_name
from kfpn.data.image_files import BY_LAST_PART, SPELT
from kfpn.data.remembered_source import files_below

RENAMED = "annotations whose imagePath is not there, so the one image of the annotation's name is taken"
WITHOUT_JSON = "images without a JSON file, left out"
BESIDE_SPLITS = "JSON files outside of the folders of splits, left out"


class LabelmeFile(NamedTuple):
    """Holds what a JSON file says.

    Attributes:
        path: of the file.
        image_path: as the file has it.
        declared: height and width, 0 where it does not say them.
        shapes: as the file has them.
        holds_image: bool, whether the picture itself is in the file.
    """

    path: Path
    image_path: str
    declared: tuple[int, int]
    shapes: list[Any]
    holds_image: bool


def json_files_below(folder: Path) -> list[Path]:
    """Returns all JSON files below a folder, sorted; those of kfpn's runs are left out."""
    top = os.path.abspath(folder)
    files = (file for file in files_below(str(folder)) if file.lower().endswith(".json"))
    return [folder / os.path.relpath(file, top) for file in files]


def labelme_splits(folder: Path) -> dict[str, Path]:
    """Returns the folder of each split of a folder that has folders `train`, `valid`, `test` with labelme's files; else none."""
    splits: dict[str, Path] = {}
    for split, words in SPLITS.items():
        places = [folder / word for word in words if any(map(is_labelme, json_files_below(folder / word)))]
        if len(places) > 1:
            raise ValueError(
                f"{folder}: {split} images must be in one folder, got {places[0]} and {places[1]}: rename or join them"
            )
        if places:
            splits[split] = places[0]
    return splits


def is_labelme(path: Path) -> bool:
    """Tells whether a JSON file has labelme's keys; it is not parsed."""
    return json_form(path) == "labelme"


def folder_of_split(folder: Path, split: str, faults: AnnotationFaults) -> Path:
    """Returns the folder in which the files of a split lie.

    Args:
        folder: of the data set. Without folders of splits it is all `train`.
        split: a word for it.
        faults: counts the files that are in no split.

    Raises:
        ValueError: when the folder or the split is not there.
    """
    if not folder.is_dir():
        raise ValueError(f"{faults.source}: folder {folder} does not exist (looked in {folder.parent.resolve()})")
    splits = labelme_splits(folder)
    wanted = SPLIT_OF_WORD.get(split)
    known = ", ".join(SPLITS[name][0] for name in splits)
    if not splits and wanted == "train":
        return folder
    if not splits:
        raise ValueError(f"{faults.source}: split must be left out, got {split!r}: {folder} has no folders of splits")
    if wanted not in splits:
        raise ValueError(f"{faults.source}: split must be one of {known}, got {split!r}")
    beside = [path for path in json_files_below(folder) if not any(map(path.is_relative_to, splits.values()))]
    faults.add(BESIDE_SPLITS, str(beside[0]) if beside else "", len(beside))
    return splits[wanted]


def read_labelme_files(folder: Path, faults: AnnotationFaults) -> list[LabelmeFile]:
    """Returns what all JSON files below a folder say, sorted by their paths.

    Raises:
        ValueError: when there is none, or one can't be read or is of another form; names it.
    """
    paths = json_files_below(folder)
    if not paths:
        raise ValueError(f"{faults.source}: must have labelme's JSON files, got none in {folder}")
    return [_read_file(path) for path in progress(paths, len(paths), f"reading the annotations of {faults.source}")]


def _read_file(path: Path) -> LabelmeFile:
    content = parsed_json(path, str(path), _without_picture)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(content, dict) or "shapes" not in content or "imagePath" not in content:
        keys = (
            f"the keys {shown(list(content)[:10], 150)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        )
        raise ValueError(
            f"{path}: must be labelme's JSON, with 'shapes' and 'imagePath', got {keys}: move it away, or export it as labelme's"
        )
    if not isinstance(shapes, list):
        raise ValueError(f"{path}: shapes must be a list, got {shown(shapes, 60)}")
    name = content["imagePath"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{path}: imagePath must be the name of the picture, got {shown(name, 60)}")
    return LabelmeFile(path, name, _declared(content, path), shapes, content.get("imageData") is True)


def _without_picture(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if isinstance(row.get("imageData"), str):
        row["imageData"] = bool(row["imageData"])  # most of the file: it never fills the memory
    return row


def _declared(content: dict[str, Any], path: Path) -> tuple[int, int]:
    sides = [content.get(key) for key in ("imageHeight", "imageWidth")]
    numbers = [0.0 if side is None else read_number(side) for side in sides]
    if not all(number is not None and 0 <= number < 2**31 for number in numbers):
        raise ValueError(
            f"{path}: imageHeight and imageWidth must be numbers of pixels, got {shown(sides[0], 40)} and {shown(sides[1], 40)}"
        )
    return int(numbers[0] or 0), int(numbers[1] or 0)


def pictures_of(files: Sequence[LabelmeFile], folder: Path, faults: AnnotationFaults) -> list[str]:
    """Returns the picture of each file: what its imagePath says, seen from the file, else what `_other_picture` finds.

    Args:
        files: of the data set.
        folder: that all of them lie in.
        faults: counts pictures that were found elsewhere, and those below the folder that no file is about.

    Raises:
        ValueError: when a picture is missing, two fit a file, or two files have one picture.
    """
    index, spelt = FolderIndex(folder, image_endings()), SpeltPaths()
    pictures = [_picture_beside(file) or _other_picture(file, index, spelt, faults) for file in files]
    missing = [file for file, picture in zip(files, pictures, strict=True) if picture is None]
    if missing:
        raise ValueError(_missing_pictures(missing, len(files), index, faults))
    known = [picture for picture in pictures if picture is not None]
    first: dict[str, Path] = {}
    for file, picture in zip(files, known, strict=True):
        other = first.setdefault(os.path.realpath(picture), file.path)
        if other != file.path:
            raise ValueError(
                f"{faults.source}: each picture must have one JSON file, got {other} and {file.path} for {picture}: correct imagePath, or "
                "remove one"
            )
    below = {os.path.abspath(picture) for picture in known}
    left = [file for file in files_below(str(folder)) if is_image_name(file) and file not in below]
    faults.add(WITHOUT_JSON, str(folder / os.path.relpath(left[0], os.path.abspath(folder))) if left else "", len(left))
    return known


def _picture_beside(file: LabelmeFile) -> str | None:
    """Returns the file that a relative imagePath names, which may lie in another folder: labelme writes ../images/a.jpg."""
    name = file.image_path.strip().replace("\\", "/")
    path = os.path.normpath(os.path.join(file.path.parent, name))
    if len(name) > 4096 or "\0" in name or os.path.isabs(name) or not is_image_name(path):
        return None
    return path if os.path.isfile(path) else None


def _other_picture(file: LabelmeFile, index: FolderIndex, spelt: SpeltPaths, faults: AnnotationFaults) -> str | None:
    """Finds a picture by its name in another spelling, by its last part beside the file or once below the folder, or by the file's name."""
    ways = readings(file.image_path)
    for kind, parts in (*((SPELT, parts) for parts in ways), *((BY_LAST_PART, parts[-1:]) for parts in ways)):
        place = spelt.find(file.path.parent, parts)
        if place is not None and is_image_name(place) and os.path.isfile(place):
            faults.add(kind, f"{file.path}: {file.image_path.strip()[:200]} is {place}")
            return str(place)
    own = file.path.parent.relative_to(index.folder).parts
    alone = not any(parts[:-1] == own for rivals in index.by_name.values() for parts in rivals.files)
    # Pictures of another folder are meant only where the file's own folder has none.
    named = index.find("/".join((*own, ways[0][-1]))).files if alone and ways else ()
    candidates = named or [parts for parts in index.find_stem((*own, file.path.stem)).files if parts[:-1] == own]
    if len(candidates) > 1:
        fits = " and ".join(index.path(parts) for parts in candidates[:2])
        raise ValueError(
            f"{file.path}: imagePath must say which picture it is about, got {file.image_path[:200]!r}, and two fit: {fits}"
        )
    if not candidates:
        return None
    picture = index.path(candidates[0])
    faults.add(BY_LAST_PART if named else RENAMED, f"{file.path}: {file.image_path.strip()[:200]} is {picture}")
    return picture


def _missing_pictures(missing: Sequence[LabelmeFile], count: int, index: FolderIndex, faults: AnnotationFaults) -> str:
    lines = []
    for file in missing[:NAMED_FAULTS]:
        near = index.nearest(file.image_path)
        lines.append(f"{file.path}: imagePath {file.image_path[:200]!r}{f' ({near} is there)' if near else ''}")
    hint = "Copy the pictures to where imagePath says, seen from the JSON file, or beside the JSON file"
    if any(file.holds_image for file in missing):
        hint += "; labelme_export_json FILE writes the picture that a JSON file holds (imageData)"
    title = f"{faults.source}: {len(missing)} of {count} pictures do not exist"
    return f"{listing(title, lines, len(missing))}\n{hint}"
