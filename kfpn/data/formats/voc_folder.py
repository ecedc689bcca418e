"""Finds the files of a Pascal VOC folder: its lists, its annotations and the image of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults, require_unique
from kfpn.data.folder_index import FolderIndex, Parts, is_hidden, readings
from kfpn.data.image_endings import image_endings
from kfpn.data.remembered_source import OBJECT_PICTURES
from kfpn.data.text_files import lines_of, read_text

OTHER_NAME = "annotations whose <filename> is an image of another name, taken"
NOT_THERE = "annotations whose <filename> is not there, so the one image of the annotation's name is taken"
WITHOUT_XML = "images without an annotation, left out"
ALL_OF_IT = "no ImageSets/Main there, so all annotations of the folder are read"

_FLAGS_OF_LINES = ("1", "0", "-1")  # the lists of one class add one to each name


@dataclass
class VocFolder:
    """Knows where a data set in VOC's form has its files.

    Attributes:
        root: the folder.
        name: what messages call the data set.
        annotations: the folder of the XML files.
        images: the folder of the images.
        lists: ImageSets/Main, or None: all annotations are one split.
        deep: bool, whether all XML files lie in folders of that of the XML files.
    """

    root: Path
    name: str
    annotations: Path
    images: Path
    lists: Path | None
    deep: bool = False
    xml: FolderIndex = field(init=False)

    def __post_init__(self) -> None:
        self.xml = FolderIndex(self.annotations, (".xml",), deep=self.deep)

    def path(self, stem: str) -> Path:
        """Returns the annotation of a stem: of a file that is there, or would have to be."""
        candidates = self.xml.find_stem(tuple(stem.split("/"))).files
        own = [parts for parts in candidates if "/".join(parts).rpartition(".")[0] == stem]
        return Path(self.xml.path((own or candidates)[0])) if candidates else self.annotations / f"{stem}.xml"

    def all_annotations(self) -> list[Path]:
        """Returns the paths of all XML files, sorted."""
        return sorted(Path(self.xml.path(parts)) for rivals in self.xml.by_name.values() for parts in rivals.files)


def open_folder(root: Path, name: str) -> VocFolder:
    """Finds Annotations, JPEGImages and ImageSets/Main, or XML files that lie beside their images.

    Raises:
        ValueError: naming the folder that is missing.
    """
    lists = _list_folder(root)
    annotations, images = _inner_folder(root, "Annotations"), _inner_folder(root, "JPEGImages")
    if not annotations.is_dir() and _has_xml(root):
        annotations = root
    if not images.is_dir():
        beside = _inner_folder(root, "images")
        images = beside if beside.is_dir() else annotations if annotations == root else images
    deep = annotations != root and not _has_xml(annotations) and _has_xml(annotations, "**/")
    if lists.parent.is_dir() or not (_has_xml(annotations) or deep):
        for folder in (root, lists, annotations, images):
            if not folder.is_dir():
                raise ValueError(f"{name}: folder {folder} does not exist{_inner_folders(root)}")
    if not images.is_dir():
        raise ValueError(f"{name}: folder {images} does not exist{_inner_folders(root)}")
    return VocFolder(root, name, annotations, images, lists if lists.is_dir() else None, deep)


def _inner_folder(folder: Path, name: str) -> Path:
    """Returns an inner folder, in whatever case another system wrote its name."""
    if (folder / name).is_dir() or not folder.is_dir():
        return folder / name
    return next(
        (path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower() and path.is_dir()),
        folder / name,
    )


def _list_folder(root: Path) -> Path:
    return _inner_folder(_inner_folder(root, "ImageSets"), "Main")


def _has_xml(folder: Path, below: str = "") -> bool:
    return folder.is_dir() and any(not is_hidden(path.name) for path in folder.glob(f"{below}*.[xX][mM][lL]"))


def _inner_folders(root: Path) -> str:
    if not root.is_dir():
        return f" (looked in {root.parent.resolve()})"
    inner = sorted(str(path.parent) for path in root.glob("*/ImageSets"))
    inner += sorted({str(path.parent) for path in root.glob("*/*.xml") if not is_hidden(path.name)})
    hint = f"; did you mean voc:{inner[0]}?" if inner else ""
    return f"; a VOC folder holds ImageSets/Main, Annotations and JPEGImages{hint}"


def object_pictures(folder: VocFolder, stems: list[str]) -> list[Path | None]:
    """Returns the picture of the objects' masks of each annotation, SegmentationObject/STEM.png; None where there is none."""
    index = FolderIndex(_inner_folder(folder.root, OBJECT_PICTURES), (".png",), deep=False)
    files_of_stem = [index.find_stem((stem.rpartition("/")[2],)).files for stem in stems]
    return [Path(index.path(files[0])) if files else None for files in files_of_stem]


def split_names(folder: str | Path) -> list[str]:
    """Returns the names of the lists in ImageSets/Main of a VOC folder, sorted; none when there is no such folder."""
    paths = _list_folder(Path(folder).expanduser()).glob("*.txt")
    return sorted(path.stem for path in paths if not is_hidden(path.name))


def stems_of_split(folder: VocFolder, split: str, faults: AnnotationFaults) -> list[str]:
    """Returns the names of a split's annotations, without their ending.

    A line is a name where such an annotation exists; else it is a name and the flag of a class's list (1, 0 or -1).

    Args:
        folder: of the data set.
        split: the name of a list; of a folder without lists `train`, which is all of it.
        faults: counts a folder that was read without lists.

    Raises:
        ValueError: when the list is missing, empty or unreadable, has a name twice, or a line fits two annotations.
    """
    if folder.lists is None:
        return _all_stems(folder, split, faults)
    path, name = folder.lists / f"{split}.txt", folder.name
    if not path.is_file():
        raise ValueError(
            f"{name}: split {path} does not exist; there are {', '.join(split_names(folder.root)) or 'none'}"
        )
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    lines = [line.strip() for line in lines_of(text)]
    lines = [line for line in lines if line and not is_hidden(readings(line)[0][-1] if readings(line) else line)]
    if not lines:
        raise ValueError(f"{name}: the split must name at least one image, got an empty file {path}")
    stems = _stems_of_lines(folder, lines, path)
    require_unique(stems, f"images of {path}", name)
    return stems


def _all_stems(folder: VocFolder, split: str, faults: AnnotationFaults) -> list[str]:
    if split != "train":
        raise ValueError(
            f"{folder.name}: split must be left out, got {split!r}: {folder.root} has no ImageSets/Main, so it is one split"
        )
    faults.add(ALL_OF_IT, str(folder.root))
    return [path.relative_to(folder.annotations).with_suffix("").as_posix() for path in folder.all_annotations()]


def _stems_of_lines(folder: VocFolder, lines: list[str], path: Path) -> list[str]:
    pairs = [(line, words[0] if len(words := line.rsplit(None, 1)) == 2 and words[1] in _FLAGS_OF_LINES else None)
             for line in lines]  # fmt: skip
    all_flagged = all(plain is not None for _, plain in pairs)
    missing = [line for line, plain in pairs if not _known(folder, line) and not (plain and _known(folder, plain))]
    if missing:  # annotations in folders below are looked for only then
        folder.xml = FolderIndex(folder.annotations, (".xml",))
    stems = []
    for line, plain in pairs:
        whole, short = _known(folder, line), _known(folder, plain) if plain else None
        if whole and short and all_flagged:
            raise ValueError(
                f"{folder.name}: line {line!r} of {path} must name one annotation, got {short} and {whole}, which are both there: "
                "rename one"
            )
        stems.append(whole or short or "/".join(_without_ending(readings(plain or line) or [(line,)])))
    return stems


def _known(folder: VocFolder, text: str) -> str | None:
    """Returns the stem of the annotation that a text names, or None."""
    for parts in readings(text):
        for wanted in (parts, _without_ending([parts])):
            candidates = folder.xml.find_stem(wanted).files
            stems = {"/".join(file).rpartition(".")[0] for file in candidates}
            if len(stems) > 1:
                got = " and ".join(sorted(stems)[:2])
                raise ValueError(
                    f"{folder.name}: {text!r} must name one annotation, got {got}: write its folder into the list"
                )
            if stems:
                return stems.pop()
    return None


def _without_ending(parts: list[Parts]) -> Parts:
    first = parts[0]
    stem, _, ending = first[-1].rpartition(".")
    return (*first[:-1], stem) if stem and f".{ending.lower()}" in (*image_endings(), ".xml") else first


def images_of(folder: VocFolder, file_names: Mapping[str, str], faults: AnnotationFaults) -> list[str]:
    """Returns the image of each annotation: the file that <filename> says, else the one file with the annotation's name.

    Args:
        folder: of the data set.
        file_names: stem of the annotation -> the text of its <filename>, "" where it has none.
        faults: counts images whose name is not that of their annotation, and those without annotation in a folder without
            lists.

    Raises:
        ValueError: when an image is missing, or naming both, when two files fit.
    """
    index = FolderIndex(folder.images, image_endings())
    files_by_stem = {stem: _image_of(folder, index, stem, text, faults) for stem, text in file_names.items()}
    missing = [stem for stem, file in files_by_stem.items() if file is None]
    if missing:
        near = index.nearest(file_names[missing[0]] or missing[0])
        raise ValueError(
            f"{folder.name}: {len(missing)} of {len(files_by_stem)} images do not exist in {folder.images}: "
            f"{', '.join(stem[:100] for stem in missing[:5])}{', ...' if len(missing) > 5 else ''}"
            f"{f' ({near} is there)' if near else ''}"
        )
    files = [file for file in files_by_stem.values() if file is not None]
    require_unique(files, "images of the annotations", folder.name)
    if folder.lists is None:
        faults.add(WITHOUT_XML, str(folder.images), index.count - len(files))
    return files


def _image_of(folder: VocFolder, index: FolderIndex, stem: str, text: str, faults: AnnotationFaults) -> str | None:
    same_name = index.find_stem(tuple(stem.split("/"))).files
    named = index.find(text).files if text else ()
    if not named and text and not _names_stem(text, stem):  # some tools leave the ending out
        named = next((files for parts in readings(text) if (files := index.find_stem(parts).files)), ())
    both = [parts for parts in named if parts in same_name]
    if both:
        named = tuple(both)
    elif not named:
        named = same_name
        if len(named) == 1 and text and not _names_stem(text, stem):
            faults.add(NOT_THERE, f"{folder.path(stem)}: {text[:200]} is {index.path(named[0])}")
    elif same_name:
        got = f"{index.path(same_name[0])} and {index.path(named[0])}"
        raise ValueError(
            f"{folder.path(stem)}: <filename> must be the image of the annotation's own name, got {text!r}, and both are there: {got}: "
            "correct <filename>, or rename one"
        )
    elif len(named) == 1:
        faults.add(OTHER_NAME, f"{folder.path(stem)}: {text}")
    if len(named) > 1:
        raise ValueError(
            f"{folder.path(stem)}: <filename> must say which image is annotated, got {text!r}, and two fit: "
            f"{index.path(named[0])} and {index.path(named[1])}"
        )
    return index.path(named[0]) if named else None


def _names_stem(text: str, stem: str) -> bool:
    """Returns whether a <filename> without ending is the annotation's own name."""
    return any(parts[-1] == stem.rpartition("/")[2] for parts in readings(text))
