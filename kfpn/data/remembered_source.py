"""Opens a data set from what is remembered of it, where neither its annotations nor its images have changed since."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.data.annotations import AnnotatedSource, Annotations, ImageTable
from kfpn.data.check_memory import STAMP, CheckMemory, absolute, file_stamps, pack, remembering, settled, unpack
from kfpn.data.image_files import BY_LAST_PART, SPELT
from kfpn.data.mask_column import MaskColumn
from kfpn.data.opening_warnings import warn_of_data, warnings_kept
from kfpn.data.record import Source

_RUN_FILES = {"config.json", "classes.json"}
"""Files by which a work directory of `kfpn train` is known."""
OBJECT_PICTURES = "SegmentationObject"
"""The folder in which VOC has the masks of objects, as pictures."""
_ANNOTATION_ENDINGS = (".xml", ".json", ".txt", ".yaml", ".yml", ".names")


def open_remembered(open_place: Callable[[], Source], memory: CheckMemory, made_from: Sequence[str]) -> Source:
    """Opens a data set, from memory where that is possible, and remembers it.

    Args:
        open_place: opens and checks the data set.
        memory: of the data set.
        made_from: the files that its annotations are in, and all others beside them: a new name among them, or a change of an
            annotation file or a list, makes the memory void.

    Returns:
        The source that `open_place` returns, or an `AnnotatedSource` with the same content; warnings of the opening are said
        again.
    """
    with remembering(memory):
        stamps = _annotation_stamps(made_from)
        if memory.check_images != "full":
            with contextlib.suppress(Exception):  # of another kind, without annotations, or changed by someone
                if (source := _recall(memory, made_from, stamps)) is not None:
                    return source
        with warnings_kept() as said:
            source = open_place()
        if memory.check_images != "none":
            _learn(memory, source, (made_from, stamps), said)
        return source


def _annotation_stamps(files: Sequence[str]) -> np.ndarray:
    """Returns `file_stamps` of a folder's annotations and lists, or of a file that is named itself, and zeros for all others.

    Images have stamps of their own in the memory, and a log that grows changes nothing.
    """
    stamps = np.zeros((len(files), STAMP), np.int64)
    asked = [i for i, file in enumerate(files) if len(files) == 1 or _is_annotation(file)]
    stamps[asked] = file_stamps([files[i] for i in asked])
    return stamps


def _is_annotation(file: str) -> bool:
    folder = os.path.basename(os.path.dirname(file))
    return file.lower().endswith(_ANNOTATION_ENDINGS) or folder.lower() == OBJECT_PICTURES.lower()


def _recall(memory: CheckMemory, made_from: Sequence[str], stamps: np.ndarray) -> Source | None:
    held = memory.arrays
    if "words" not in held or unpack(held["made_from"]) != list(made_from):
        return None
    time = float(held["time"])
    if not (np.array_equal(held["made_stamps"], stamps) and settled(stamps, time).all()):
        return None
    now = file_stamps(unpack(held["paths"]))
    if not (np.array_equal(held["stamps"], now) and settled(now, time).all()):
        return None
    words = json.loads(str(held["words"]))
    images = unpack(held["images"])
    table = ImageTable(images, images, held["ids"], held["rows"][:, :2])
    annotations = Annotations.from_arrays(held)
    _require_sound(annotations, table, len(words["class_names"]), len(words["category_ids"]))
    with warnings_kept() as said_now:
        source = AnnotatedSource(words["name"], words["class_names"], words["category_ids"], table, annotations)
    source.fault_counts = {kind: (int(count), str(first)) for kind, (count, first) in words["fault_counts"].items()}
    source.left_out_classes = [(str(name), int(number)) for name, number in words["left_out_classes"]]
    for text in words["said"]:
        if text not in said_now:
            warn_of_data(str(text))
    return source


def _require_sound(annotations: Annotations, table: ImageTable, classes: int, category_ids: int) -> None:
    """Raises ValueError for arrays that no data set has: the file was changed by someone."""
    count, objects, offsets = len(table.images), len(annotations.boxes), annotations.offsets
    shapes = {
        "offsets": (count + 1,), "boxes": (objects, 4), "labels": (objects,), "crowd": (objects,), "areas": (objects,),
    }  # fmt: skip
    kinds = {"offsets": np.int64, "boxes": np.float32, "labels": np.int32, "crowd": bool, "areas": np.float32}
    arrays = annotations.arrays()
    sound = all(arrays[key].shape == shape and arrays[key].dtype == kinds[key] for key, shape in shapes.items())
    sound = sound and _are_sound_masks(annotations.masks, objects)
    sound = sound and table.sizes.shape == (count, 2) and np.shape(table.ids) == (count,) and classes == category_ids
    if sound and objects:
        sizes = np.repeat(table.sizes, np.diff(offsets), axis=0)
        boxes, labels = annotations.boxes, annotations.labels
        sound = bool(labels.min() >= 0 and labels.max() < classes and len(sizes) == objects and boxes.min() >= 0)
        sound = sound and bool((boxes[:, 2:] <= sizes).all() and (boxes[:, :2] < boxes[:, 2:]).all())
    if not (sound and offsets[0] == 0 and offsets[-1] == objects and (np.diff(offsets) >= 0).all()):
        raise ValueError("the memory does not fit")


def _are_sound_masks(masks: MaskColumn | None, objects: int) -> bool:
    """Returns whether a column of masks has a place for each object. The masks themselves are not unpacked."""
    if masks is None:
        return True
    content, offsets = masks.content, masks.offsets
    known = (
        content.dtype == np.uint8
        and content.ndim == 1
        and offsets.dtype == np.int64
        and offsets.shape == (objects + 1,)
    )
    return bool(known and offsets[0] == 0 and offsets[-1] == len(content) and (np.diff(offsets) >= 0).all())


def _learn(memory: CheckMemory, source: Source, made: tuple[Sequence[str], np.ndarray], said: Sequence[str]) -> None:
    if not isinstance(source, AnnotatedSource) or "paths" not in memory.arrays:
        return
    if {SPELT, BY_LAST_PART} & source.fault_counts.keys():
        return  # A file that is added to the folder could fit such a name better, or as well.
    images = list(source.table.images)
    if images != list(source.table.names) or not all(isinstance(image, str) for image in images):
        return
    if [absolute(str(image)) for image in images] != unpack(memory.arrays["paths"]):
        return
    words: dict[str, Any] = {
        "name": source.name,
        "class_names": list(source.class_names),
        "category_ids": list(source.category_ids),
        "left_out_classes": source.left_out_classes,
        "fault_counts": source.fault_counts,
        "said": list(said),
    }
    memory.arrays |= {
        "words": np.asarray(json.dumps(words)),
        "made_from": pack(made[0]),
        "made_stamps": made[1],
        "images": pack([str(image) for image in images]),
        "ids": source.image_ids,
        "time": np.asarray(memory.time),
        **source.annotations.arrays(),
    }
    memory.changed = True


def files_below(place: str) -> list[str]:
    """Returns a file, or all files below a folder, sorted, as absolute paths; hidden ones and those of kfpn's runs are left out."""
    path = os.path.abspath(os.path.expanduser(place))
    if not os.path.isdir(path):
        return [path]
    files, seen = [], set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        of_run = folder != path and _RUN_FILES.issubset(names)  # a work directory changes with each step
        folders[:] = [] if real in seen or of_run else sorted(name for name in folders if not name.startswith("."))
        if real not in seen and not of_run:
            files += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(files)


def existing_part(place: str) -> Path | None:
    """Returns the file or folder with which the text behind a format's prefix begins, up to one of its commas; None: none."""
    while place:
        path = Path(place).expanduser()
        if path.exists():
            return path
        place = place.rpartition(",")[0]
    return None
