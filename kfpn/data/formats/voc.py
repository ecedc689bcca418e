"""Reads Pascal VOC folders: `voc:DIR[,SPLIT]`."""

import dataclasses
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, upright_boxes
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.box_orders import XYXY, check_corner_order
from kfpn.data.formats.place_and_split import place_and_split
from kfpn.data.formats.voc_folder import VocFolder, images_of, object_pictures, open_folder, split_names, stems_of_split
from kfpn.data.formats.voc_masks import masks_of_pictures
from kfpn.data.formats.voc_xml import (
    corners,
    counts_from_zero,
    declared_in_xml,
    object_name,
    read_tree,
    set_aside_by,
)
from kfpn.data.image_checks import progress, read_headers
from kfpn.data.record import Source

FROM_ZERO = "corners with fractions, read as distances from the image's corner (0-based, as CVAT writes them)"
SET_ASIDE_OBJECTS = "objects with {} 1, taken as crowd"

_Objects = list[tuple[int, Path, Element]]


class VocSource(AnnotatedSource):
    """Reads a folder in the layout of Pascal VOC: ImageSets/Main, Annotations, JPEGImages; or XML files beside images.

    VOC counts pixels from 1 and includes the last: xmin..xmax is the half-open xmin - 1 .. xmax. Where most corners of the
    folder are written with fractions they are taken as they are, see `counts_from_zero`. Difficult objects are crowd.
    The image of an annotation is what its <filename> says, else the one file of its name. The classes are those of all
    annotations in the folder, sorted (VOC's own order is that), so that all splits agree.

    Args:
        folder: the folder that holds the three.
        split: a list in ImageSets/Main. A folder without lists is one split, `train`.
        masks: whether the pictures in SegmentationObject are read too.

    Raises:
        ValueError: when files are missing or damaged, or contradict each other; says which and why.
    """

    def __init__(self, folder: str | Path, split: str = "train", *, masks: bool = False) -> None:
        name = f"voc:{folder},{split}"
        faults = AnnotationFaults(name)
        opened = open_folder(Path(folder).expanduser(), name)
        stems = stems_of_split(opened, split, faults)
        trees = _trees(opened, faults)
        paths = [opened.path(stem) for stem in stems]
        file_names = {
            stem: (trees[path].findtext("filename") or "").strip() if path in trees else ""
            for stem, path in zip(stems, paths, strict=True)
        }
        files = images_of(opened, file_names, faults)
        _require_annotations(paths, trees, name)
        class_names = sorted({object_name(item, path) for path, tree in trees.items() for item in tree.iter("object")})
        if not class_names:
            raise ValueError(f"{name}: must have at least one annotated object, got none in {opened.annotations}")
        sizes, orientations = read_headers(files, files, name)
        declared = np.asarray([declared_in_xml(path, trees[path]) for path in paths], np.int64).reshape(-1, 2)
        stored = in_stored_pixels(declared, sizes, orientations, files, name)
        objects = [(i, path, item) for i, path in enumerate(paths) for item in trees[path].iter("object")]
        from_zero = counts_from_zero(trees.values())
        if from_zero:
            faults.add(FROM_ZERO, str(paths[0]), len(objects))
        raw = _raw_objects(objects, class_names, faults, from_zero=from_zero)
        of_image = raw.image_index
        check_corner_order(name, "bndbox", XYXY, raw.boxes, sizes[of_image], orientations[of_image])
        turns = np.where(stored, orientations, 1)
        turned = upright_boxes(raw.boxes, sizes[of_image], turns[of_image])
        drawn = None
        if masks:
            counts = np.bincount(of_image, minlength=len(files))
            drawn = masks_of_pictures(object_pictures(opened, stems), counts, sizes, turns, raw.boxes, faults)
        super().__init__(
            name=name,
            class_names=class_names,
            category_ids=range(1, len(class_names) + 1),
            table=ImageTable.of_files(files, sizes),
            annotations=collect(dataclasses.replace(raw, boxes=turned, masks=drawn), sizes, faults),
        )
        self.report(faults)


def _trees(folder: VocFolder, faults: AnnotationFaults) -> dict[Path, Element]:
    paths = folder.all_annotations()
    return {
        path: read_tree(path, faults)
        for path in progress(paths, len(paths), f"reading the annotations of {folder.name}")
    }


def _require_annotations(paths: list[Path], trees: dict[Path, Element], name: str) -> None:
    missing = sorted(set(paths) - set(trees))
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(paths)} annotations do not exist: "
            f"{', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}"
        )


def _raw_objects(objects: _Objects, class_names: list[str], faults: AnnotationFaults, *, from_zero: bool) -> RawObjects:
    boxes = np.asarray([corners(item, path) for _, path, item in objects], np.float64).reshape(-1, 4)
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    crowd = []
    for _, path, item in objects:
        flag = set_aside_by(item, path)
        crowd.append(flag is not None)
        if flag not in (None, "difficult"):  # that difficult objects are crowd is VOC's own rule
            faults.add(SET_ASIDE_OBJECTS.format(flag), str(path))
    if not from_zero:
        boxes -= (1, 1, 0, 0)
        # A box of one pixel both ways is a click without a drag, as labelling tools write it. A line of one pixel may be meant.
        point = (boxes[:, 2:] - boxes[:, :2] == 1).all(axis=1)
        boxes[point, 2:] = boxes[point, :2]
    return RawObjects(
        np.asarray([i for i, _, _ in objects], np.int64),
        boxes,
        [label_of[object_name(item, path)] for _, path, item in objects],
        crowd,
        np.zeros(len(objects)),
        where=lambda m: str(objects[m][1]),
    )


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `DIR[,SPLIT]`; of a folder without lists the split is left out."""
    folder, named = place_and_split(place, "")
    return VocSource(folder, named or (split if split_names(folder) else "train"), masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the split `val` of the same folder, where it has one and is not itself that split."""
    folder, split = place_and_split(place, "train")
    return f"voc:{folder},val" if "val" in split_names(folder) and not split.startswith("val") else None
