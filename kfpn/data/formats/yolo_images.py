"""Finds the images of a data set in YOLO's form, and the label file of each."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.folder_entries import SpeltPaths, names_in
from kfpn.data.folder_index import FolderIndex, is_hidden, plain_spelling, readings
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD
from kfpn.data.formats.yolo_yaml import DataYaml
from kfpn.data.image_checks import NAMED_FAULTS, listing
from kfpn.data.image_endings import image_endings
from kfpn.data.image_files import SPELT
from kfpn.data.text_files import lines_of, read_text

ELSEWHERE = "places of the yaml that are not there as they are written, found beside it"
NO_LABELS = "images without a label file, taken as images without objects"
NO_IMAGE = "label files without an image, left out"
NOT_IMAGES = "files of the folders of images that are no images, left out"

_NO_LABEL_FILES = ("classes.txt", "notes.txt", "readme.txt", "labels.txt", "predefined_classes.txt")


@dataclass
class YoloFiles:
    """Holds the files of one split.

    Attributes:
        images: paths, in the order of the yaml and sorted within a folder.
        labels: the label file of each image, None where there is none.
        lists: the lists (.txt) that name images.
    """

    images: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)


def files_of_split(data: DataYaml, split: str, faults: AnnotationFaults) -> YoloFiles:
    """Finds the images and the label files of a split.

    Args:
        data: what the yaml says.
        split: one of `data.splits`.
        faults: counts what was found elsewhere, and what has no partner.

    Raises:
        ValueError: when a folder, a list or an image is missing, or comes twice; says which.
    """
    files = YoloFiles()
    origin: dict[str, str] = {}
    only_folders = True
    for entry in data.splits[split]:
        place = find_place(data, entry, faults)
        if os.path.isdir(place):
            listed = _images_below(place, faults)
        else:
            only_folders = False
            files.lists.append(str(place))
            listed = _images_of_list(place, data, faults)
        for image, said in listed:
            path = os.path.abspath(image)
            if path in origin:
                raise ValueError(
                    f"{faults.source}: each image must be there once, got {image} twice: {origin[path]} and {said}"
                )
            origin[path] = said
            files.images.append(image)
    if not files.images:
        where = ", ".join(data.splits[split])
        raise ValueError(f"{faults.source}: must have at least one image, got none in {where} (of {data.path})")
    finder = _LabelFinder(faults)
    files.labels = [finder.find(image) for image in files.images]
    if not any(files.labels):
        raise ValueError(
            f"{faults.source}: must have label files, got none for {len(files.images)} images: looked in "
            f"{' and '.join(label_folders(os.path.dirname(files.images[0])))}"
        )
    missing = [image for image, label in zip(files.images, files.labels, strict=True) if label is None]
    faults.add(NO_LABELS, missing[0] if missing else "", len(missing))
    if only_folders:
        unused = finder.unused()
        faults.add(NO_IMAGE, unused[0] if unused else "", len(unused))
    return files


def find_place(data: DataYaml, entry: str, faults: AnnotationFaults) -> Path:
    """Returns the folder or the list that an entry of the yaml stands for.

    It is looked for below `path`, seen from the yaml's folder, in that folder itself (with and without a leading `..`, which
    Roboflow writes), below `path` seen from the current folder, and, where it was written on another machine, by its last
    parts in the yaml's folder.

    Raises:
        ValueError: when none is there; says where it was looked for.
    """
    beside, root = data.folder, Path(os.path.expanduser(data.root))
    tried: list[Path] = []
    for base in (beside / root, beside, root):
        tried.append(base / os.path.expanduser(entry))
        if base == beside and entry.startswith("../"):
            tried.append(base / entry.removeprefix("../"))
    if _is_foreign_path(entry):
        tried += [beside.joinpath(*rest) for rest in _last_parts(entry)]
    for number, place in enumerate(tried):
        if os.path.isdir(place) or (os.path.isfile(place) and place.suffix.lower() == ".txt"):
            if number:
                faults.add(ELSEWHERE, f"{entry} is {place}")
            return place
    first = next((place for place in tried if os.path.isfile(place)), None)
    if first is not None:
        raise ValueError(
            f"{data.path}: {entry} must be a folder of images or a list of them (.txt), got the file {first}"
        )
    said = ", ".join(dict.fromkeys(str(place) for place in tried[:3]))
    raise ValueError(
        f"{data.path}: {entry[:200]} must be a folder of images or a list of them (.txt), got none: looked for {said[:600]}"
    )


def _images_below(folder: Path, faults: AnnotationFaults) -> Iterator[tuple[str, str]]:
    index = FolderIndex(folder, image_endings())
    parts = sorted(parts for rivals in index.by_name.values() for parts in rivals.files)
    for own in parts:
        yield index.path(own), f"folder {folder}"
    others = [name for name in names_in(folder) if Path(name).suffix.lower() not in (*image_endings(), ".txt")]
    files = [name for name in others if (folder / name).is_file()]
    faults.add(NOT_IMAGES, str(folder / files[0]) if files else "", len(files))


def _images_of_list(path: Path, data: DataYaml, faults: AnnotationFaults) -> Iterator[tuple[str, str]]:
    lines = lines_of(read_text(path))
    bases = list(dict.fromkeys((path.parent, data.folder / data.root, data.folder, Path())))
    missing, spelt = [], SpeltPaths()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or is_hidden(readings(text)[0][-1] if readings(text) else ""):
            continue
        image = _listed_image(text, bases, spelt, faults)
        if image is None:
            missing.append(f"line {number}: {text[:200]}")
        else:
            yield image, f"line {number} of {path}"
    if missing:
        title = f"{faults.source}: {len(missing)} images of the list {path} do not exist"
        raise ValueError(
            f"{listing(title, missing[:NAMED_FAULTS], len(missing))}\nLooked from {', '.join(map(str, bases[:3]))}"
        )


def _listed_image(text: str, bases: Sequence[Path], spelt: SpeltPaths, faults: AnnotationFaults) -> str | None:
    if "\0" in text:
        return None
    # Unlike Path.is_file, os.path.isfile takes a name that is too long as one that is not there.
    for base in bases:
        if os.path.isfile(path := base / text):
            return str(path)
    for rest in _last_parts(text):  # a path of another machine: the most of it that is there
        for base in bases[:3]:
            # A name alone is not looked for: many folders may have one.
            if len(rest) > 1 and os.path.isfile(path := base.joinpath(*rest)):
                faults.add(SPELT, f"{text[:200]} is {path}")
                return str(path)
    for rest in _last_parts(text):
        for base in bases[:3]:
            alike = spelt.find(base, rest) if len(rest) > 1 or rest in readings(text) else None
            if alike is not None and os.path.isfile(alike):
                faults.add(SPELT, f"{text[:200]} is {alike}")
                return str(alike)
    return None


def _is_foreign_path(text: str) -> bool:
    return text.startswith(("/", "..", "~")) or "\\" in text or ":" in text[:2] or "://" in text


def _last_parts(text: str) -> Iterator[tuple[str, ...]]:
    """Yields the ends of a path, the longest first; the name of a split is never cut off: val/a.jpg is not train/a.jpg."""
    for parts in readings(text):
        own = tuple(part for part in parts if part != "..")
        splits = [i for i, part in enumerate(own) if part.lower() in SPLIT_OF_WORD]
        yield from (own[begin:] for begin in range(1 + (splits[0] if splits else len(own) - 1)))


def label_folders(folder: str) -> list[str]:
    """Returns the folders of the label files of a folder of images: the last `images` of its path is `labels`; and itself."""
    parts = Path(folder).parts
    places = [i for i, part in enumerate(parts) if part.lower() == "images"]
    if not places:
        return [folder]
    above = Path(*parts[: places[-1]])
    names = [name for name in names_in(above) if name.lower() == "labels"]
    name = "labels" if "labels" in names or not names else names[0]  # Images and Labels, as some write them
    return [str(Path(above, name, *parts[places[-1] + 1 :])), folder]


class _LabelFinder:
    """Finds label files; each folder is read once."""

    def __init__(self, faults: AnnotationFaults) -> None:
        self._faults = faults
        self._names: dict[str, set[str]] = {}
        self._alike: dict[str, dict[str, str]] = {}
        self._owner: dict[str, str] = {}
        self._places: dict[str, list[str]] = {}

    def find(self, image: str) -> str | None:
        """Returns the label file of an image, None: there is none.

        Raises:
            ValueError: when another image has it: they differ in their endings only.
        """
        image_folder, image_name = os.path.split(image)
        if image_folder not in self._places:
            self._places[image_folder] = label_folders(image_folder)
        for folder in self._places[image_folder]:
            name = f"{os.path.splitext(image_name)[0]}.txt"
            place = os.path.join(folder, name)
            self._read(folder)
            if name not in self._names[folder]:
                alike = self._alike[folder].get(plain_spelling(name))
                if alike is None:
                    continue
                name, asked = alike, place
                place = os.path.join(folder, name)
                self._faults.add(SPELT, f"{asked} is {place}")
            other = self._owner.setdefault(place, image)
            if other != image:
                raise ValueError(
                    f"{self._faults.source}: label file {place} must belong to one image, got {other} and {image}: remove or "
                    "rename one"
                )
            return place
        return None

    def unused(self) -> list[str]:
        """Returns the label files that no image has, in the folders where others have one."""
        folders = sorted({os.path.dirname(place) for place in self._owner})
        places = [os.path.join(folder, name) for folder in folders for name in sorted(self._names[folder])]
        return [
            place
            for place in places
            if place not in self._owner and os.path.basename(place).lower() not in _NO_LABEL_FILES
        ]

    def _read(self, folder: str) -> None:
        if folder not in self._names:
            names = [name for name in names_in(folder) if name.lower().endswith(".txt")]
            self._names[folder] = set(names)
            self._alike[folder] = {plain_spelling(name): name for name in names}
