"""Reads COCO's JSON annotations: `coco:ANNOTATIONS.json[,IMAGES_DIR]`."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, read_headers, require_unique, upright_boxes
from kfpn.data.annotations import AnnotatedSource, Annotations, ImageTable, RawObjects, collect
from kfpn.data.box_conventions import require_width_and_height
from kfpn.data.memory_limit import memory_limit
from kfpn.data.record import Source

UNKNOWN_IMAGE = "annotations of an image id that is not listed, left out"
DUPLICATE_ID = "annotations whose id came before, kept"


class CocoSource(AnnotatedSource):
    """Reads a folder of images with COCO's annotations.

    Labels 0 .. K-1 are the categories by rising id; `iscrowd` regions are crowd.

    Args:
        annotations: path of the JSON file (instances).
        images_dir: where the images are; None: beside the JSON file.

    Raises:
        ValueError: when files are missing or damaged, or the annotations contradict themselves; says which and why.
    """

    def __init__(self, annotations: str | Path, images_dir: str | Path | None = None) -> None:
        path = _existing_json(Path(annotations).expanduser())
        name = f"coco:{annotations}"
        content = _read(path, name)
        images, categories = content["images"], sorted(content["categories"], key=lambda row: row["id"])
        require_unique((image["id"] for image in images), "image ids", name)
        require_unique((category["id"] for category in categories), "category ids", name)
        require_unique((category["name"] for category in categories), "category names", name)
        if not images:
            raise ValueError(f"{name}: must list at least one image, got none")
        folder = path.parent if images_dir is None else Path(images_dir).expanduser()
        _require_inside(images, folder, path, name)
        files = [str(folder / image["file_name"]) for image in images]
        _require_files(files, folder, path, name)
        sizes, orientations = read_headers(files, files, name)
        declared = np.asarray([_declared_size(image, name) for image in images], np.int64).reshape(-1, 2)
        stored = in_stored_pixels(declared, sizes, orientations, files, name)
        faults = AnnotationFaults(name)
        boxes = _boxes(content, categories, files, sizes, np.where(stored, orientations, 1), faults)
        super().__init__(
            name=name,
            class_names=[str(category["name"]) for category in categories],
            category_ids=[category["id"] for category in categories],
            table=ImageTable(files, files, [image["id"] for image in images], sizes),
            annotations=boxes,
        )
        self.report(faults)


def _existing_json(path: Path) -> Path:
    if path.is_dir():
        candidates = sorted(str(file) for pattern in ("*.json", "*/*.json") for file in path.glob(pattern))
        hint = f"it holds {', '.join(candidates[:5])}" if candidates else "it holds no .json file"
        raise ValueError(f"coco: must name an annotations file (.json), got the folder {path}; {hint}")
    if not path.is_file():
        candidates = sorted(str(file) for file in path.parent.glob("*.json")) if path.parent.is_dir() else []
        hint = f"; that folder holds {', '.join(candidates[:5])}" if candidates else ""
        raise ValueError(f"coco: annotations file {path} does not exist (looked in {path.parent.resolve()}){hint}")
    return path


def _read(path: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    def without_masks(row: dict[str, Any]) -> dict[str, Any]:
        row.pop("segmentation", None)  # most of the file: it is dropped while parsing, so it never fills the memory
        return row

    _require_memory(path, name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=without_masks)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: is not JSON text in UTF-8 ({error})") from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise ValueError(f"{name}: can't be read: {str(error).partition(';')[0]}") from error
    except (RecursionError, MemoryError) as error:
        deep = isinstance(error, RecursionError)
        why = (
            "nested deeper than annotations are" if deep else f"too large for the memory, {path.stat().st_size:,} bytes"
        )
        raise ValueError(f"{name}: can't be read: is {why}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{name}: must hold an object with images, annotations and categories, got a {type(content).__name__}"
        )
    kinds: dict[str, dict[str, type]] = {
        "images": {"id": int, "file_name": str},
        "annotations": {"image_id": int},
        "categories": {"id": int, "name": str},
    }
    for key, fields in kinds.items():
        if not isinstance(content.get(key), list):
            raise ValueError(f"{name}: must have a list {key!r}, got the keys {', '.join(map(repr, content))}")
        for number, row in enumerate(content[key]):
            for field, kind in fields.items():
                if not isinstance(row, dict) or not isinstance(row.get(field), kind):
                    raise ValueError(
                        f"{name}: {key}[{number}] must have {field!r} of type {kind.__name__}, got {str(row)[:200]}"
                    )
                if kind is int and abs(row[field]) >= 2**63:
                    raise ValueError(f"{name}: {key}[{number}]: {field} must be below 2^63, got {row[field]}")
    return content


def _require_memory(path: Path, name: str) -> None:
    """Refuses a file that the memory cannot hold as bytes and as text: Linux would kill the process without a word."""
    size, memory = path.stat().st_size, memory_limit()
    if memory is not None and 2 * size > memory:
        raise ValueError(f"{name}: can't be read: is too large for the memory, {size:,} bytes of {memory:,}")


def _declared_size(image: dict[str, Any], name: str) -> tuple[int, int]:
    sides = image.get("height") or 0, image.get("width") or 0
    if not all(isinstance(side, (int, float)) and 0 <= side < 2**31 for side in sides):
        raise ValueError(
            f"{name}: image {image['id']} ({image['file_name']}): height and width must be numbers of pixels, got "
            f"{str(sides[0])[:30]!r} and {str(sides[1])[:30]!r}"
        )
    return int(sides[0]), int(sides[1])


def _require_inside(images: list[dict[str, Any]], folder: Path, path: Path, name: str) -> None:
    """Refuses file names that leave the folder of images: annotations may come from strangers."""
    root = os.path.abspath(folder)
    for number, image in enumerate(images):
        if not Path(os.path.abspath(folder / image["file_name"])).is_relative_to(root):
            raise ValueError(
                f"{name}: images[{number}] must lie in the folder of images, {folder}, got {image['file_name'][:200]!r}; if that "
                f"is meant, name a folder above all images: coco:{path},IMAGES_DIR"
            )


def _require_files(files: list[str], folder: Path, path: Path, name: str) -> None:
    missing = [file for file in files if not Path(file).is_file()]
    if not missing:
        return
    if len(missing) < len(files):
        hint = "The others are there: copy these to them, or take them out of the annotations"
        raise ValueError("\n  ".join(_missing_lines(missing, files, name)) + "\n" + hint)
    file_name = Path(missing[0]).relative_to(folder) if Path(missing[0]).is_relative_to(folder) else missing[0]
    candidates = [
        place
        for root in (path.parent, path.parent.parent)
        for place in (root, *sorted(root.iterdir()))
        if place.is_dir() and (place / file_name).is_file()
    ]
    lines = _missing_lines(missing, files, name)
    hint = (
        f"The first one is in {candidates[0]}: try coco:{path},{candidates[0]}"
        if candidates
        else f"Looked in {folder.resolve()}. Name the folder of the images: coco:{path},IMAGES_DIR (for COCO's own layout "
        "coco:annotations/instances_train2017.json,train2017)"
    )
    raise ValueError("\n  ".join(lines) + "\n" + hint)


def _missing_lines(missing: list[str], files: list[str], name: str) -> list[str]:
    more = [f"... and {len(missing) - 5} more"] if len(missing) > 5 else []
    return [f"{name}: {len(missing)} of {len(files)} images do not exist:", *missing[:5], *more]


def _boxes(
    content: dict[str, list[dict[str, Any]]],
    categories: list[dict[str, Any]],
    files: list[str],
    sizes: np.ndarray,
    orientations: np.ndarray,
    faults: AnnotationFaults,
) -> Annotations:
    index_of = {image["id"]: index for index, image in enumerate(content["images"])}
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    seen: set[str] = set()
    rows: list[tuple[int, int, bool, float]] = []
    corners: list[tuple[float, ...]] = []
    for annotation in content["annotations"]:
        what = f"annotation {annotation.get('id', '(no id)')}"
        index = index_of.get(annotation["image_id"])
        if index is None:
            faults.add(UNKNOWN_IMAGE, f"{what}, image id {annotation['image_id']}")
            continue
        what = f"{what} of {files[index]}"
        if annotation.get("id") is not None:
            if str(annotation["id"]) in seen:
                faults.add(DUPLICATE_ID, what)
            seen.add(str(annotation["id"]))
        category = annotation.get("category_id")
        if not isinstance(category, int) or category not in label_of:
            raise ValueError(
                f"{faults.source}: {what}: category_id must be one of those in 'categories' ({_ids(label_of)}), "
                f"got {category!r}"
            )
        x, y, width, height = _numbers(annotation.get("bbox"), f"{faults.source}: {what}")
        corners.append((y, x, y + height, x + width))
        rows.append((index, label_of[category], bool(annotation.get("iscrowd")), _area(annotation)))
    index_column, labels, crowd, areas = zip(*rows, strict=True) if rows else ((), (), (), ())
    of_image = np.asarray(index_column, np.int64)
    raw = np.asarray(corners, np.float64).reshape(-1, 4)
    require_width_and_height(faults.source, raw, sizes[of_image])
    boxes = upright_boxes(raw, sizes[of_image], orientations[of_image])
    objects = RawObjects(of_image, boxes, labels, crowd, areas, where=lambda m: files[of_image[m]])
    return collect(objects, sizes, faults)


def _numbers(bbox: Any, where: str) -> list[float]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(v, (int, float)) for v in bbox):
        raise ValueError(f"{where}: bbox must be four numbers (x, y, width, height), got {str(bbox)[:100]}")
    # Python's integers have no limit, and float() fails past its own.
    return [math.inf if abs(v) > 1e300 else float(v) for v in bbox]


def _area(annotation: dict[str, Any]) -> float:
    area = annotation.get("area")
    return float(area) if isinstance(area, (int, float)) and abs(area) < 1e30 else 0.0


def _ids(label_of: dict[int, int]) -> str:
    ids = ", ".join(map(str, list(label_of)[:10]))
    return ids + (", ..." if len(label_of) > 10 else "")


def open_place(place: str, split: str = "train") -> Source:
    """Opens `ANNOTATIONS.json[,IMAGES_DIR]`; the format has no splits.

    The comma behind the JSON file counts, so that folders may have commas in their names.
    """
    if Path(place).expanduser().exists():
        return CocoSource(place)
    head, comma, folder = place.partition(".json,")
    return CocoSource(f"{head}.json", folder) if comma and folder else CocoSource(place.removesuffix(","))


def validation_data(place: str) -> None:
    """Returns None: a JSON file does not say which other one belongs to it."""
