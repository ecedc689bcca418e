"""Describes folders in YOLO's form that have no data.yaml: a classes.txt, images and labels."""

import contextlib
import re
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults, require_unique
from kfpn.data.folder_entries import entries_of, folders_in
from kfpn.data.formats.place_and_split import SPLITS
from kfpn.data.formats.yolo_yaml import DataYaml, is_data_yaml, parsed_yaml, read_data_yaml
from kfpn.data.image_endings import is_image_name
from kfpn.data.text_files import lines_of, read_text

BESIDE = "images outside of the folders that are read, left out"

CLASS_LISTS = ("classes.txt", "obj.names", "classes.names")
"""Files that hold the name of a class in each line."""


def described_data(place: Path, faults: AnnotationFaults) -> DataYaml:
    """Returns what a data.yaml says, or the one of a folder, or what the folder's classes.txt and its folders do.

    Args:
        place: a data.yaml; or a folder that holds one, or a classes.txt and images in a folder `images`, beside it or in a folder for
            each split.
        faults: its `source` is what messages call the data set; counts images beside the folders that are read.

    Raises:
        ValueError: when neither is there, or several are, or an image in the folder `images` belongs to no split.
    """
    if not place.is_dir():
        return read_data_yaml(place, faults)
    folder, yamls = place, data_yamls(place)
    if len(yamls) > 1:
        raise ValueError(
            f"yolo: must name one file, got {folder}, which holds {' and '.join(map(str, yamls[:5]))}: name one of them"
        )
    if yamls:
        return read_data_yaml(yamls[0], faults)
    paths = class_lists(folder)
    if not paths:
        raise ValueError(
            f"yolo: must name a data.yaml or a folder that holds one, or a classes.txt, got {folder}, which holds neither"
        )
    splits = folders_of_splits(folder)
    if not splits:
        raise ValueError(f"{faults.source}: must have images in {folder} or in {folder / 'images'}, got none")
    _count_images_beside(folder, splits, faults)
    names = {path: _listed_names(path) for path in paths}
    other = next((path for path in paths if names[path] != names[paths[0]]), None)
    if other is not None:
        raise ValueError(f"{faults.source}: {paths[0]} and {other} must list the same classes in the same order")
    return DataYaml(paths[0], folder, names[paths[0]], "", splits)


def data_yamls(folder: Path) -> list[Path]:
    """Returns the YAML files of a folder that describe a data set, also those that have faults."""
    paths = [path for path in entries_of(folder) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    return [path for path in paths if _describes_data(path)]


def class_lists(folder: Path) -> list[Path]:
    """Returns the lists of classes of a folder, and of its folders of labels and splits."""
    inner = [folder / "labels", *(folder / word for words in SPLITS.values() for word in words)]
    places = [place / name for place in (folder, *inner) for name in CLASS_LISTS]
    return [place for place in places if place.is_file()]


def folders_of_splits(folder: Path) -> dict[str, list[str]]:
    """Returns the folders of images of each split; a folder without splits is `train`.

    Args:
        folder: with images/train, with train/images, with train, with images, or with images.

    Returns:
        Split -> its folder, seen from `folder`.

    Raises:
        ValueError: when a split has two folders.
    """
    splits: dict[str, list[str]] = {}
    for split, words in SPLITS.items():
        places = [place for word in words for place in (f"images/{word}", f"{word}/images", word)]
        holding = [place for place in places if holds_images(folder / place)]
        if len(holding) > 1:
            raise ValueError(
                f"{folder}: {split} images must be in one folder, got {' and '.join(holding)}: write a data.yaml"
            )
        if holding:
            splits[split] = holding
    if not splits:
        whole = next((place for place in ("images", ".") if holds_images(folder / place)), None)
        return {"train": [whole]} if whole else {}
    return splits


def _count_images_beside(folder: Path, splits: dict[str, list[str]], faults: AnnotationFaults) -> None:
    """Counts the images of a folder, and of the folders in it, that no split reads; refuses them in its folder `images`."""
    read = [folder / place for places in splits.values() for place in places]
    if folder in read:
        return  # with all folders in it
    of_images = folder / "images"
    places = [folder, *folders_in(folder)]
    if of_images not in read:  # else it is read with all folders in it
        places += folders_in(of_images)
    for place in places:
        left_out = [] if place in read else _images_in(place)
        if left_out and of_images in (place, place.parent):
            raise ValueError(
                f"{faults.source}: images must lie in the folders of splits, {' and '.join(map(str, read))}, got {len(left_out)} in "
                f"{place} (first: {left_out[0].name}): move them into one of these folders, or write a data.yaml"
            )
        faults.add(BESIDE, str(left_out[0]) if left_out else "", len(left_out))


def holds_images(folder: Path) -> bool:
    """Tells whether a folder holds an image itself."""
    return bool(_images_in(folder))


def _images_in(folder: Path) -> list[Path]:
    return [path for path in entries_of(folder) if is_image_name(path)]


def _describes_data(path: Path) -> bool:
    with contextlib.suppress(ValueError):
        return is_data_yaml(parsed_yaml(path))
    # It is no YAML: the words at the beginning of its lines tell whether it was meant to be a data.yaml.
    with contextlib.suppress(ValueError):
        return is_data_yaml(dict(re.findall(r"^([a-z]+)\s*:\s*(.*)", read_text(path), re.MULTILINE)))
    return False


def _listed_names(path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in lines_of(read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        got = f"an empty line {lines.index('') + 1}" if lines else "an empty file"
        raise ValueError(f"{path}: must have the name of a class in each line, got {got}")
    require_unique(lines, "names", str(path))
    return tuple(lines)
