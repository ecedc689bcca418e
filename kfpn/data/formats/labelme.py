"""Reads the JSON files that the drawing program labelme saves beside pictures: `labelme:FOLDER[,SPLIT]`."""

from pathlib import Path

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, upright_boxes
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.formats.labelme_folder import (
    folder_of_split,
    labelme_splits,
    pictures_of,
    read_labelme_files,
)
from kfpn.data.formats.labelme_shapes import LabelmeObject, objects_of_shapes
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, SPLITS, place_and_split
from kfpn.data.image_checks import read_headers
from kfpn.data.mask_faults import usable_mask
from kfpn.data.record import Source
from kfpn.data.remembered_source import files_below
from kfpn.data.upright_masks import upright_mask


class LabelmeSource(AnnotatedSource):
    """Reads a folder of pictures with labelme's JSON files, those in the folders below it too.

    Polygons, rectangles, circles and masks are objects; shapes with one label and one group_id are one object. Points lie in the
    image after EXIF rotation, as labelme shows it, in pixels from its corner. The classes are the labels, sorted.

    Args:
        folder: holds the JSON files; or folders `train`, `valid` and `test` that do.
        split: one of these folders; of a folder without them `train`, which is all of it.
        masks: whether the shapes are kept as masks too.

    Raises:
        ValueError: when files are missing or damaged, or contradict each other; says which and why.
    """

    def __init__(self, folder: str | Path, split: str = "train", *, masks: bool = False) -> None:
        name = f"labelme:{folder},{SPLITS[SPLIT_OF_WORD[split]][0] if split in SPLIT_OF_WORD else split}"
        faults = AnnotationFaults(name)
        place = folder_of_split(Path(folder).expanduser(), split, faults)
        files = read_labelme_files(place, faults)
        pictures = pictures_of(files, place, faults)
        sizes, orientations = read_headers(pictures, pictures, name)
        declared = np.asarray([file.declared for file in files], np.int64).reshape(-1, 2)
        of_files = [f"{picture} of {file.path}" for picture, file in zip(pictures, files, strict=True)]
        turns = np.where(in_stored_pixels(declared, sizes, orientations, of_files, name), orientations, 1)
        rows = [
            (i, item) for i, file in enumerate(files) for item in objects_of_shapes(file.shapes, str(file.path), faults)
        ]
        objects, of_image = [item for _, item in rows], np.asarray([i for i, _ in rows], np.int64)
        class_names = sorted({item.label for item in objects})
        if not class_names:
            raise ValueError(f"{name}: must have at least one annotated object, got none in {place}")
        boxes = np.asarray([item.box() for item in objects], np.float64)
        drawn = _upright_masks(objects, boxes, sizes[of_image], turns[of_image], faults) if masks else None
        raw = RawObjects(
            of_image,
            upright_boxes(boxes, sizes[of_image], turns[of_image]),
            [class_names.index(item.label) for item in objects],
            [item.crowd for item in objects],
            [item.area() for item in objects],
            where=lambda m: objects[m].where,
            masks=drawn,
        )
        super().__init__(
            name=name,
            class_names=class_names,
            category_ids=range(1, len(class_names) + 1),
            table=ImageTable.of_files(pictures, sizes),
            annotations=collect(raw, sizes, faults),
        )
        self.report(faults)


def _upright_masks(
    objects: list[LabelmeObject], boxes: np.ndarray, frames: np.ndarray, turns: np.ndarray, faults: AnnotationFaults
) -> list[bytes]:
    """Returns the mask of each object in the image after EXIF rotation; empty where it has none that can be used.

    Args:
        objects: M.
        boxes: (M, 4) yxyx in the pixels that the shapes lie in.
        frames: (M, 2) height and width of each one's image after EXIF rotation.
        turns: (M,) EXIF orientation of images whose shapes lie in the stored pixels, else 1.
        faults: counts the masks that are left out.
    """
    masks = []
    for item, box, frame, turn in zip(objects, boxes, frames.tolist(), turns.tolist(), strict=True):
        size = (frame[0], frame[1])
        stored = size[::-1] if turn >= 5 else size
        content = usable_mask(item.packed_mask(stored), stored, item.where, faults, box)
        masks.append(upright_mask(content, size, turn))
    return masks


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `FOLDER[,SPLIT]`; of a folder without folders of splits the split is left out."""
    folder, named = place_and_split(place, "")
    whole = not named and not labelme_splits(Path(folder).expanduser())
    return LabelmeSource(folder, "train" if whole else named or split, masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the split `val` of the same folder, where it has one and is not itself another split."""
    folder, split = place_and_split(place, "train")
    splits = labelme_splits(Path(folder).expanduser())
    return f"labelme:{folder},val" if "validation" in splits and SPLIT_OF_WORD.get(split) == "train" else None


def annotation_files(place: str, split: str) -> list[str]:
    """Returns all files below the folder of a split: a new name among them, or a changed JSON file, shows."""
    folder, named = place_and_split(place, split)
    root = Path(folder).expanduser()
    return files_below(str(labelme_splits(root).get(SPLIT_OF_WORD.get(named, ""), root)))
