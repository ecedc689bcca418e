"""Counts the facts of a data set that the rules of the preset `auto` look at."""

import numpy as np

from kfpn.config.auto_facts import DataFacts
from kfpn.config.spread import evenly_spread
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.object_counts import classes_of_images
from kfpn.data.record import Source

MOST_LOOKED_AT = 20_000
"""Images and boxes that are looked at: of more, some that are evenly spread. Their quantiles then vary by half a percent."""
MOST_READ = 300
"""Records that are read of a source without a table of its boxes: each may cost as much as a decoded image."""


def count_facts(source: Source) -> DataFacts:
    """Returns the facts of a data set. The same data give the same facts in each process.

    Args:
        source: of `open_source`, with at least one image.
    """
    if not isinstance(source, AnnotatedSource):
        return _facts_of_records(source)
    held, sizes = source.annotations, np.asarray(source.sizes)
    wanted = ~held.crowd
    of_image = held.image_of_box()[wanted]
    chosen = evenly_spread(len(of_image), MOST_LOOKED_AT)
    return DataFacts(
        images=len(source),
        image_sizes=sizes[evenly_spread(len(sizes), MOST_LOOKED_AT)],
        boxes=held.boxes[wanted][chosen],
        box_image_sizes=sizes[of_image[chosen]],
        objects_of_image=np.bincount(of_image, minlength=len(source)),
        class_shares=np.bincount(classes_of_images(source).labels, minlength=len(source.class_names)) / len(source),
    )


def _facts_of_records(source: Source) -> DataFacts:
    records = [source[int(index)] for index in evenly_spread(len(source), MOST_READ)]
    counts = [int((~record.crowd).sum()) for record in records]
    sizes = np.array([(record.height, record.width) for record in records]).reshape(-1, 2)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(record.boxes[~record.crowd] for record in records)])
    labels = np.concatenate([np.zeros(0, np.int64), *(np.unique(record.labels[~record.crowd]) for record in records)])
    all_sizes = np.asarray(source.sizes)
    return DataFacts(
        images=len(source),
        image_sizes=all_sizes[evenly_spread(len(all_sizes), MOST_LOOKED_AT)],
        boxes=boxes,
        box_image_sizes=np.repeat(sizes, counts, axis=0),
        objects_of_image=np.array([*counts, source.max_boxes]),
        class_shares=np.bincount(labels.astype(np.int64), minlength=len(source.class_names)) / len(records),
    )
