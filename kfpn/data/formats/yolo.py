"""Reads data sets in YOLO's form: `yolo:DATA.yaml[,SPLIT]`."""

import os
from pathlib import Path

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.box_orders import CENTERS, check_corner_order
from kfpn.data.formats.place_and_split import SPLIT_OF_WORD, SPLITS, USUAL_WORDS, place_and_split
from kfpn.data.formats.yolo_folder import described_data
from kfpn.data.formats.yolo_images import YoloFiles, files_of_split, find_place
from kfpn.data.formats.yolo_labels import LabelTable, require_centers
from kfpn.data.formats.yolo_yaml import DataYaml
from kfpn.data.image_checks import progress, read_headers
from kfpn.data.mask_content import NOTHING, pack_polygons
from kfpn.data.opening_warnings import warn_of_data
from kfpn.data.record import Source


class YoloSource(AnnotatedSource):
    """Reads a data.yaml, the images that it names, and their label files.

    Each line of a label file is a class and a box (the centre's x and y, width, height) or a polygon, as shares of the sides of
    the image as viewers show it, after EXIF rotation. A polygon becomes the box around it. Images without a label file have no
    objects. Labels 0 .. K-1 are the numbers of the yaml.

    Args:
        place: a data.yaml; or a folder with a classes.txt, images and labels.
        split: "train", "validation" or "test".
        masks: whether polygons are kept as masks too.

    Raises:
        ValueError: when files are missing or damaged, or contradict each other; says which and why.
    """

    def __init__(self, place: str | Path, split: str = "train", *, masks: bool = False) -> None:
        split = _known_split(split)
        name = f"yolo:{place},{SPLITS[split][0]}"
        faults = AnnotationFaults(name)
        data, files = _data_and_files(Path(place).expanduser(), split, faults)
        _require_other_images(data, split, faults)
        sizes, _ = read_headers(files.images, files.images, name)
        objects = LabelTable(len(data.class_names), data.keypoints, str(data.path))
        for i, label in progress(list(enumerate(files.labels)), len(files.labels), f"reading the labels of {name}"):
            if label is not None:
                objects.read(i, label, faults)
        objects.report_polygons(faults, masks=masks)
        require_centers(name, objects)
        of_image = np.asarray(objects.images, np.int64)
        sides = sizes[of_image].astype(np.float64)
        raw = RawObjects(
            of_image,
            np.asarray(objects.boxes, np.float64).reshape(-1, 4)
            * np.concatenate([sides, sides], axis=1).reshape(-1, 4),
            objects.labels,
            np.zeros(len(of_image), bool),
            np.asarray(objects.areas, np.float64) * sides.prod(axis=1),
            where=lambda m: f"{files.labels[objects.images[m]]}, line {objects.lines[m]}",
            masks=_masks_of_polygons(objects.polygons, sides) if masks else None,
        )
        plain = np.asarray(objects.plain, bool)
        check_corner_order(
            name, "labels", CENTERS, raw.boxes[plain], sizes[of_image[plain]], np.ones(int(plain.sum()), np.int64)
        )
        super().__init__(
            name=name,
            class_names=data.class_names,
            category_ids=range(len(data.class_names)),
            table=ImageTable.of_files(files.images, sizes),
            annotations=collect(raw, sizes, faults),
        )
        self.report(faults)


def _masks_of_polygons(polygons: list[np.ndarray | None], sides: np.ndarray) -> list[bytes]:
    """Returns masks of polygons in shares of the sides (M, 2), height and width, of their images."""
    pairs = zip(polygons, sides[:, ::-1], strict=True)
    return [NOTHING if polygon is None else pack_polygons([polygon * of_image]) for polygon, of_image in pairs]


def _known_split(text: str) -> str:
    if text not in SPLIT_OF_WORD:
        raise ValueError(f"split must be one of {USUAL_WORDS}, got {text!r}")
    return SPLIT_OF_WORD[text]


def _data_and_files(place: Path, split: str, faults: AnnotationFaults) -> tuple[DataYaml, YoloFiles]:
    data = described_data(place, faults)
    if split not in data.splits:
        there = ", ".join(SPLITS[known][0] for known in data.splits)
        raise ValueError(
            f"{faults.source}: split must be one of {there}, got {SPLITS[split][0]}: {data.path} names no other"
        )
    return data, files_of_split(data, split, faults)


def _require_other_images(data: DataYaml, split: str, faults: AnnotationFaults) -> None:
    """Refuses a split whose folder is that of the training images, found by guessing; warns where the yaml says so itself."""
    if split == "train" or "train" not in data.splits:
        return
    unheard = AnnotationFaults(faults.source)
    places = {os.path.realpath(find_place(data, entry, unheard)): entry for entry in data.splits["train"]}
    for entry in data.splits[split]:
        twin = places.get(os.path.realpath(find_place(data, entry, unheard)))
        if twin == entry:
            warn_of_data(
                f"{faults.source}: holds the training images, {entry}: what is measured says nothing of new images"
            )
        elif twin is not None:
            raise ValueError(
                f"{data.path}: {entry} and {twin} must be different places, got one for both: correct the yaml"
            )


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `DATA.yaml[,SPLIT]`, or a folder that holds a classes.txt."""
    return YoloSource(*place_and_split(place, split), masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the validation split of the same yaml, where it names one and is not itself that split."""
    path, split = place_and_split(place, "train")
    data = described_data(Path(path).expanduser(), AnnotationFaults(f"yolo:{place}"))
    return f"yolo:{path},val" if "validation" in data.splits and _known_split(split) == "train" else None


def annotation_files(place: str, split: str) -> list[str]:
    """Returns the files that a split is made from, images and label files too: a change of one of them shows."""
    path, named = place_and_split(place, split)
    split = _known_split(named)
    data, files = _data_and_files(Path(path).expanduser(), split, AnnotationFaults(f"yolo:{place}"))
    made_from = [str(data.path), *files.lists, *files.images, *filter(None, files.labels)]
    return [os.path.abspath(file) for file in made_from]
