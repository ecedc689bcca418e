"""Reads the XML files of Pascal VOC's form: sizes, objects, flags and corners."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.encodings import decode_xml
from kfpn.data.field_names import NOT_READ, TAKEN, misspelt_flags, other_spellings
from kfpn.data.field_values import comma_hint, read_flag, read_number
from kfpn.data.mistaken_files import HEAD, mistaken_for

CORNERS = ("ymin", "xmin", "ymax", "xmax")
_CROWD_FLAGS = ("difficult", "ignore", "iscrowd")
_ONCE = {
    "annotation": ("filename", "size"),
    "size": ("height", "width"),
    "object": ("name", "bndbox", *_CROWD_FLAGS),
    "bndbox": CORNERS,
}
"""An element -> what it holds once, of what is read."""
_KNOWN = frozenset(("annotation", "object", "part", "source", *(tag for tags in _ONCE.values() for tag in tags)))
_YES, _NO = ("yes",), ("no", "unspecified", "")
_CONTINUOUS_TOOLS = re.compile(r"cvat|datumaro", re.IGNORECASE)


def read_tree(path: Path, faults: AnnotationFaults | None = None) -> ElementTree.Element:
    """Returns the root of an XML file, decoded by the codec that its first line names.

    Args:
        path: of the file.
        faults: counts elements whose names are spelt otherwise, as <Difficult>; they get VOC's own names.

    Raises:
        ValueError: when it can't be read, is not XML, or says one thing twice; names the file.
    """
    try:
        content = path.read_bytes()
        mistaken = mistaken_for(content[:HEAD])
        root = None if mistaken else ElementTree.fromstring(decode_xml(content))
    except ElementTree.ParseError as error:
        line, column = error.position
        why = str(error).partition(": line")[0]
        raise ValueError(f"{path}: is not XML: line {line}, column {column}: {why}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: can't be read: is not text in {error.encoding} ({error.reason} at byte {error.start}): name its encoding in "
            "the first line, as <?xml version='1.0' encoding='GBK'?>"
        ) from error
    except (LookupError, ValueError, OSError) as error:  # an encoding that Python does not know, or that no tool writes
        raise ValueError(f"{path}: can't be read: {error}") from error
    if root is None:
        raise ValueError(f"{path}: {mistaken}")
    _name_plainly(root, path, AnnotationFaults("") if faults is None else faults)
    if root.tag != "annotation" and root.find(".//object") is None:
        raise ValueError(
            f"{path}: must be XML in VOC's form, with the root <annotation>, got <{root.tag[:50]}>: export it as Pascal VOC, or move it away"
        )
    _require_once(root, path)
    return root


def _name_plainly(root: ElementTree.Element, path: Path, faults: AnnotationFaults) -> None:
    """Drops namespaces, and gives elements that are spelt otherwise their own names."""
    tags = set()
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
        tags.add(element.tag)
    taken = other_spellings(tags, _KNOWN)
    for element in root.iter() if taken else ():
        field = taken.get(spelt := element.tag)
        if field is not None:
            if field in _CROWD_FLAGS:
                read_flag(element.text, f"{path}: <{spelt}>, taken as <{field}>,", yes=_YES, no=_NO)
            faults.add(TAKEN.format(spelt, field), str(path))
            element.tag = field
    for spelt, flag in misspelt_flags(tags, _KNOWN).items():
        faults.add(NOT_READ.format(spelt, flag), str(path), sum(1 for _ in root.iter(spelt)))


def _require_once(root: ElementTree.Element, path: Path) -> None:
    """Refuses what an annotation says twice, where only one could count. The parts of an object have names and boxes of their own."""
    for inside, tags in _ONCE.items():
        for element in [root] if inside == "annotation" else root.iter(inside):
            there = [child.tag for child in element if child.tag in tags]
            if len(there) != len(set(there)):
                twice = next(tag for tag in there if there.count(tag) > 1)
                named = f"object {element.findtext('name')!r}" if inside == "object" else f"<{inside}>"
                raise ValueError(f"{path}: {named} must have one <{twice}>, got {there.count(twice)}: remove one")


def declared_in_xml(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    """Returns the height and the width that the file declares, 0 where it does not."""
    size = tree.find("size")
    if size is None:
        return 0, 0
    sides = [_number(size, tag, path) if size.find(tag) is not None else 0 for tag in ("height", "width")]
    if not all(0 <= side < 2**31 for side in sides):
        raise ValueError(f"{path}: height and width must be numbers of pixels, got {sides[0]} and {sides[1]}")
    return int(sides[0]), int(sides[1])


def corners(item: ElementTree.Element, path: Path) -> list[float]:
    """Returns ymin, xmin, ymax, xmax of an object, as the file has them."""
    box = item.find("bndbox")
    if box is None:
        raise ValueError(f"{path}: object {item.findtext('name')!r} must have a bndbox, got none")
    return [_number(box, tag, path) for tag in CORNERS]


def set_aside_by(item: ElementTree.Element, path: Path) -> str | None:
    """Returns the first of the flags `difficult`, `ignore` and `iscrowd` that an object has, or None.

    Flags are 0 or 1, true or false, yes or no; "Unspecified" and an empty element mean no.
    """
    flags = [
        flag
        for flag in _CROWD_FLAGS
        if read_flag(item.findtext(flag), f"{path}: object {item.findtext('name')!r}: {flag}", yes=_YES, no=_NO)
    ]
    return flags[0] if flags else None


def object_name(item: ElementTree.Element, path: Path) -> str:
    """Returns the name of an object's class."""
    return _text(item, "name", path)


def counts_from_zero(trees: Iterable[ElementTree.Element]) -> bool:
    """Returns whether the corners of a data set are continuous coordinates that begin at 0.

    VOC's own corners are whole pixels: counted from 1, the last one included. Tools that draw between pixels (CVAT) write
    coordinates with fractions, from 0. A data set is of this kind where most boxes are written with a decimal point and one
    of them has a fraction. VOC 2012 itself has some boxes with fractions, so a few do not count. A file whose <source>
    names CVAT or Datumaro is enough where its boxes have a decimal point.

    Args:
        trees: all files of the data set.
    """
    boxes = dotted = fractions = named = 0
    for tree in trees:
        source = tree.find("source")
        of_tool = source is not None and any(_CONTINUOUS_TOOLS.search(element.text or "") for element in source)
        # The parts of a body (VOC 2012's person layout) have boxes of their own, which are not read.
        for box in tree.iterfind(".//object/bndbox"):
            texts = [(box.findtext(tag) or "").strip() for tag in CORNERS]
            points = any("." in text for text in texts)
            values = [number for text in texts if (number := read_number(text)) is not None and abs(number) < 2**31]
            boxes += 1
            dotted += points
            named += points and of_tool
            fractions += any(value != int(value) for value in values)
    return 2 * dotted > boxes and (fractions > 0 or named > 0)


def _number(element: ElementTree.Element, tag: str, path: Path) -> float:
    text = _text(element, tag, path)
    number = read_number(text)
    if number is None:
        raise ValueError(f"{path}: {tag} must be a number, got {text[:100]!r}{comma_hint(text)}")
    return number


def _text(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise ValueError(f"{path}: {element.tag} must have a {tag}, got none")
    return text
