"""Reads Pascal VOC folders: `voc:DIR[,SPLIT]`."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from kfpn.data.annotation_checks import (
    AnnotationFaults,
    in_stored_pixels,
    progress,
    read_headers,
    require_unique,
    upright_boxes,
)
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.formats.place_and_split import place_and_split
from kfpn.data.image_endings import is_image_name
from kfpn.data.record import Source

_CORNERS = ("ymin", "xmin", "ymax", "xmax")
_SPLIT_LINE = re.compile(r"(.+?)(?:\s+-?[01])?$")  # the lists of one class add 1, 0 or -1 to each name


class VocSource(AnnotatedSource):
    """Reads a folder in the layout of Pascal VOC: ImageSets/Main, Annotations, JPEGImages.

    VOC counts pixels from 1 and includes the last: xmin..xmax is the half-open xmin - 1 .. xmax. Difficult objects are crowd.
    The classes are those of all annotations in the folder, sorted (VOC's own order is that), so that all splits agree.

    Args:
        folder: the folder that holds the three.
        split: a list in ImageSets/Main.

    Raises:
        ValueError: when files are missing or damaged, or contradict each other; says which and why.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        root = Path(folder).expanduser()
        name = f"voc:{folder},{split}"
        stems = _split(root, split, name)
        files = _image_files(root, stems, name)
        trees = _trees(root, stems, name)
        class_names = sorted(
            {_text(item, "name", path) for path, tree in trees.items() for item in tree.iter("object")}
        )
        if not class_names:
            raise ValueError(f"{name}: must have at least one annotated object, got none in {root / 'Annotations'}")
        sizes, orientations = read_headers(files, files, name)
        of_split = [(path, trees[path]) for path in (root / "Annotations" / f"{stem}.xml" for stem in stems)]
        declared = np.asarray([_declared_in_xml(path, tree) for path, tree in of_split], np.int64).reshape(-1, 2)
        stored = in_stored_pixels(declared, sizes, orientations, files, name)

        objects = [(i, path, item) for i, (path, tree) in enumerate(of_split) for item in tree.iter("object")]
        of_image = np.asarray([i for i, _, _ in objects], np.int64)
        boxes = np.asarray([_corners(item, path) for _, path, item in objects], np.float64).reshape(-1, 4) - (
            1,
            1,
            0,
            0,
        )
        # One pixel is the least that VOC's inclusive corners can span: a box of it stands for a click without a drag.
        boxes = upright_boxes(boxes, sizes[of_image], np.where(stored, orientations, 1)[of_image])
        label_of = {class_name: label for label, class_name in enumerate(class_names)}
        faults = AnnotationFaults(name)
        objects_of_split = RawObjects(
            of_image,
            boxes,
            [label_of[_text(item, "name", path)] for _, path, item in objects],
            [(item.findtext("difficult") or "0").strip() == "1" for _, _, item in objects],
            np.zeros(len(objects)),
            where=lambda m: str(objects[m][1]),
            least=1.0,
        )
        ids = range(1, len(class_names) + 1)
        table = ImageTable(files, files, range(1, len(files) + 1), sizes)
        super().__init__(name, class_names, ids, table, collect(objects_of_split, sizes, faults))
        self.report(faults)


def split_names(folder: str | Path) -> list[str]:
    """Returns the names of the lists in ImageSets/Main of a VOC folder, sorted; none when there is no such folder."""
    return sorted(path.stem for path in (Path(folder).expanduser() / "ImageSets" / "Main").glob("*.txt"))


def _split(root: Path, split: str, name: str) -> list[str]:
    for folder in (root, root / "ImageSets" / "Main", root / "Annotations", root / "JPEGImages"):
        if not folder.is_dir():
            raise ValueError(f"{name}: folder {folder} does not exist{_inner_folders(root)}")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise ValueError(f"{name}: split {path} does not exist; there are {', '.join(split_names(root)) or 'none'}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path} must be text in UTF-8, got {error}") from error
    if not lines:
        raise ValueError(f"{name}: the split must name at least one image, got an empty file {path}")
    stems = [_SPLIT_LINE.fullmatch(line)[1] for line in lines]  # type: ignore[index]
    require_unique(stems, f"images of {path}", name)
    return stems


def _inner_folders(root: Path) -> str:
    if not root.is_dir():
        return f" (looked in {root.parent.resolve()})"
    inner = sorted(str(path.parent) for path in root.glob("*/ImageSets"))
    hint = f"; did you mean voc:{inner[0]}?" if inner else ""
    return f"; a VOC folder holds ImageSets/Main, Annotations and JPEGImages{hint}"


def _image_files(root: Path, stems: list[str], name: str) -> list[str]:
    images = (path for path in sorted((root / "JPEGImages").iterdir()) if is_image_name(path) and path.is_file())
    present = {path.stem: str(path) for path in images}
    missing = [stem for stem in stems if stem not in present]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(stems)} images do not exist in {root / 'JPEGImages'}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        )
    return [present[stem] for stem in stems]


def _trees(root: Path, stems: list[str], name: str) -> dict[Path, ElementTree.Element]:
    paths = sorted(path for path in (root / "Annotations").glob("*.xml") if path.is_file())
    missing = sorted({root / "Annotations" / f"{stem}.xml" for stem in stems} - set(paths))
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(stems)} annotations do not exist: "
            f"{', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}"
        )
    trees = {}
    for path in progress(paths, len(paths), f"reading the annotations of {name}"):
        try:
            trees[path] = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            line, column = error.position
            why = str(error).partition(": line")[0]
            raise ValueError(f"{path}: is not XML: line {line}, column {column}: {why}") from error
        except (
            LookupError,
            ValueError,
            OSError,
        ) as error:  # an encoding that Python does not know, or that expat cannot use
            raise ValueError(f"{path}: can't be read: {error}") from error
    return trees


def _declared_in_xml(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    size = tree.find("size")
    if size is None:
        return 0, 0
    sides = [_number(size, tag, path) if size.find(tag) is not None else 0 for tag in ("height", "width")]
    if not all(0 <= side < 2**31 for side in sides):
        raise ValueError(f"{path}: height and width must be numbers of pixels, got {sides[0]} and {sides[1]}")
    return int(sides[0]), int(sides[1])


def _corners(item: ElementTree.Element, path: Path) -> list[float]:
    box = item.find("bndbox")
    if box is None:
        raise ValueError(f"{path}: object {item.findtext('name')!r} must have a bndbox, got none")
    return [_number(box, tag, path) for tag in _CORNERS]


def _number(element: ElementTree.Element, tag: str, path: Path) -> float:
    text = _text(element, tag, path)
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{path}: {tag} must be a number, got {text!r}") from error


def _text(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise ValueError(f"{path}: {element.tag} must have a {tag}, got none")
    return text


def open_place(place: str, split: str = "train") -> Source:
    """Opens `DIR[,SPLIT]`."""
    return VocSource(*place_and_split(place, split))


def validation_data(place: str) -> str | None:
    """Returns the split `val` of the same folder, where it has one and is not itself that split."""
    folder, split = place_and_split(place, "train")
    return f"voc:{folder},val" if "val" in split_names(folder) and not split.startswith("val") else None
