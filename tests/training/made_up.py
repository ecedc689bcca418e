"""Makes pictures for training, with one green or red square each."""

import dataclasses

import numpy as np

from kfpn.data.formats.iterable import IterableSource
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record


def with_masks(records, class_names, name) -> IterableSource:
    """Gives each object a mask: the upper left half of its square, cut along the diagonal."""
    drawn = []
    for record in records:
        triangles = [[[x1, y1, x2, y1, x1, y2]] for y1, x1, y2, x2 in record.boxes.tolist()]
        drawn.append(dataclasses.replace(record, masks=ObjectMasks.of(triangles, (record.height, record.width))))
    return IterableSource(drawn, class_names, name=name)


def source(first: int, count: int, class_names=("green", "red"), name="records", kind=IterableSource) -> IterableSource:
    records = []
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        y, x, side, label = *rng.integers(4, 30, 2), rng.integers(16, 30), index % 2
        image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        image[y : y + side, x : x + side] = (255, 0, 0) if label else (0, 255, 0)
        box = np.array([[y, x, y + side, x + side]], np.float32)
        labels, crowd, areas = np.array([label], np.int32), np.array([False]), np.array([side**2], np.float32)
        records.append(Record(image, index, 64, 64, box, labels, crowd, areas, f"picture {index}"))
    return kind(records, class_names, name=name)
