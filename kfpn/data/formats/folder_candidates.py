"""Lists what a folder may be: the forms of data sets that are recognized by their files."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.folder_entries import entries_of, folders_in
from kfpn.data.formats.coco_json import read_coco_json
from kfpn.data.formats.csv_columns import looks_like_boxes, read_table
from kfpn.data.formats.json_files import json_form
from kfpn.data.formats.labelme_folder import is_labelme, labelme_splits
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, SPLITS
from kfpn.data.formats.voc_folder import split_names
from kfpn.data.formats.yolo_folder import class_lists, data_yamls, described_data, folders_of_splits, holds_images
from kfpn.data.formats.yolo_images import label_folders
from kfpn.data.formats.yolo_yaml import read_data_yaml
from kfpn.data.image_checks import NAMED_FAULTS

_BLOCK = 1 << 22  # bytes
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.){1,1000}")')


class Candidate(NamedTuple):
    """Holds one way to read a folder.

    Attributes:
        kind: what it is, for people.
        names: split -> the name of its data for `open_source`.
    """

    kind: str
    names: dict[str, str]

    def options(self) -> str:
        """Returns the options of `kfpn train` that name it."""
        first = self.names.get("train") or next(iter(self.names.values()))
        validation = self.names.get("validation", first)
        known = validation in (first, f"{first},val")
        return f"--data {_quoted(first)}" + ("" if known else f" --val-data {_quoted(validation)}")


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[\s()&;]", name) else name


def candidates_in(folder: Path) -> list[Candidate]:
    """Returns the ways to read a folder."""
    return [candidate for find in (*_FINDERS, _as_labelme) for candidate in find(folder)]


def faults_in(folder: Path) -> list[str]:
    """Returns what is wrong with the first files of a folder that may have been meant as annotations, where none of them can be read."""
    files = [(path, read) for ending, read in _READERS.items() for path in _files_of_ending(folder, ending)]
    faults = []
    for path, read in files[:NAMED_FAULTS]:
        try:
            read(path)
        except ValueError as error:
            faults.append(str(error).partition("\n")[0])
    return faults


def _as_yolo(folder: Path) -> list[Candidate]:
    places = data_yamls(folder) or ([folder] if class_lists(folder) and _has_labels(folder) else [])
    return [_yolo_candidate(place) for place in places]


def _yolo_candidate(place: Path) -> Candidate:
    splits: Iterable[str] = ("train",)
    with contextlib.suppress(ValueError):  # what has faults is a data set all the same: opening it says which
        splits = described_data(place, AnnotationFaults(str(place))).splits
    names = {split: f"yolo:{place}" if split == "train" else f"yolo:{place},{SPLITS[split][0]}" for split in splits}
    return Candidate("YOLO", names)


def _has_labels(folder: Path) -> bool:
    with contextlib.suppress(ValueError):
        images = [folder / place for places in folders_of_splits(folder).values() for place in places]
        labels = [Path(place) for inner in images for place in label_folders(str(inner))]
        lists = class_lists(folder)
        return any(
            path.suffix.lower() == ".txt" and path not in lists for place in labels for path in entries_of(place)
        )
    return True  # a split in two folders: opening it says which


def _as_coco(folder: Path) -> list[Candidate]:
    files = [path for path in _files_of_ending(folder, ".json") if json_form(path) == "COCO"]
    return [_candidate_of_files("COCO JSON", "coco", group, folder, _first_coco_image) for group in _grouped(files)]


def _as_csv(folder: Path) -> list[Candidate]:
    files = [path for path in _files_of_ending(folder, ".csv") if looks_like_boxes(path)]
    return [
        _candidate_of_files("a table of boxes", "csv", group, folder, _first_csv_image) for group in _grouped(files)
    ]


def _candidate_of_files(
    kind: str, prefix: str, files: dict[str, Path], folder: Path, first_image: Callable[[Path], str | None]
) -> Candidate:
    """Returns the candidate of a file a split, whose images `_images_of` finds by the first one that the file names."""
    return Candidate(
        kind,
        {
            split: f"{prefix}:{path}{_images_of(path, folder, split, first_image(path))}"
            for split, path in files.items()
        },
    )


def _as_voc(folder: Path) -> list[Candidate]:
    if _is_voc(folder):
        lists = split_names(folder)
        wanted = {"train": ("train", "trainval"), "validation": ("val",), "test": ("test",)}
        named = {split: next((name for name in names if name in lists), None) for split, names in wanted.items()}
        names = {
            split: f"voc:{folder}" if name == "train" else f"voc:{folder},{name}"
            for split, name in named.items()
            if name is not None
        }
        return [Candidate("Pascal VOC", names if lists else {"train": f"voc:{folder}"})]
    places = {split: [folder / word for word in words if _is_voc(folder / word)] for split, words in SPLITS.items()}
    names = {split: f"voc:{folders[0]}" for split, folders in places.items() if folders}
    return [Candidate("Pascal VOC", names)] if names else []


def _is_voc(folder: Path) -> bool:
    inner = [path for path in folders_in(folder) if path.name.lower() == "annotations"]
    return any(path.suffix.lower() == ".xml" for place in (*inner, folder) for path in entries_of(place))


def _as_labelme(folder: Path) -> list[Candidate]:
    inner = [place for place in folders_in(folder) if _holds_labelme(place)]
    if not inner and not _holds_labelme(folder):
        return []
    if any(find(place) for place in inner for find in _FINDERS):  # each of these folders may be a data set of its own
        return []
    with contextlib.suppress(ValueError):  # a split in two folders: opening it says which
        splits = labelme_splits(folder)
        names = {split: f"labelme:{folder},{SPLITS[split][0]}" for split in splits} | {"train": f"labelme:{folder}"}
        kept = [split for split in SPLITS if split in (splits or ("train",))]
        return [Candidate("labelme", {split: names[split] for split in kept})]
    return [Candidate("labelme", {"train": f"labelme:{folder}"})]


def _holds_labelme(folder: Path) -> bool:
    return any(path.suffix.lower() == ".json" and is_labelme(path) for path in entries_of(folder))


def _files_of_ending(folder: Path, ending: str) -> list[Path]:
    """Returns the files of an ending in a folder, in its folder of annotations and in those of its splits."""
    inner = [path for path in folders_in(folder) if path.name.lower() in (*SPLIT_OF_WORD, "annotations")]
    paths = [path for place in (folder, *inner) for path in entries_of(place)]
    return [path for path in paths if path.suffix.lower() == ending and path.is_file()]


def _grouped(files: Iterable[Path]) -> list[dict[str, Path]]:
    """Puts files together that are the splits of one data set: they differ in the name of the split alone."""
    groups: dict[tuple[str, ...], dict[str, Path]] = {}
    for path in files:
        words = re.split(r"([a-zA-Z]+)", path.stem)
        own = [word.lower() for word in words if word.lower() in SPLIT_OF_WORD]
        above = path.parent.name.lower()
        split = SPLIT_OF_WORD[own[-1]] if own else SPLIT_OF_WORD.get(above)
        rest = "".join("*" if word.lower() in SPLIT_OF_WORD else word for word in words)
        place = path.parent.parent if not own and split else path.parent
        key = (str(path),) if split is None else (str(place), rest)
        if split in groups.get(key, {}):  # a second file for one split: a set of its own
            key = (*key, str(path))
        groups.setdefault(key, {})[split or "train"] = path
    return [{split: group[split] for split in SPLITS if split in group} for group in groups.values()]


def _images_of(path: Path, folder: Path, split: str, first: str | None) -> str:
    """Returns ",IMAGES_DIR" for the folder that holds the first image of a file, "" where that is the file's own."""
    inner = folders_in(folder) + folders_in(folder / "images")
    inner.sort(key=lambda entry: not any(word in entry.name.lower() for word in SPLITS[split]))
    places = [path.parent, folder, *inner, *(entry / "images" for entry in inner)]
    if first is not None and not Path(first).is_absolute():
        for place in places:
            with contextlib.suppress(OSError, ValueError):
                if (place / first).is_file():
                    return "" if place == path.parent else f",{place}"
    # Names of another machine are looked for below the folder: the smallest one that holds images.
    if holds_images(path.parent) or path.parent == folder:
        return ""
    return f",{folder}"


def _first_coco_image(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        match = _FILE_NAME.search(file.read(_BLOCK).replace(b"\0", b""))
        return str(json.loads(match[1])) if match else None
    return None


def _first_csv_image(path: Path) -> str | None:
    with contextlib.suppress(ValueError):  # a table with faults is one all the same: opening it says which
        table = read_table(path, AnnotationFaults(str(path)))
        return table.rows[0][1][table.columns["image"]] if table.rows else None
    return None


_FINDERS: tuple[Callable[[Path], list[Candidate]], ...] = (_as_yolo, _as_coco, _as_voc, _as_csv)
"""Of forms whose files say of many images, or lie in folders of known names."""

_READERS: dict[str, Callable[[Path], object]] = {
    ".yaml": lambda path: read_data_yaml(path, AnnotationFaults(str(path))),
    ".yml": lambda path: read_data_yaml(path, AnnotationFaults(str(path))),
    ".json": lambda path: read_coco_json(path, str(path)),
    ".csv": lambda path: read_table(path, AnnotationFaults(str(path))),
}
