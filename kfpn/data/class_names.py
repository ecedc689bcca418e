"""Matches the classes of two data sets by their names."""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np

from kfpn.data.annotation_checks import LOGGER, plain_name
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.image_checks import NAMED_FAULTS
from kfpn.data.record import Record, Source


class RelabelledSource:
    """Reads the records of a source with the labels of other class names.

    Args:
        source: the data set.
        class_names: the K names of the new labels.
        category_ids: the ids of the new labels.
        labels: the new label of each of the source's own, -1 where no object has it.
    """

    def __init__(
        self, source: Source, class_names: Sequence[str], category_ids: Sequence[int], labels: np.ndarray
    ) -> None:
        self.name = source.name
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.sizes = source.sizes
        self.max_boxes = source.max_boxes
        self._source, self._labels = source, labels

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """Returns image `index` with the new labels."""
        record = self._source[index]
        return dataclasses.replace(record, labels=self._labels[np.asarray(record.labels, np.int64)])


def with_classes_of(train: Source, val: Source) -> Source:
    """Returns validation data with the labels of the training data: classes are matched by name.

    A class that only the validation data lists, and that has no box there, is left out. Classes of the training data that
    the validation data lack can't be measured. A warning names both.

    Args:
        train: whose classes count.
        val: whose records are used.

    Returns:
        `val` itself where the classes are the same, in the same order.

    Raises:
        ValueError: when an object of the validation data has a class that the training data lack; names the classes.
    """
    names, own = tuple(train.class_names), tuple(val.class_names)
    if names == own:
        return val
    extra = [name for name in own if name not in names]
    with_boxes = _names_with_boxes(val, extra)
    if with_boxes:
        lacking = [name for name in names if name not in own]
        parts = [f"{source.name} alone has {listed(some)}" for source, some in ((train, lacking), (val, extra)) if some]
        raise ValueError(
            f"val_data must have the classes of data ({', '.join(names)}), got {', '.join(own)}: {'; '.join(parts)}"
            f"{spelling_hint(with_boxes, names)}"
        )
    if extra:
        LOGGER.warning("%s: classes that %s lacks, without a box, left out: %s", val.name, train.name, listed(extra))
    if unmeasured := [name for name in names if name not in own]:
        LOGGER.warning(
            "%s: classes of %s that are not listed, so not measured: %s", val.name, train.name, listed(unmeasured)
        )
    return relabelled(val, names, train.category_ids)


def relabelled(source: Source, class_names: Sequence[str], category_ids: Sequence[int]) -> Source:
    """Returns a source with the labels of other class names; those that are not among them have no objects.

    Args:
        source: the data set.
        class_names: the names of the new labels.
        category_ids: the ids of the new labels.
    """
    names = list(class_names)
    labels = np.array([names.index(name) if name in names else -1 for name in source.class_names], np.int32)
    if not isinstance(source, AnnotatedSource):
        return RelabelledSource(source, names, category_ids, labels)
    again = copy.copy(source)
    again.class_names, again.category_ids = tuple(names), tuple(category_ids)
    again.annotations = dataclasses.replace(source.annotations, labels=labels[source.annotations.labels])
    return again


def lacking_classes(source: Source, class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the classes of a source that a detector lacks, or has twice: those with boxes, and those without.

    Args:
        source: the data set.
        class_names: the names of the detector's labels.
    """
    names = list(class_names)
    lacking = [name for name in source.class_names if names.count(name) != 1]
    with_boxes = _names_with_boxes(source, lacking)
    return with_boxes, [name for name in lacking if name not in with_boxes]


def spelling_hint(wanted: Sequence[str], known: Sequence[str]) -> str:
    """Returns the end of a message: names that differ from known ones in case, spaces or hyphens only, else nothing."""
    plain = {plain_name(name): name for name in reversed(known)}
    pairs = [(name, plain[plain_name(name)]) for name in wanted if name not in known and plain_name(name) in plain]
    if not pairs:
        return ""
    shown = ", ".join(f"{name!r} and {other!r}" for name, other in pairs[:NAMED_FAULTS])
    return f"; make these names the same, they differ only in case, spaces, hyphens or accents' form: {shown}"


def listed(names: Sequence[str]) -> str:
    """Returns names for a message, the first five of many."""
    return ", ".join(map(repr, names[:NAMED_FAULTS])) + (", ..." if len(names) > NAMED_FAULTS else "")


def _names_with_boxes(source: Source, names: Sequence[str]) -> list[str]:
    """Returns those of some classes that have an object, crowd or not."""
    if not names:
        return []
    if isinstance(source, AnnotatedSource):
        used = set(np.unique(source.annotations.labels).tolist())
    else:
        used = {int(label) for index in range(len(source)) for label in source[index].labels}
    return [name for label, name in enumerate(source.class_names) if label in used and name in names]
