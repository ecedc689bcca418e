from dataclasses import replace

import numpy as np
import pytest

from kfpn.data.fingerprint import changed_entries, fingerprint
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.object_masks import ObjectMasks
from tests.training import made_up
from tests.training.made_up import source


def changed(index=None, **fields):
    made = source(0, 3)
    records = [made[i] for i in range(3)]
    if index is not None:
        records[index] = replace(records[index], **fields)
    return IterableSource(records, made.class_names, name="records")


def test_the_same_annotations_have_the_same_fingerprint():
    assert changed_entries(fingerprint(source(0, 3)), fingerprint(changed())) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"boxes": np.array([[1, 2, 30, 40]], np.float32)}, "boxes"),
        ({"labels": np.array([1], np.int32)}, "labels"),
        ({"crowd": np.array([True])}, "crowd"),
        ({"image_id": 77}, "image_ids"),
    ],
)
def test_a_change_in_the_annotations_is_named(fields, named):
    assert changed_entries(fingerprint(changed()), fingerprint(changed(0, **fields))) == [named]


def test_changed_counts_of_images_and_objects_are_named():
    entries = changed_entries(fingerprint(source(0, 4)), fingerprint(source(0, 3)))
    assert entries[:1] == ["images: 4 -> 3"]
    assert "objects: 4 -> 3" in entries


def test_changed_masks_are_named_and_masks_that_were_not_read_before_are_no_change():
    with_masks = source(0, 3, kind=made_up.with_masks)
    triangles = [with_masks[i] for i in range(3)]
    boxed = ObjectMasks.of([[[1, 1, 9, 1, 9, 9, 1, 9]]], (triangles[0].height, triangles[0].width))
    other = IterableSource([replace(triangles[0], masks=boxed), *triangles[1:]], with_masks.class_names, name="records")
    same = IterableSource(triangles, with_masks.class_names, name="records")
    assert changed_entries(fingerprint(with_masks), fingerprint(same)) == []
    assert changed_entries(fingerprint(same), fingerprint(other)) == ["masks"]
    assert changed_entries(fingerprint(source(0, 3)), fingerprint(other)) == []
