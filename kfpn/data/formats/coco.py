"""Reads COCO's JSON annotations: `coco:ANNOTATIONS.json[,IMAGES_DIR]`."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, upright_boxes
from kfpn.data.annotations import AnnotatedSource, ImageTable, collect
from kfpn.data.box_orders import XYWH, check_corner_order
from kfpn.data.field_values import read_number, shown
from kfpn.data.folder_entries import folders_in
from kfpn.data.folder_index import FolderIndex
from kfpn.data.formats.coco_fields import take_other_spellings
from kfpn.data.formats.coco_json import Rows, existing_json, read_coco_json
from kfpn.data.formats.coco_masks import masks_of_annotations
from kfpn.data.formats.coco_objects import CocoObjects
from kfpn.data.formats.coco_tables import Categories, IdTable
from kfpn.data.image_checks import NAMED_FAULTS, listing, read_headers
from kfpn.data.image_files import ImageFiles
from kfpn.data.record import Source

LISTED_TWICE = "images that are listed again under another id, so that each has a part of the boxes"
APPLE_DOUBLE = "images that are macOS's notes on files ('._'), left out with their annotations"


class CocoSource(AnnotatedSource):
    """Reads a folder of images with COCO's annotations.

    Labels 0 .. K-1 are the categories by rising id; `iscrowd` regions are crowd, and so are objects with `ignore` or
    `difficult`. Categories that only group others are left out, see `Categories`.

    Args:
        annotations: path of the JSON file (instances).
        images_dir: where the images are; None: beside the JSON file.
        masks: whether the objects' `segmentation` is kept.

    Raises:
        ValueError: when files are missing or damaged, or the annotations contradict themselves; says which and why.
    """

    def __init__(self, annotations: str | Path, images_dir: str | Path | None = None, *, masks: bool = False) -> None:
        path = existing_json(Path(annotations).expanduser())
        name = f"coco:{annotations}"
        content = read_coco_json(path, name, masks=masks)
        faults = AnnotationFaults(name)
        take_other_spellings(content, faults)
        images = _images(content["images"], faults)
        table = IdTable(images, "images", faults)
        categories = Categories(content["categories"], content["annotations"], faults)
        folder = path.parent if images_dir is None else Path(images_dir).expanduser()
        files = _files(images, folder, path, faults)
        sizes, orientations = read_headers(files, files, name)
        declared = np.asarray([_declared_size(image, name) for image in images], np.int64).reshape(-1, 2)
        stored = in_stored_pixels(declared, sizes, orientations, files, name)
        reader = CocoObjects(table, categories, files, faults)
        objects = reader.read(content["annotations"])
        of_image = objects.image_index
        check_corner_order(name, "bbox", XYWH, objects.boxes, sizes[of_image], orientations[of_image])
        orientation = np.where(stored, orientations, 1)[of_image]
        turned = upright_boxes(objects.boxes, sizes[of_image], orientation)
        drawn = None
        if masks:
            rows = [content["annotations"][number] for number in reader.numbers.tolist()]
            drawn = masks_of_annotations(rows, objects.boxes, sizes[of_image], orientation, objects.where, faults)
        super().__init__(
            name=name,
            class_names=categories.names,
            category_ids=categories.ids,
            table=ImageTable(files, files, table.ids, sizes),
            annotations=collect(dataclasses.replace(objects, boxes=turned, masks=drawn), sizes, faults),
        )
        self.left_out_classes = categories.left_out
        self.report(faults)


def _images(rows: Rows, faults: AnnotationFaults) -> Rows:
    if not rows:
        raise ValueError(f"{faults.source}: must list at least one image, got none")
    for number, row in enumerate(rows):
        file_name = row["file_name"]
        if not isinstance(file_name, str) or not file_name.strip():
            raise ValueError(
                f"{faults.source}: images[{number}] must have 'file_name' in text, got {shown(file_name, 200)}"
            )
    own = [row for row in rows if not _is_note(row["file_name"])]
    if not own or len(own) == len(rows):
        return rows
    first = next(row["file_name"] for row in rows if _is_note(row["file_name"]))
    faults.add(APPLE_DOUBLE, first[:200], len(rows) - len(own))
    return own


def _is_note(file_name: str) -> bool:
    return file_name.replace("\\", "/").rpartition("/")[2].startswith("._")


def _declared_size(image: dict[str, Any], name: str) -> tuple[int, int]:
    sides = [image.get(key) for key in ("height", "width")]
    numbers = [0.0 if side is None else read_number(side) for side in sides]
    if not all(number is not None and 0 <= number < 2**31 for number in numbers):
        raise ValueError(
            f"{name}: image {image['id']} ({image['file_name'][:200]}): height and width must be numbers of pixels, got "
            f"{shown(sides[0], 40)} and {shown(sides[1], 40)}"
        )
    return int(numbers[0] or 0), int(numbers[1] or 0)


def _files(images: Rows, folder: Path, path: Path, faults: AnnotationFaults) -> list[str]:
    names = [image["file_name"] for image in images]
    search = ImageFiles(folder, faults, f"coco:{path},IMAGES_DIR")
    paths = search.find(names)
    files = [str(folder / name) if file is None else file for name, file in zip(names, paths, strict=True)]
    missing = [i for i, file in enumerate(paths) if file is None]
    if missing:
        lines = [_missing_line(files[i], names[i], search.index) for i in missing[:NAMED_FAULTS]]
        title = f"{faults.source}: {len(missing)} of {len(files)} images do not exist"
        if len(missing) < len(files):
            hint = "The others are there: copy these to them, or take them out of the annotations"
        else:
            hint = _hint(names[0], folder, path, near=lines[0].endswith("is there)"))
        raise ValueError(f"{listing(title, lines, len(missing))}\n{hint}")
    before: set[str] = set()
    for file in files:
        if file in before:
            faults.add(LISTED_TWICE, file)
        before.add(file)
    return files


def _missing_line(file: str, name: str, index: FolderIndex | None) -> str:
    near = index.nearest(name) if index is not None else None
    said = file if len(file) <= 300 else f"{file[:297]}..."
    return f"{said} ({near} is there)" if near else said


def _hint(file_name: str, folder: Path, path: Path, *, near: bool) -> str:
    places = [place for root in (path.parent, path.parent.parent) for place in (root, *folders_in(root))]
    place = next((place for place in places if os.path.isfile(place / file_name)), None)
    if place is not None:
        return f"The first one is in {place}: try coco:{path},{place}"
    if near:
        return f"Correct file_name in the annotations, or name another folder of images: coco:{path},IMAGES_DIR"
    return (
        f"Looked in {folder.resolve()}. Name the folder of the images: coco:{path},IMAGES_DIR (for COCO's own layout "
        "coco:annotations/instances_train2017.json,train2017)"
    )


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `ANNOTATIONS.json[,IMAGES_DIR]`; the format has no splits.

    The comma behind the JSON file counts, so that folders may have commas in their names.
    """
    if Path(place).expanduser().exists():
        return CocoSource(place, masks=masks)
    head, comma, folder = place.partition(".json,")
    named = (f"{head}.json", folder) if comma and folder else (place.removesuffix(","),)
    return CocoSource(*named, masks=masks)


def validation_data(place: str) -> None:
    """Returns None: a JSON file does not say which other one belongs to it."""
