"""Makes a source of records that were made in Python."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults, in_stored_pixels, require_unique
from kfpn.data.annotations import AnnotatedSource, ImageTable, RawObjects, collect
from kfpn.data.box_orders import YXYX, check_box_order
from kfpn.data.image_checks import read_headers
from kfpn.data.mask_content import NOTHING, pack_bitmap
from kfpn.data.mask_faults import usable_mask
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record

_FLAGS, _NUMBERS, _WHOLE_NUMBERS = "0, 1, False or True", "numbers", "whole numbers"
_KINDS = {
    "boxes": ("iuf", _NUMBERS),
    "labels": ("iuf", _WHOLE_NUMBERS),
    "crowd": ("biuf", _FLAGS),
    "areas": ("iuf", _NUMBERS),
}
"""What the fields of a record hold: kinds of numpy dtypes, and the rule for messages. Text is none: "0" would become True."""


class IterableSource(AnnotatedSource):
    """Holds records of your own in memory, checked like any other data set.

    Args:
        records: `Record`s; images given as paths or bytes are read when used.
        class_names: names of labels 0 .. K-1.
        category_ids: the ids of labels 0 .. K-1 in COCO results; None: 1 .. K.
        name: what messages call the data set.

    Raises:
        ValueError: when a record contradicts itself or its image cannot be used; says which and why.
    """

    def __init__(
        self,
        records: Iterable[Record],
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        name: str = "records",
    ) -> None:
        if isinstance(class_names, str):
            raise ValueError(f"class_names must be a sequence of names, got the string {class_names!r}")
        held = list(records)
        names = [record.name or f"record {i}" if isinstance(record, Record) else "" for i, record in enumerate(held)]
        for index, record in enumerate(held):
            _check(record, f"{name}: {names[index] or f'item {index}'}", len(class_names))
            _require_masks(record, f"{name}: {names[index]}")
        require_unique(class_names, "class_names", name)
        require_unique((record.image_id for record in held), "image ids", name)
        ids = range(1, len(class_names) + 1) if category_ids is None else category_ids
        if len(ids) != len(class_names):
            raise ValueError(f"{name}: category_ids must be one for each class ({len(class_names)}), got {len(ids)}")
        sizes = _sizes_of_records(held, names, name)
        faults = AnnotationFaults(name)
        of_image = np.repeat(np.arange(len(held)), [len(record.boxes) for record in held])
        objects = RawObjects(
            of_image,
            np.concatenate([np.zeros((0, 4)), *(record.boxes for record in held)]),
            np.concatenate([np.zeros(0), *(record.labels for record in held)]),
            np.concatenate([np.zeros(0, bool), *(record.crowd for record in held)]),
            np.concatenate([np.zeros(0), *(record.areas for record in held)]),
            where=lambda m: names[of_image[m]],
            masks=_masks_of_records(held, names, faults),
        )
        check_box_order(name, "boxes", YXYX, objects.boxes, sizes[of_image])
        image_ids = [record.image_id for record in held]
        images: list[Any] = [record.image for record in held]
        table = ImageTable(images, names, image_ids, sizes)
        super().__init__(name, class_names, ids, table, collect(objects, sizes, faults))
        self.report(faults)


def _masks_of_records(records: list[Record], names: list[str], faults: AnnotationFaults) -> list[bytes] | None:
    """Returns the masks of all objects, empty where one has none that can be used; None where no record has masks."""
    if all(record.masks is None for record in records):
        return None
    rows: list[bytes] = []
    for record, name in zip(records, names, strict=True):
        rows += (
            [NOTHING] * len(record.boxes) if record.masks is None else _usable_rows(record, record.masks, name, faults)
        )
    return rows


def _usable_rows(record: Record, masks: ObjectMasks, name: str, faults: AnnotationFaults) -> list[bytes]:
    rows = list(masks.serialized())
    for i, box in enumerate(np.asarray(record.boxes, np.float64).reshape(-1, 4)):
        content = pack_bitmap(masks.bitmap(i)) if masks.is_moved(i) and rows[i] else masks.contents[i]
        if not usable_mask(content, masks.size, f"object {i} of {name}", faults, box):
            rows[i] = NOTHING
    return rows


def _require_masks(record: Record, where: str) -> None:
    masks = record.masks
    if masks is None:
        return
    if not isinstance(masks, ObjectMasks):
        raise ValueError(
            f"{where}: masks must be kfpn.ObjectMasks, got {type(masks).__name__}: make them with ObjectMasks.of"
        )
    if len(masks) != len(record.boxes):
        raise ValueError(f"{where}: masks must be one for each box, got {len(masks)} for {len(record.boxes)} boxes")
    if masks.size != (record.height, record.width):
        raise ValueError(
            f"{where}: masks must be of the image's size {record.height} x {record.width} (height x width), got {masks.size[0]} x {masks.size[1]}"
        )


def _check(record: Record, where: str, num_classes: int) -> None:
    if not isinstance(record, Record):
        raise ValueError(f"{where} must be a kfpn.Record, got a {type(record).__name__}")
    if not isinstance(record.image, (str, bytes, np.ndarray)):
        raise ValueError(f"{where}: image must be a path (str), bytes or an array, got a {type(record.image).__name__}")
    if not isinstance(record.image_id, (int, np.integer)) or not -(2**63) <= record.image_id < 2**63:
        raise ValueError(f"{where}: image_id must be an integer of 64 bits, got {str(record.image_id)[:50]!r}")
    pixels = record.image
    if isinstance(pixels, np.ndarray) and (pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3):
        raise ValueError(f"{where}: image must be (H, W, 3) uint8, got {pixels.dtype} of shape {pixels.shape}")
    count = len(record.boxes)
    for field, shape in (("boxes", (count, 4)), ("labels", (count,)), ("crowd", (count,)), ("areas", (count,))):
        got = np.shape(getattr(record, field))
        if got != shape and not (count == 0 and 0 in got):
            raise ValueError(f"{where}: {field} must be of shape {shape}, got {got}")
    for field, (kinds, rule) in _KINDS.items():
        values = np.asarray(getattr(record, field))
        if values.size and not (values.dtype.kind in kinds and _keeps(rule, values)):
            raise ValueError(f"{where}: {field} must be {rule}, got {values.ravel()[:5].tolist()}")
    if count and not (np.min(record.labels) >= 0 and np.max(record.labels) < num_classes):
        raise ValueError(f"{where}: labels must lie in 0..{num_classes - 1}, got {np.asarray(record.labels).tolist()}")


def _keeps(rule: str, values: np.ndarray) -> bool:
    if rule == _FLAGS:
        return bool(np.isin(values, (0, 1)).all())
    return rule == _NUMBERS or bool((values == np.round(values)).all())


def _sizes_of_records(records: list[Record], names: list[str], source: str) -> np.ndarray:
    sizes = np.zeros((len(records), 2), np.int32)
    encoded = [i for i, record in enumerate(records) if not isinstance(record.image, np.ndarray)]
    for i, record in enumerate(records):
        if isinstance(record.image, np.ndarray):
            sizes[i] = record.image.shape[:2]
    if encoded:
        images = [cast(str | bytes, records[i].image) for i in encoded]
        sizes[encoded] = read_headers(images, [names[i] for i in encoded], source)[0]
    declared = np.asarray([(record.height, record.width) for record in records], np.int64).reshape(-1, 2)
    in_stored_pixels(declared, sizes, np.ones(len(records), np.int32), names, source)
    return sizes
